"""Reading image files as RGB pixels, upright or as stored, or just their headers.

A camera held sideways stores its pixels sideways and records this in the EXIF tag "orientation" (1 to 8: EXIF 2.32,
section 4.6.4); photo viewers turn them upright. JPEG, PNG, WebP and TIFF files can have this tag.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from cache.errors import first_line
from stages.contract.errors import BadImage, ChangedInput
from stages.input_files import check_is_file

Pixels = NDArray[np.uint8]
"""An image: uint8 [H, W, 3], RGB."""

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".jfif", ".ppm", ".pgm")
"""File extensions of images, in lower case; any case is accepted."""
MAX_PIXELS = 160_000_000
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MAX_PIXELS decides, not Pillow's warning
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, KeyError, TypeError, OverflowError)


warnings.filterwarnings("ignore", message="Corrupt EXIF data")  # then there is no orientation

ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that turns the stored pixels upright, per orientation other than 1."""
INVERSE = {6: 8, 8: 6}
PNG_MARKS = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")  # where a PNG's orientation can be, even at its end


class Header(NamedTuple):
    """An image's `width` and `height` as stored, in pixels, and its EXIF `orientation` (1 if there is none)."""

    width: int
    height: int
    orientation: int = 1

    def size(self, upright: bool = True) -> tuple[int, int]:
        """(width, height) in pixels, upright or as stored."""
        sideways = upright and self.orientation >= 5
        return (self.height, self.width) if sideways else (self.width, self.height)


@dataclass(frozen=True)
class ImageFile:
    """An image file with known content, and whether to read it upright. Picklable.

    `sha256` (hex) is that of the file's bytes; `header` is None if it cannot be read.
    """

    path: Path
    sha256: str
    header: Header | None = None
    upright: bool = True

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels of the image as returned by `read`. Raises BadImage if it cannot be read."""
        if self.header is None:
            height, width, _ = self.read().shape
            return width, height
        return self.header.size(self.upright)

    @property
    def is_turned(self) -> bool:
        """Whether the pixels are turned upright on reading."""
        return self.upright and self.header is not None and self.header.orientation != 1

    def read(self) -> Pixels:
        """The pixels: uint8 [H, W, 3], RGB. Raises ChangedInput if the file's content has changed, and BadImage."""
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise ChangedInput.of(self.path, f"can no longer be read ({error.strerror})") from None
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise ChangedInput.of(self.path)
        with opened(self.path, content) as image:
            return pixels_of(image, self.path, self.upright)


def read_image(path: str | os.PathLike[str], *, upright: bool = True) -> Pixels:
    """The pixels of the file `path`: uint8 [H, W, 3], RGB, writable. For photos outside a dataset.

    Grey, palette and CMYK images are converted to RGB, alpha is dropped, and 16 bits per channel become 8. The EXIF
    orientation is applied, unless `upright=False`. For a dataset's images use `Dataset.read_image`, which knows how
    they are annotated and checks that the file still matches the dataset's key. Raises BadImage for any file that
    cannot be read completely: missing, empty, not an image, truncated, or over MAX_PIXELS.
    """
    with opened(path) as image:
        return pixels_of(image, path, upright)


def image_size(path: str | os.PathLike[str], *, upright: bool = True) -> tuple[int, int]:
    """(width, height) in pixels, from the header of the file `path` alone. Raises BadImage as `read_image`."""
    with opened(path) as image:
        return header_of(image).size(upright)


def read_header(content: bytes, path: str | os.PathLike[str]) -> Header | None:
    """The header of an image file with this `content`, or None if it cannot be read; `path` is for messages."""
    try:
        with opened(path, content) as image:
            if image.format == "PNG" and any(mark in content for mark in PNG_MARKS):
                image.load()  # the orientation may come after the pixels
            return header_of(image)
    except BadImage:
        return None


def header_of(image: Image.Image) -> Header:
    """The header of an opened image; for a PNG not yet loaded, only what precedes the pixels."""
    size = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # Pillow reports the upright size, and loads it upright
        size = int(image.tag_v2[TiffImagePlugin.IMAGEWIDTH]), int(image.tag_v2[TiffImagePlugin.IMAGELENGTH])
    return Header(*size, orientation_of(image))


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 if it is missing or invalid."""
    try:
        value = Image.Image.getexif(image).get(ORIENTATION, 1)  # PngImageFile's own would decode the whole image
    except Exception:  # EXIF data may be anything, and so may the exceptions of Pillow's parser
        return 1
    return value if isinstance(value, int) and value in TURNS else 1


def pixels_of(image: Image.Image, path: str | os.PathLike[str], upright: bool) -> Pixels:
    """The pixels of an opened image: uint8 [H, W, 3], RGB."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        orientation = orientation_of(image)
        image.load()
        turn = None if upright else TURNS.get(INVERSE.get(orientation, orientation))
    else:
        image.load()
        turn = TURNS.get(orientation_of(image)) if upright else None
    return to_rgb(image if turn is None else image.transpose(turn), path)


@contextmanager
def opened(path: str | os.PathLike[str], content: bytes | None = None) -> Iterator[Image.Image]:
    """Opens an image file without decoding it; any failure within the block becomes BadImage.

    `content` is the file's bytes, if they have already been read.
    """
    try:
        if content is None:
            check_is_file(path)
        image = Image.open(Path(path) if content is None else io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError:
        raise BadImage(path, f"has more than {MAX_PIXELS:,} pixels, the most allowed") from None
    except UNREADABLE as error:
        raise unopened(Path(path), error) from None
    with image:
        check_size(image, path)
        try:
            yield image
        except BadImage:
            raise
        except UNREADABLE as error:
            raise BadImage(path, f"is damaged ({first_line(error)})") from None


def check_size(image: Image.Image, path: str | os.PathLike[str]) -> None:
    """Raises BadImage for an image without pixels, or one so large that it must be a mistake or an attack."""
    width, height = image.size
    if width < 1 or height < 1:
        raise BadImage(path, f"has no pixels ({width} x {height})")
    if width * height > MAX_PIXELS:
        raise BadImage(path, f"has {width} x {height} pixels, more than the {MAX_PIXELS:,} allowed")


def unopened(path: Path, error: Exception) -> BadImage:
    """The error for a file that Pillow could not open."""
    return BadImage(path, why_unopened(path, error)) if path.exists() else missing_image(path)


def why_unopened(path: Path, error: Exception) -> str:
    """Why Pillow could not open a file that exists."""
    if path.is_dir():
        return "is a folder, not an image"
    if isinstance(error, PermissionError):
        return "cannot be read (permission denied)"
    if path.stat().st_size == 0:
        return "is empty (0 bytes)"
    if isinstance(error, UnidentifiedImageError):
        return "is not an image in a known format"
    return f"cannot be opened as an image ({first_line(error)})"


def missing_image(path: Path) -> BadImage:
    """The error for a missing image file; it names files of the same name with another extension, if there are any."""
    try:
        similar = sorted(file.name for file in path.parent.iterdir() if file.stem == path.stem)
    except OSError:
        similar = []
    reason = "does not exist"
    if similar:
        reason += f", but there is {', '.join(similar[:3])} (image files end in {', '.join(SUFFIXES)})"
    return BadImage(path, reason, "restore it, or remove it from the dataset")


def to_rgb(image: Image.Image, path: str | os.PathLike[str]) -> Pixels:
    """A decoded image of any mode as RGB uint8 [H, W, 3]. Raises BadImage."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return sixteen_bit_to_rgb(np.asarray(image), path)
    if image.mode == "F":
        raise BadImage(path, "has floating-point values, not 8- or 16-bit pixels")
    if image.mode in ("P", "PA", "RGBa", "La"):  # transparent palettes and premultiplied alpha convert only via RGBA
        image = image.convert("RGBA" if image.mode != "La" else "LA")
    return np.array(image.convert("RGB"), dtype=np.uint8)


def sixteen_bit_to_rgb(grey: NDArray[np.generic], path: str | os.PathLike[str]) -> Pixels:
    """Grey values 0..65535 [H, W] as uint8 [H, W, 3], divided by 257 and rounded, so that white stays white."""
    values = grey.astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise BadImage(path, "has 32-bit values, not 8- or 16-bit pixels")
    eight = ((values + 128) // 257).astype(np.uint8)
    return np.repeat(eight[:, :, None], 3, axis=2)
