"""Image files: reading one as RGB pixels, or only its size."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from stages.errors import BadImage

Pixels = NDArray[np.uint8]
"""An image: uint8 [H, W, 3], RGB."""

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_PIXELS = 160_000_000
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MAX_PIXELS decides, not Pillow's warning
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, KeyError, TypeError, OverflowError)


def read_image(path: str | os.PathLike[str], *, upright: bool = False) -> Pixels:
    """The pixels of the file `path`: uint8 [H, W, 3], RGB, writable.

    Grey, palette and CMYK images become RGB, an alpha channel is dropped, 16 bits a channel become 8. The EXIF
    orientation is ignored, because annotated boxes are in stored pixels; `upright=True` obeys it, for photographs.
    Raises BadImage for whatever cannot be read whole: missing, empty, no image, truncated, or above MAX_PIXELS.
    """
    with opened(path) as image:
        image.load()
        return to_rgb(ImageOps.exif_transpose(image) if upright else image, path)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(width, height) in stored pixels, from the header of the file `path` alone; raises BadImage as `read_image`."""
    with opened(path) as image:
        return image.size


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """The image file opened but not decoded; whatever goes wrong in here becomes BadImage."""
    try:
        image = Image.open(Path(path), formats=FORMATS)
    except Image.DecompressionBombError:
        raise BadImage(path, f"has more than the {MAX_PIXELS:,} pixels allowed") from None
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
        return "no such file"
    if isinstance(error, PermissionError):
        return "may not be read (permission denied)"
    if path.stat().st_size == 0:
        return "is empty (0 bytes)"
    if isinstance(error, UnidentifiedImageError):
        return "is not an image of a known format"
    return f"cannot be opened as an image ({first_line(error)})"


def first_line(error: Exception) -> str:
    """The first line of the error's message, or its type where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0] or type(error).__name__


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
