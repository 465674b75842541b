"""Regions with masks from a folder of .mat files, as CPMC writes them (Carreira and Sminchisescu 2010).

For each image there is a file ID.mat (up to version 7), whose variable `masks` is logical [H, W, n]: n regions of the
image, best first. A box is the one around its mask.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache import Record
from cache.files import cannot
from stages.contract.errors import BadImage, ChangedInput, StageError
from stages.datasets.digests import combined, memory_of
from stages.datasets.listing import Listing
from stages.input_files import read_whole
from stages.masks import encode, mask_boxes, mask_columns
from stages.mat_file import is_version_7_3, read_variables
from stages.propose.selection import Proposals, Rows

ENDING, MASKS = ".mat", "masks"


@dataclass(frozen=True)
class ListedRegions:
    """Regions in a file's order: masks bool [n, H, W]."""

    masks: NDArray[np.bool_]

    def take(self, rows: Rows) -> ListedRegions:
        """The regions at `rows`, in their order."""
        return ListedRegions(self.masks[rows])

    def columns(self) -> Record:
        """The columns of a cache that hold their masks (stages/masks.py)."""
        height, width = self.masks.shape[1:]
        return mask_columns([encode(mask) for mask in self.masks], (width, height))


@dataclass(frozen=True)
class MaskFile:
    """An image's file of masks, whose content must have this SHA-256 (hex)."""

    path: Path
    sha256: str

    def proposals(self, size: tuple[int, int]) -> Proposals:
        """The regions of an image of `size` (width, height), in the file's order.

        Raises StageError for a file that cannot be read, masks of another size and a mask without pixels, and
        ChangedInput.
        """
        masks = self.masks()
        width, height = size
        if not masks.size:
            masks = np.zeros((0, height, width), np.bool_)
        if masks.shape[1:] != (height, width):
            raise StageError(
                f"{self.path}: its masks have {masks.shape[2]} x {masks.shape[1]} pixels but the image has {width} x "
                f"{height}; name the masks of this image"
            )
        empty = np.flatnonzero(~masks.any(axis=(1, 2)))
        if len(empty):
            raise StageError(f"{self.path}: mask {empty[0] + 1} of {len(masks)} has no pixels; leave it out")
        return Proposals(mask_boxes(masks), regions=ListedRegions(masks))

    def masks(self) -> NDArray[np.bool_]:
        """The masks in the file: bool [n, H, W]. Raises StageError and ChangedInput."""
        raw = contents(self.path)
        if hashlib.sha256(raw).hexdigest() != self.sha256:
            raise ChangedInput.of(self.path)
        if is_version_7_3(raw):
            raise StageError(f"{self.path}: is a version 7.3 .mat file; convert it in MATLAB with save(..., '-v7')")
        try:
            masks = read_variables(raw, {MASKS}).get(MASKS)
        except ValueError as error:
            raise StageError(f"{self.path}: is not a complete .mat file ({error}); copy it again") from error
        if not isinstance(masks, np.ndarray) or masks.dtype != np.bool_ or masks.ndim not in (2, 3):
            raise StageError(f"{self.path}: has no logical array '{MASKS}' of shape [H, W, n]; write one, as CPMC does")
        return np.moveaxis(np.atleast_3d(masks), 2, 0)  # MATLAB has no third axis of length 1


class MaskFolder:
    """The files of masks in a folder, by image id, each with the content that a key was made from."""

    def __init__(self, path: Path, sha256: str | None = None) -> None:
        """Reads all files. Raises StageError if there are none, and ChangedInput unless their `folder_sha256` is
        `sha256`, if that is given."""
        self.path = path
        self.listing = Listing(path, (ENDING,))
        self.digests = {file: hashlib.sha256(contents(file)).hexdigest() for file in files_of(path)}
        if sha256 is not None and digest_of(path, self.digests) != sha256:
            raise ChangedInput.of(path)

    def file(self, image_id: str) -> MaskFile:
        """The image's file. Raises StageError if there is none."""
        found = [path for path in self.listing.find(image_id) if path in self.digests]
        if not found:
            raise StageError(
                f"{self.path}: has no {image_id}{ENDING} with the masks of image '{image_id}'; add it, or use another "
                "split"
            )
        return MaskFile(found[0], self.digests[found[0]])


def folder_sha256(path: Path, work: Path | None = None) -> str:
    """The SHA-256 (hex) over the names and contents of the .mat files in a folder and its sub-folders.

    Files' digests are remembered in the folder `work`, if given. Raises StageError if there are none.
    """
    files = files_of(path)
    if work is None:
        return digest_of(path, {file: hashlib.sha256(contents(file)).hexdigest() for file in files})
    try:
        return digest_of(path, dict(zip(files, memory_of(path, work).of(files), strict=True)))
    except BadImage as error:
        raise StageError(f"{error.path}: {error.reason}; correct it, or propose.file") from error


def files_of(path: Path) -> list[Path]:
    """The .mat files in a folder and its sub-folders, sorted. Raises StageError if there are none."""
    files = Listing(path, (ENDING,)).files
    if not files:
        raise StageError(f"{path}: contains no .mat files; propose.file names a file of boxes, or a folder of masks")
    return files


def digest_of(path: Path, digests: Mapping[Path, str]) -> str:
    """A single digest over the files' names below `path` and their digests."""
    return combined("masks", [f"{file.relative_to(path).as_posix()} {digest}" for file, digest in digests.items()])


def contents(path: Path) -> bytes:
    """The bytes of a file. Raises StageError."""
    try:
        return read_whole(path)
    except OSError as error:
        raise StageError(f"{path}: " + cannot("be read", error, "correct propose.file")) from error
