"""Proposals from a file: HDF5, .npz, or the .mat that selective search's authors publish.

What a file may look like:

- `.h5` / `.hdf5`: `boxes` [all, 4], `offsets` [images + 1] and `image_ids` [images], as in a finished proposals cache's
  `data.h5`; or a dataset [n, 4] per image id; or a group per image id with a dataset `boxes`.
- `.npz`: an array [n, 4] per image id.
- `.mat` (up to version 7): a cell array `boxes` of [n, 4] and a cell array `images` of as many ids.

Ids that are numbers in the file (`image_ids` of integers, `images` of numbers) are those of the images whose ids are
these numbers in decimal digits, with or without leading zeros.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from stages.boxes import Boxes, clip_boxes
from stages.errors import StageError

Lookup = Callable[[str], Any]


def resolve_path(file: str) -> Path:
    """`file` with `~` and `$VARIABLES` expanded. Raises StageError if it is empty or not a file."""
    if not file:
        raise StageError("propose: file is empty; method = 'file' needs file = 'path to .h5, .npz or .mat'")
    path = Path(os.path.expandvars(file)).expanduser()
    if not path.is_file():
        raise StageError(f"{path}: there is no such proposal file; correct propose's setting 'file'")
    return path


class BoxFile:
    """Boxes of images by their ids, from one open file. Not for threads."""

    def __init__(self, path: Path, box_format: str = "auto") -> None:
        """Opens `path`; raises StageError for a file that is none of the formats above."""
        self.path = path
        self.one_based = box_format == "mat-yxyx" or (box_format == "auto" and path.suffix.lower() == ".mat")
        self.lookup = open_lookup(path)

    def boxes(self, image_id: str) -> Boxes:
        """The image's boxes, float32 [n, 4] zero-based half-open, in the file's order, unclipped.

        Raises StageError, naming file and id, if the id is not there or has anything but n boxes with an area.
        """
        try:
            values = np.asarray(self.lookup(image_id))
        except KeyError:
            raise StageError(
                f"{self.path}: has no boxes for image '{image_id}'; add them, or use another split"
            ) from None
        except OSError as error:
            raise StageError(
                f"{self.path}: boxes of image '{image_id}' cannot be read ({error}); copy it anew"
            ) from None
        boxes = self.as_corners(values, image_id)
        if not np.isfinite(boxes).all() or not (boxes[:, 2:] > boxes[:, :2]).all():
            raise self.wrong(image_id, "a box without width or height", "is it the other box_format?")
        return boxes

    def as_corners(self, values: np.ndarray, image_id: str) -> Boxes:
        """The file's numbers as boxes of this project; StageError for a wrong shape or type."""
        if values.size == 0:
            return np.zeros((0, 4), np.float32)
        if values.ndim != 2 or values.shape[1] != 4 or values.dtype.kind not in "iuf":
            raise self.wrong(image_id, f"{values.dtype} {list(values.shape)}", "numbers of shape [n, 4] are needed")
        if not self.one_based:
            return values.astype(np.float32)
        y1, x1, y2, x2 = values.astype(np.float64).T
        return np.column_stack([x1 - 1, y1 - 1, x2, y2]).astype(np.float32)

    def wrong(self, image_id: str, found: str, advice: str) -> StageError:
        """The sentence for boxes that cannot be used."""
        return StageError(f"{self.path}: the boxes of image '{image_id}' are or contain {found}; {advice}")


def open_lookup(path: Path) -> Lookup:
    """The function from an image id to the file's array (KeyError if it has none)."""
    openers: dict[str, Callable[[Path], Lookup]] = {
        ".h5": hdf5_lookup,
        ".hdf5": hdf5_lookup,
        ".npz": npz_lookup,
        ".mat": mat_lookup,
    }
    opener = openers.get(path.suffix.lower())
    if opener is None:
        raise StageError(f"{path}: a proposal file must end in .h5, .hdf5, .npz or .mat; rename or convert it")
    return opener(path)


def hdf5_lookup(path: Path) -> Lookup:
    """Of an HDF5 file: flat with offsets, or one dataset or group per image."""
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise StageError(f"{path}: is not a whole HDF5 file; copy it anew") from error
    if {"boxes", "offsets", "image_ids"} <= set(file):
        return flat_lookup(path, file)

    def lookup(image_id: str) -> Any:
        node = file[image_id]
        return (node["boxes"] if isinstance(node, h5py.Group) else node)[()]

    return lookup


def flat_lookup(path: Path, file: h5py.File) -> Lookup:
    """Of `boxes`, `offsets` and `image_ids`; StageError if they do not fit each other."""
    boxes, offsets, ids = file["boxes"], file["offsets"][()], flat_ids(path, file)
    fits = offsets.shape == (len(ids) + 1,) and offsets[0] == 0 and offsets[-1] == len(boxes)
    if not fits or (np.diff(offsets) < 0).any():
        raise StageError(f"{path}: 'offsets' does not divide 'boxes' among 'image_ids'; write [0, n1, n1 + n2, ...]")
    place = by_id(path, ids)

    def lookup(image_id: str) -> Any:
        number = place(image_id)
        return boxes[offsets[number] : offsets[number + 1]]

    return lookup


def flat_ids(path: Path, file: h5py.File) -> list[str] | list[int]:
    """The `image_ids` of a flat file, all text or all whole numbers; StageError if they are anything else."""
    stored = file["image_ids"]
    if isinstance(stored, h5py.Dataset) and stored.ndim == 1:
        if stored.dtype.kind in "iu":
            return [int(one) for one in stored[()]]
        if h5py.check_string_dtype(stored.dtype) is not None:
            with contextlib.suppress(UnicodeDecodeError):
                return [str(one) for one in stored.asstr()[()]]
    raise StageError(f"{path}: 'image_ids' is not a list of texts or of whole numbers; write the images' ids")


def by_id(path: Path, ids: Sequence[str | int]) -> Callable[[str], int]:
    """The function from an image's id to its place in `ids` (KeyError if it is not there).

    A number stands for the id that has these digits, leading zeros aside. Raises StageError if an id is there twice,
    or, when it is looked up, if a number stands for two images.
    """
    places = {one: place for place, one in enumerate(ids)}
    if len(places) < len(ids):
        twice = next(one for place, one in enumerate(ids) if places[one] != place)
        raise StageError(f"{path}: has the id {twice!r} twice; give each image's boxes once")
    asked: dict[int, str] = {}

    def place_of(image_id: str) -> int:
        if image_id in places or not re.fullmatch("[0-9]{1,18}", image_id):
            return places[image_id]
        number = int(image_id)
        place = places[number]
        if asked.setdefault(number, image_id) != image_id:
            raise StageError(
                f"{path}: its id {number} may be that of image '{asked[number]}' or '{image_id}'; write ids as text"
            )
        return place

    return place_of


def npz_lookup(path: Path) -> Lookup:
    """Of a .npz file, one array an image, read when asked for."""
    try:
        arrays: Mapping[str, Any] = np.load(path, allow_pickle=False)
        names = set(arrays)
    except Exception as error:  # zipfile, zlib and numpy each have their own
        raise StageError(f"{path}: is not a .npz file; write it with numpy.savez(path, **boxes_by_image_id)") from error

    def lookup(image_id: str) -> Any:
        if image_id not in names:
            raise KeyError(image_id)
        try:
            return arrays[image_id]
        except ValueError as error:
            raise StageError(
                f"{path}: the array '{image_id}' cannot be read ({error}); write numbers [n, 4]"
            ) from error

    return lookup


def mat_lookup(path: Path) -> Lookup:
    """Of the published .mat format; the whole file is read into memory."""
    import scipy.io

    try:
        content = scipy.io.loadmat(path, variable_names=("boxes", "images"))
    except NotImplementedError as error:
        raise StageError(f"{path}: is a version 7.3 .mat; convert it in MATLAB with save(..., '-v7')") from error
    except Exception as error:  # scipy raises several types, by where the bytes stop making sense
        raise StageError(f"{path}: is not a whole .mat file; copy it anew") from error
    boxes, images = (np.ravel(content.get(name, np.zeros(0))) for name in ("boxes", "images"))
    if not len(boxes) or len(boxes) != len(images) or boxes.dtype != object or images.dtype != object:
        raise StageError(f"{path}: needs cell arrays 'boxes' and 'images' of the same length; see the published format")
    named = [(np.ravel(image)[0], array) for image, array in zip(images, boxes, strict=True) if np.size(image)]
    place = by_id(path, [as_id(name) for name, _ in named])
    return lambda image_id: named[place(image_id)][1]


def as_id(name: Any) -> str | int:
    """An id as MATLAB stores it: text, or a number, which is a double even where it is whole."""
    if isinstance(name, np.number) and float(name).is_integer():
        return int(name)
    return str(name)


def fit_to_image(boxes: Boxes, width: int, height: int, place: str) -> tuple[Boxes, int]:
    """(`boxes` clipped to the image of `width` x `height` pixels, how many it cut).

    Raises StageError, beginning with `place`, if a box lies wholly outside: then file and image do not belong together.
    """
    clipped = clip_boxes(boxes, width, height)
    outside = ~(clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    if outside.any():
        corners = ", ".join(f"{corner:g}" for corner in boxes[outside][0])
        raise StageError(
            f"{place}: box ({corners}) lies outside of the image of {width} x {height} pixels; check box_format"
        )
    return clipped, int((clipped != boxes).any(axis=1).sum())


def content_sha256(path: Path) -> str:
    """What the file holds, as hex: its bytes; the three arrays of a flat HDF5 file, which may be a view of others."""
    digest = hashlib.sha256()
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            if {"boxes", "offsets", "image_ids"} <= set(file):
                for chunk in flat_chunks(file):
                    digest.update(chunk)
                return digest.hexdigest()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def flat_chunks(file: h5py.File) -> Any:
    """The bytes of a flat HDF5 file's ids, offsets and boxes, some at a time."""
    ids = file["image_ids"]
    yield (ids[()].astype(np.int64).tobytes() if ids.dtype.kind in "iu" else "\n".join(ids.asstr()[()]).encode())
    yield file["offsets"][()].astype(np.int64).tobytes()
    boxes = file["boxes"]
    for start in range(0, len(boxes), 1 << 18):
        yield np.asarray(boxes[start : start + (1 << 18)], np.float64).tobytes()
