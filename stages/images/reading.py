"""Image files: reading one as RGB pixels, upright or as it is stored, or only its header.

A camera that is held sideways stores its pixels sideways, and says so in the EXIF tag "orientation" (1 to 8: exif 2.32,
section 4.6.4); programs that show photographs turn them upright. JPEG, PNG, WebP and TIFF files can have the tag.
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
"""How images' names end, in any case."""
MAX_PIXELS = 160_000_000
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MAX_PIXELS decides, not Pillow's warning
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, KeyError, TypeError, OverflowError)


warnings.filterwarnings("ignore", message="Corrupt EXIF data")  # then there is no tag, and the image is as it is

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
"""What turns the stored pixels upright, for each orientation but 1."""
INVERSE = {6: 8, 8: 6}
PNG_MARKS = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")  # where a PNG's orientation can be, even at its end


class Header(NamedTuple):
    """What an image file says before its pixels: `width` and `height` as stored, the EXIF `orientation`, 1 if none."""

    width: int
    height: int
    orientation: int = 1

    def size(self, upright: bool = True) -> tuple[int, int]:
        """(width, height) in pixels, upright or as stored."""
        sideways = upright and self.orientation >= 5
        return (self.height, self.width) if sideways else (self.width, self.height)


@dataclass(frozen=True)
class ImageFile:
    """An image file of a known content, and whether it is to be read upright. Picklable.

    `sha256` (hex) is of the file's bytes; `header` is None where it cannot be understood.
    """

    path: Path
    sha256: str
    header: Header | None = None
    upright: bool = True

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels of the image as `read` gives it. Raises BadImage where the header is no image's."""
        if self.header is None:
            height, width, _ = self.read().shape
            return width, height
        return self.header.size(self.upright)

    @property
    def is_turned(self) -> bool:
        """Whether the pixels that are read are not those that are stored."""
        return self.upright and self.header is not None and self.header.orientation != 1

    def read(self) -> Pixels:
        """The pixels: uint8 [H, W, 3], RGB. Raises ChangedInput for a file of another content, and BadImage."""
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise ChangedInput.of(self.path, f"can no longer be read ({error.strerror})") from None
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise ChangedInput.of(self.path)
        with opened(self.path, content) as image:
            return pixels_of(image, self.path, self.upright)


def read_image(path: str | os.PathLike[str], *, upright: bool = True) -> Pixels:
    """The pixels of the file `path`: uint8 [H, W, 3], RGB, writable; for photographs, not for a dataset's images.

    Grey, palette and CMYK images become RGB, an alpha channel is dropped, 16 bits a channel become 8. The EXIF
    orientation is obeyed; with `upright=False` the pixels are as stored. A dataset knows in which of the two its
    annotations are, and that a file is still the one its key stands for: `Dataset.read_image`.
    Raises BadImage for whatever cannot be read whole: missing, empty, no image, truncated, or above MAX_PIXELS.
    """
    with opened(path) as image:
        return pixels_of(image, path, upright)


def image_size(path: str | os.PathLike[str], *, upright: bool = True) -> tuple[int, int]:
    """(width, height) in pixels, from the header of the file `path` alone; raises BadImage as `read_image`."""
    with opened(path) as image:
        return header_of(image).size(upright)


def read_header(content: bytes, path: str | os.PathLike[str]) -> Header | None:
    """The header of the image file of this content, None if it is none that can be read; `path` is for messages."""
    try:
        with opened(path, content) as image:
            if image.format == "PNG" and any(mark in content for mark in PNG_MARKS):
                image.load()  # what follows the pixels is known only then
            return header_of(image)
    except BadImage:
        return None


def header_of(image: Image.Image) -> Header:
    """The header of an opened image; of a PNG, what stands before the pixels if these have not been loaded."""
    size = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # Pillow tells its upright size, and loads it upright
        size = int(image.tag_v2[TiffImagePlugin.IMAGEWIDTH]), int(image.tag_v2[TiffImagePlugin.IMAGELENGTH])
    return Header(*size, orientation_of(image))


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none, or none that makes sense."""
    try:
        value = Image.Image.getexif(image).get(ORIENTATION, 1)  # PngImageFile's own would decode the whole image
    except Exception:  # EXIF may be any bytes, and Pillow's parser raises whatever they lead to
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
    """The image file opened but not decoded; whatever goes wrong in here becomes BadImage.

    `content` are the file's bytes, where they have been read already.
    """
    try:
        if content is None:
            check_is_file(path)
        image = Image.open(Path(path) if content is None else io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError:
        raise BadImage(path, f"has more than {MAX_PIXELS:,} pixels, the most allowed") from None
    except UNREADABLE as error:
        raise BadImage(path, why_unopened(Path(path), error)) from None
    with image:
        check_size(image, path)
        try:
            yield image
        except BadImage:
            raise
        except UNREADABLE as error:
            raise BadImage(path, f"is damaged ({first_line(error)})") from None


def check_size(image: Image.Image, path: str | os.PathLike[str]) -> None:
    """Raises BadImage for an image without pixels, and for one so large that it is surely a mistake or an attack."""
    width, height = image.size
    if width < 1 or height < 1:
        raise BadImage(path, f"has no pixels ({width} x {height})")
    if width * height > MAX_PIXELS:
        raise BadImage(path, f"has {width} x {height} pixels, more than the {MAX_PIXELS:,} allowed")


def why_unopened(path: Path, error: Exception) -> str:
    """What to tell about a file that Pillow could not open."""
    if path.is_dir():
        return "is a folder, not an image"
    if not path.exists():
        return why_missing(path)
    if isinstance(error, PermissionError):
        return "cannot be read (permission denied)"
    if path.stat().st_size == 0:
        return "is empty (0 bytes)"
    if isinstance(error, UnidentifiedImageError):
        return "is not an image in a known format"
    return f"cannot be opened as an image ({first_line(error)})"


def why_missing(path: Path) -> str:
    """What to tell about an image file that is not there: what is there instead, and which endings are taken."""
    try:
        there = sorted(one.name for one in path.parent.iterdir() if one.stem == path.stem)
    except OSError:
        there = []
    if not there:
        return "no such file"
    return f"no such file, but there is {', '.join(there[:3])} (image files end in {', '.join(SUFFIXES)})"


def to_rgb(image: Image.Image, path: str | os.PathLike[str]) -> Pixels:
    """A decoded image of any mode as uint8 [H, W, 3], RGB."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return sixteen_bit_to_rgb(np.asarray(image), path)
    if image.mode == "F":
        raise BadImage(path, "holds floating-point values, not 8- or 16-bit pixels")
    if image.mode in ("P", "PA", "RGBa", "La"):  # a transparent palette and premultiplied alpha convert only by RGBA
        image = image.convert("RGBA" if image.mode != "La" else "LA")
    return np.array(image.convert("RGB"), dtype=np.uint8)


def sixteen_bit_to_rgb(grey: NDArray[np.generic], path: str | os.PathLike[str]) -> Pixels:
    """Grey values 0..65535 [H, W] as uint8 [H, W, 3]: divided by 257 and rounded, so that white stays white."""
    values = grey.astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise BadImage(path, "holds 32-bit values, not 8- or 16-bit pixels")
    eight = ((values + 128) // 257).astype(np.uint8)
    return np.repeat(eight[:, :, None], 3, axis=2)
