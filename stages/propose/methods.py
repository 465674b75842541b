"""The table of proposal methods; adding one takes a module, its settings (__init__.py) and a line here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

BY_POSITION = "not a ranking: a random order that prefers regions near the top of their hierarchy"
BY_DIVERSITY = "best and most diverse first: each by the contrast of its border less its overlap with those before"
BY_SIZE = "not a ranking: a random order weighted by the square root of box area"


def opencv_key(settings: Any, work: Path | None) -> dict[str, Any]:
    """The major version of the installed OpenCV, from its package metadata (importing it would take long).

    OpenCV 4.12 to 4.14 find the same boxes, 5.0 finds others. If OpenCV is not installed, this is the version that the
    project is written for, so that a complete cache copied from elsewhere is still found.
    """
    from importlib import metadata

    for variant in ("contrib-python-headless", "contrib-python", "python-headless", "python"):
        try:
            return {"opencv": metadata.version(f"opencv-{variant}").partition(".")[0]}
        except metadata.PackageNotFoundError:
            continue
    return {"opencv": "4"}


def search_key(settings: Any, work: Path | None) -> dict[str, Any]:
    """The number of our implementation, to be raised when boxes or their order change, and OpenCV's major version:
    colours, blur and gradients are OpenCV's."""
    return {"implementation": 2, **opencv_key(settings, work)}


def cuts_key(settings: Any, work: Path | None) -> dict[str, Any]:
    """The number of our implementation, and OpenCV's major version: superpixels are OpenCV's."""
    return {"implementation": 1, **opencv_key(settings, work)}


def file_key(settings: Any, work: Path | None) -> dict[str, Any]:
    """The SHA-256 of the boxes in the file, or of its bytes, or of all files in a folder of masks."""
    from stages.propose.box_file import content_sha256, resolve_path
    from stages.propose.mask_folder import folder_sha256

    path = resolve_path(settings.file)
    return {"file_sha256": folder_sha256(path, work) if path.is_dir() else content_sha256(path, work)}


def edges_key(settings: Any, work: Path | None) -> dict[str, Any]:
    """Which edges are used (the SHA-256 of the model, if it is one), the number of what is ours, OpenCV's version."""
    if not settings.model:
        return {"edges": "image gradients", "implementation": 1, **opencv_key(settings, work)}
    from stages.propose.structured_forest import model_sha256

    digest = model_sha256(settings.model, work)
    return {"edges": "structured forest", "model_sha256": digest, "implementation": 1, **opencv_key(settings, work)}


def nothing(settings: Any, work: Path | None) -> dict[str, Any]:
    """Nothing: the settings alone determine the boxes."""
    return {}


@dataclass(frozen=True)
class Method:
    """A method of proposing regions.

    `module` is imported on first use. Its `find(settings, size, image, key)` returns the `Proposals` (selection.py) of
    an image of `size` (width, height), in any order, from its pixels uint8 [H, W, 3] RGB, or without them (None) if
    `reads_pixels=False`; a model that it reads must be the one that `key`, see below, was made from. With `ranks=True`
    the proposals have scores, and the cache keeps that order; with `in_order=True` they are distinct regions, which may
    share a box, in the order that the cache keeps. With `masks=True` they always have masks. The module may have
    `check_available()`, which raises StageError if a library is missing, and `advice(settings, size)`, a warning about
    images of this size, or "". If `listed=True`, the method lists the boxes of known images and has none for others:
    the module has `open_boxes(settings, key)` instead, which returns an object with `path` and `boxes(image_id)`, or a
    `MaskFolder` (mask_folder.py). With
    `announcement(settings)` it says something at the start of a run.

    If `reads_maps=True`, boxes come from the maps of a network (Faster R-CNN), and the module has
    `of_maps(settings, inputs, execution, schema)` instead, which returns an `OnDemand`.

    `key(settings, work)` returns what to add to the cache's key; checksums of files are remembered in the folder
    `work`. `order` describes what the first N boxes of an image are.
    """

    module: str
    order: str
    key: Callable[[Any, Path | None], dict[str, Any]] = nothing
    reads_pixels: bool = True
    listed: bool = False
    ranks: bool = False
    in_order: bool = False
    masks: bool = False
    reads_maps: bool = False

    def load(self) -> ModuleType:
        """The method's module."""
        return importlib.import_module(self.module)

    def check_available(self) -> None:
        """Raises StageError if the method needs a library that is missing."""
        check = getattr(self.load(), "check_available", None)
        if check is not None:
            check()


METHODS = {
    "selective-search": Method("stages.propose.selective_search", BY_POSITION, key=search_key),
    "selective-search-opencv": Method("stages.propose.selective_search_opencv", BY_SIZE, key=opencv_key),
    "edge-boxes": Method("stages.propose.edge_boxes", "a ranking by score", key=edges_key, ranks=True),
    "min-cut": Method("stages.propose.min_cut", BY_DIVERSITY, key=cuts_key, in_order=True, masks=True),
    "sliding-window": Method("stages.propose.sliding_window", BY_SIZE, reads_pixels=False),
    "rpn": Method("stages.propose.rpn", "a ranking by score", reads_pixels=False, ranks=True, reads_maps=True),
    "dense": Method("stages.propose.dense", BY_SIZE, reads_pixels=False),
    "file": Method("stages.propose.box_file", "the file's order, a ranking if the file has one", file_key, listed=True),
}
