"""What the setting `file` names: a file of boxes, by its ending, or otherwise a folder of masks."""

from __future__ import annotations

import os

BOX_FILES = (".h5", ".hdf5", ".npz", ".mat")
"""The endings of files of boxes."""


def names_masks(file: str) -> bool:
    """Whether a proposals `file` is, by its name, a folder of masks; $VARIABLES are expanded."""
    return bool(file) and not os.path.expandvars(file).lower().endswith(BOX_FILES)
