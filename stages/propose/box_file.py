"""Proposals from a file: HDF5, .npz, or the .mat format published by the authors of selective search.

Accepted formats:

- `.h5` / `.hdf5`: `boxes` [all, 4], `offsets` [images + 1] and `image_ids` [images], as in the `data.h5` of a complete
  proposals cache; or a dataset [n, 4] per image id; or a group per image id with a dataset `boxes`.
- `.npz`: an array [n, 4] per image id.
- `.mat` (up to version 7): a cell array `boxes` of [n, 4] and a cell array `images` with the same number of ids.

The flat HDF5 layout may be a view of other files (virtual datasets, external links), since the cache's key is made from
the boxes. For all other layouts the key is made from the file's bytes, so a file whose boxes are stored elsewhere is
refused.

Numeric ids in the file (integer `image_ids`, numeric `images`) match image ids that are these numbers in decimal
digits, with or without leading zeros.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cache.files import cannot
from stages.boxes import Boxes, clip_boxes, look_normalised
from stages.contract.errors import ChangedInput, StageError
from stages.datasets.digests import remembered_of_file
from stages.input_files import named_file
from stages.mat_file import is_version_7_3, read_variables
from stages.propose.endings import names_masks
from stages.propose.mask_folder import MaskFolder

Lookup = Callable[[str], Any]
FLAT = ("boxes", "offsets", "image_ids")
BLOCK = 1 << 18  # rows
ODD = (OSError, LookupError, ArithmeticError, ValueError, TypeError, AttributeError, RuntimeError)
"""What h5py raises for malformed files."""
MOST_BOXES = 10_000_000
"""The most boxes of an image: a file that claims more is damaged, or made to fill the memory."""
MOST_IMAGES = 100_000_000


def resolve_path(file: str) -> Path:
    """`file` with `~` and `$VARIABLES` expanded: a file, or a folder of masks. Raises StageError if it is empty or does
    not exist."""
    if not file:
        raise StageError("propose: file is not set; method = 'file' needs file = the path of a .h5, .npz or .mat file")
    folder = Path(os.path.expandvars(file)).expanduser()
    if names_masks(file) and folder.is_dir():
        return folder
    return named_file(file, "proposals file", "propose.file")


def open_boxes(settings: Any, key: Mapping[str, Any]) -> BoxFile | MaskFolder:
    """Opens the file or folder named in the settings, whose content must be what the `key` was made from."""
    path = resolve_path(settings.file)
    if path.is_dir():
        return MaskFolder(path, key.get("file_sha256"))
    return BoxFile(path, settings.box_format, key.get("file_sha256"))


class BoxFile:
    """The boxes of images, by id, from an open file. Not thread-safe."""

    def __init__(self, path: Path, box_format: str = "auto", sha256: str | None = None) -> None:
        """Opens `path`. Raises StageError if it is in none of the formats above.

        `sha256` is the `content_sha256` that a key was made from. Raises ChangedInput if the content differs, now or
        whenever boxes are read.
        """
        self.path = path
        self.one_based = box_format == "mat-yxyx" or (box_format == "auto" and path.suffix.lower() == ".mat")
        self.lookup = open_lookup(path, sha256)

    def boxes(self, image_id: str) -> Boxes:
        """The image's boxes float32 [n, 4], zero-based and half-open, in the file's order, not clipped.

        Raises StageError, naming file and id, if the id is missing or has anything but boxes with an area, and
        ChangedInput.
        """
        try:
            values = np.asarray(self.lookup(image_id))
        except KeyError:
            raise StageError(
                f"{self.path}: has no boxes for image '{image_id}'; add them, or use another split"
            ) from None
        except OSError as error:
            raise StageError(
                f"{self.path}: the boxes of image '{image_id}' cannot be read ({error}); copy the file again"
            ) from None
        boxes = self.as_corners(values, image_id)
        if not np.isfinite(boxes).all() or not (boxes[:, 2:] > boxes[:, :2]).all():
            raise self.wrong(image_id, "a box without width or height", "check box_format")
        return boxes

    def as_corners(self, values: np.ndarray, image_id: str) -> Boxes:
        """The file's values as boxes float32 [n, 4], zero-based and half-open. Raises StageError if they are not."""
        if values.size == 0:
            return np.zeros((0, 4), np.float32)
        if values.ndim != 2 or values.shape[1] != 4 or values.dtype.kind not in "iuf":
            raise self.wrong(image_id, f"{values.dtype} {list(values.shape)}", "write numbers of shape [n, 4]")
        if look_normalised(values):
            raise self.wrong(image_id, "numbers between 0 and 1 only", "write pixels, not fractions of the sides")
        if not self.one_based:
            return values.astype(np.float32)
        y1, x1, y2, x2 = values.astype(np.float64).T
        return np.column_stack([x1 - 1, y1 - 1, x2, y2]).astype(np.float32)

    def wrong(self, image_id: str, content: str, advice: str) -> StageError:
        """The error for boxes that cannot be used."""
        return StageError(f"{self.path}: the boxes of image '{image_id}' are or contain {content}; {advice}")


class Source:
    """A file that stays open and must not change meanwhile. Raises StageError if it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.stream = path.open("rb")
            self.state = self.state_now()
        except OSError as error:
            raise StageError(f"{path}: " + cannot("be read", error, "correct propose.file")) from error

    def state_now(self) -> tuple[int, int, int]:
        """The size and times of the open file, which change with any write."""
        status = os.fstat(self.stream.fileno())
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def check(self) -> None:
        """Raises ChangedInput if the file has been written to."""
        if self.state_now() != self.state:
            raise ChangedInput.of(self.path)

    def sha256(self) -> str:
        """The SHA-256 (hex) of the file's bytes."""
        self.stream.seek(0)
        return hashlib.file_digest(self.stream, "sha256").hexdigest()

    def check_bytes(self, sha256: str | None) -> None:
        """Raises ChangedInput if `sha256` is given and is not that of the file's bytes."""
        if sha256 is not None and self.sha256() != sha256:
            raise ChangedInput.of(self.path)


def open_lookup(path: Path, sha256: str | None = None) -> Lookup:
    """A function from image id to the file's array, which raises KeyError if there is none.

    It raises ChangedInput if the content no longer matches `sha256`.
    """
    openers: dict[str, Callable[[Source, str | None], Lookup]] = {
        ".h5": hdf5_lookup,
        ".hdf5": hdf5_lookup,
        ".npz": npz_lookup,
        ".mat": mat_lookup,
    }
    opener = openers.get(path.suffix.lower())
    if opener is None:
        raise StageError(f"{path}: a proposals file must end in .h5, .hdf5, .npz or .mat; rename or convert it")
    return opener(Source(path), sha256)


def hdf5_lookup(source: Source, sha256: str | None) -> Lookup:
    """The lookup of an HDF5 file: flat with offsets, or one dataset or group per image."""
    path = source.path
    with whole_hdf5(path):
        file = h5py.File(source.stream, "r")  # from the open file, so that no other can take its place
        if is_flat(file):
            return flat_lookup(path, h5py.File(path, "r"), sha256)
        check_links(path, file)
    source.check_bytes(sha256)

    def lookup(image_id: str) -> Any:
        with whole_hdf5(path):
            array = file.get(image_id)
            if isinstance(array, h5py.Group):
                array = array.get("boxes")
            if array is not None:
                values = values_of(path, image_id, array)
        if array is None:
            raise KeyError(image_id)
        source.check()
        return values

    return lookup


@contextlib.contextmanager
def whole_hdf5(path: Path) -> Iterator[None]:
    """Turns whatever h5py raises for a damaged or malformed file into a StageError."""
    try:
        yield
    except ODD as error:
        reason = " ".join(str(error).strip("'\"").split())
        raise StageError(f"{path}: is not a complete HDF5 file of boxes ({reason}); copy it again") from error


def values_of(path: Path, image_id: str, array: Any) -> Any:
    """The values of an image's dataset. Raises StageError if it is not a dataset, or is stored in another file."""
    if not isinstance(array, h5py.Dataset):
        raise StageError(f"{path}: '{image_id}' is neither a dataset nor a group with 'boxes'; write numbers [n, 4]")
    if array.is_virtual or array.external:
        raise StageError(f"{path}: the boxes of image '{image_id}' are stored in another file; copy them into this one")
    if (array.size or 0) > 4 * MOST_BOXES:
        raise StageError(f"{path}: image '{image_id}' has an array of shape {list(array.shape)}; write numbers [n, 4]")
    return array[()]


def check_links(path: Path, file: h5py.File) -> None:
    """Raises StageError if the file contains a link to another file."""

    def external(name: bytes, info: Any) -> bytes | None:
        return name if info.type == h5py.h5l.TYPE_EXTERNAL else None

    link = file.id.links.visit(external, info=True)
    if link is not None:
        raise StageError(
            f"{path}: '{link.decode()}' is a link to another file, which may change unnoticed; copy the boxes into "
            "one file, or write 'boxes', 'offsets' and 'image_ids'"
        )


def is_flat(file: h5py.File) -> bool:
    """Whether the file has the flat layout, with the boxes of all images in one dataset."""
    return set(FLAT) <= set(file)


def flat_lookup(path: Path, file: h5py.File, sha256: str | None) -> Lookup:
    """The lookup of a file with `boxes`, `offsets` and `image_ids`. Raises StageError if they are inconsistent."""
    check_flat(path, file)
    ids, digests = flat_ids(path, file), flat_digests(path, file)
    if sha256 is not None and digests.whole != sha256:
        raise ChangedInput.of(path)
    boxes = file["boxes"]
    offsets = file["offsets"][()].astype(np.int64)  # differences of unsigned integers are never negative
    if offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise StageError(f"{path}: 'offsets' do not divide 'boxes' among 'image_ids'; write [0, n1, n1 + n2, ...]")
    place = by_id(path, ids)

    def lookup(image_id: str) -> Any:
        number = place(image_id)
        with whole_hdf5(path):
            rows = boxes[offsets[number] : offsets[number + 1]]
        if hashlib.sha256(as_bytes(rows)).digest() != digests.of_images[number]:
            raise ChangedInput.of(path)
        return rows

    return lookup


def check_flat(path: Path, file: h5py.File) -> None:
    """Raises StageError if the sizes of a flat file's datasets are inconsistent, before reading them."""
    boxes, offsets, ids = (file.get(name) for name in FLAT)
    for name, array in zip(FLAT, (boxes, offsets, ids), strict=True):
        if not isinstance(array, h5py.Dataset) or not array.shape:
            raise StageError(f"{path}: '{name}' is not an array; write a dataset")
    images, rows = len(ids), len(boxes)
    if offsets.dtype.kind not in "iu" or offsets.shape != (images + 1,) or images > MOST_IMAGES or offsets[-1] != rows:
        raise StageError(f"{path}: 'offsets' do not divide 'boxes' among 'image_ids'; write [0, n1, n1 + n2, ...]")
    if rows > images * MOST_BOXES:
        raise StageError(f"{path}: has {rows:,} boxes for {images:,} images; write the boxes of one method")


def flat_ids(path: Path, file: h5py.File) -> list[str] | list[int]:
    """The `image_ids` of a flat file, all strings or all integers. Raises StageError if they are neither."""
    stored = file["image_ids"]
    if isinstance(stored, h5py.Dataset) and stored.ndim == 1:
        if stored.dtype.kind in "iu":
            return [int(number) for number in stored[()]]
        if h5py.check_string_dtype(stored.dtype) is not None:
            with contextlib.suppress(UnicodeDecodeError):
                return [str(text) for text in stored.asstr()[()]]
    raise StageError(f"{path}: 'image_ids' is not a list of strings or whole numbers; write the images' ids")


def by_id(path: Path, ids: Sequence[str | int]) -> Callable[[str], int]:
    """A function from image id to its position in `ids`, which raises KeyError if it is missing.

    A number matches the id with these digits, ignoring leading zeros. Raises StageError if an id appears twice or, on
    lookup, if a number matches two images.
    """
    places = {id_: place for place, id_ in enumerate(ids)}
    if len(places) < len(ids):
        twice = next(id_ for place, id_ in enumerate(ids) if places[id_] != place)
        raise StageError(f"{path}: the id {twice!r} appears twice; list each image once")
    asked: dict[int, str] = {}

    def place_of(image_id: str) -> int:
        if image_id in places or not re.fullmatch("[0-9]{1,18}", image_id):
            return places[image_id]
        number = int(image_id)
        place = places[number]
        if asked.setdefault(number, image_id) != image_id:
            raise StageError(f"{path}: id {number} could be image '{asked[number]}' or '{image_id}'; write ids as text")
        return place

    return place_of


def npz_lookup(source: Source, sha256: str | None) -> Lookup:
    """The lookup of a .npz file, with one array per image, read on demand."""
    path = source.path
    source.check_bytes(sha256)
    source.stream.seek(0)
    try:
        arrays: Mapping[str, Any] = np.load(source.stream, allow_pickle=False)
        names = set(arrays)
    except Exception as error:  # zipfile, zlib and NumPy each raise their own
        raise StageError(f"{path}: is not a .npz file; write it with numpy.savez(path, **boxes_by_image_id)") from error

    def lookup(image_id: str) -> Any:
        if image_id not in names:
            raise KeyError(image_id)
        try:
            values = arrays[image_id]
            source.check()
            return values
        except ChangedInput:
            raise
        except Exception as error:  # including MemoryError, if a few bytes claim to be terabytes
            source.check()
            raise StageError(
                f"{path}: the array '{image_id}' cannot be read ({error}); write numbers [n, 4]"
            ) from error

    return lookup


def mat_lookup(source: Source, sha256: str | None) -> Lookup:
    """The lookup of a file in the published .mat format, which is read into memory."""
    path, raw = source.path, source.stream.read()
    if sha256 is not None and hashlib.sha256(raw).hexdigest() != sha256:
        raise ChangedInput.of(path)
    if is_version_7_3(raw):
        raise StageError(f"{path}: is a version 7.3 .mat file; convert it in MATLAB with save(..., '-v7')")
    try:
        content = read_variables(raw, ("boxes", "images"))
    except ValueError as error:
        raise StageError(f"{path}: is not a complete .mat file ({error}); copy it again") from error
    boxes, images = content.get("boxes"), content.get("images")
    if not isinstance(boxes, list) or not isinstance(images, list) or not boxes or len(boxes) != len(images):
        raise StageError(
            f"{path}: needs cell arrays 'boxes' and 'images' of the same length, as in the published format; add them"
        )
    named = [
        (id_in_cell(image), array) for image, array in zip(images, boxes, strict=True) if id_in_cell(image) is not None
    ]
    place = by_id(path, [as_id(name) for name, _ in named])

    def lookup(image_id: str) -> Any:
        array = named[place(image_id)][1]
        return array if isinstance(array, np.ndarray) else np.array(None)

    return lookup


def id_in_cell(image: Any) -> Any:
    """The id in a cell of `images`: text, a number, or the first of several; None if it is empty or anything else."""
    while isinstance(image, list) and image:
        image = image[0]
    if isinstance(image, np.ndarray) and image.size:
        return image.flat[0]
    return image if isinstance(image, str) and image else None


def as_id(name: Any) -> str | int:
    """An id from MATLAB: text, or a number, which is stored as a double even if it is an integer."""
    if isinstance(name, np.number) and float(name).is_integer():
        return int(name)
    return str(name)


def fit_to_image(boxes: Boxes, width: int, height: int, place: str) -> tuple[Boxes, int]:
    """`boxes` [n, 4] clipped to an image of `width` x `height` pixels, and the number of boxes that changed.

    Raises StageError, its message starting with `place`, if a box lies completely outside: the file does not match the
    image.
    """
    clipped = clip_boxes(boxes, width, height)
    outside = ~(clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    if outside.any():
        corners = ", ".join(f"{corner:g}" for corner in boxes[outside][0])
        raise StageError(
            f"{place}: box ({corners}) lies outside its image of {width} x {height} pixels; check box_format"
        )
    return clipped, int((clipped != boxes).any(axis=1).sum())


def content_sha256(path: Path, work: Path | None = None) -> str:
    """The SHA-256 (hex) of the file's content: its bytes, or the three arrays of a flat HDF5 file, which may be a view.

    It is remembered in the folder `work`, if given, as long as the file looks unchanged, except for views. Raises
    StageError for HDF5 files of other layouts that link to other files.
    """
    source = Source(path)

    def read() -> str:
        if h5py.is_hdf5(path):
            with whole_hdf5(path), h5py.File(path, "r") as file:
                if is_flat(file):
                    check_flat(path, file)
                    return flat_digests(path, file, of_images=False).whole
                check_links(path, file)
        return source.sha256()

    return read() if work is None or is_view(path) else str(remembered_of_file(path, work, "boxes", read))


def is_view(path: Path) -> bool:
    """Whether a file is a flat HDF5 file that shows data of other files."""
    if not h5py.is_hdf5(path):
        return False
    with whole_hdf5(path), h5py.File(path, "r") as file:
        return is_flat(file) and any(
            not isinstance(file.get(name, getlink=True), h5py.HardLink)
            or (isinstance(file[name], h5py.Dataset) and (file[name].is_virtual or file[name].external))
            for name in FLAT
        )


class FlatDigests:
    """Digests of a flat HDF5 file: `whole` (hex) of everything, and `of_images` of each image's boxes."""

    def __init__(self, head: Iterator[bytes], boxes: Any, offsets: np.ndarray) -> None:
        """Reads all boxes once, in blocks of rows."""
        whole, image = hashlib.sha256(), hashlib.sha256()
        for piece in head:
            whole.update(piece)
        self.of_images: list[bytes] = []
        ends = offsets[1:].tolist()
        for start in range(0, len(boxes), BLOCK):
            block = boxes[start : start + BLOCK]
            whole.update(as_bytes(block))
            done = 0
            while len(self.of_images) < len(ends) and ends[len(self.of_images)] <= start + len(block):
                end = max(done, ends[len(self.of_images)] - start)
                image.update(as_bytes(block[done:end]))
                self.of_images.append(image.digest())
                image, done = hashlib.sha256(), end
            if ends:
                image.update(as_bytes(block[done:]))
        self.of_images += [hashlib.sha256().digest()] * (len(ends) - len(self.of_images))
        self.whole = whole.hexdigest()


def flat_digests(path: Path, file: h5py.File, *, of_images: bool = True) -> FlatDigests:
    """The digests of a flat HDF5 file. Raises StageError if it cannot be read completely."""
    check_views(path, file)
    try:
        offsets = file["offsets"][()].astype(np.int64) if of_images else np.zeros(1, np.int64)
        return FlatDigests(flat_head(file), file["boxes"], offsets)
    except ODD as error:
        raise StageError(
            f"{path}: 'boxes', 'offsets' and 'image_ids' cannot be read ({error}); write them again"
        ) from error


def flat_head(file: h5py.File) -> Iterator[bytes]:
    """The ids and offsets of a flat HDF5 file as bytes."""
    ids = file["image_ids"]
    yield (ids[()].astype(np.int64).tobytes() if ids.dtype.kind in "iu" else "\n".join(ids.asstr()[()]).encode())
    yield file["offsets"][()].astype(np.int64).tobytes()


def check_views(path: Path, file: h5py.File) -> None:
    """Raises StageError if the source of a virtual dataset is missing: HDF5 would silently use fill values."""
    for name in FLAT:
        array = file.get(name)
        for source in array.virtual_sources() if isinstance(array, h5py.Dataset) and array.is_virtual else ():
            places = (path,) if source.file_name == "." else (path.parent / source.file_name, Path(source.file_name))
            if not any(holds(place, source.dset_name) for place in places):
                raise StageError(
                    f"{path}: '{name}' is a view of '{source.dset_name}' in {source.file_name}, which is missing; "
                    "restore it, or copy the boxes into one file"
                )


def holds(path: Path, dataset: str) -> bool:
    """Whether the HDF5 file `path` exists and has this dataset."""
    try:
        with h5py.File(path, "r") as file:
            return isinstance(file.get(dataset), h5py.Dataset)
    except ODD:
        return False


def as_bytes(rows: Any) -> bytes:
    """The bytes of boxes [n, 4] to be hashed, whatever their dtype."""
    return np.asarray(rows, np.float64).tobytes()
