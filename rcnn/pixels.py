"""The images that a detector is given: a file's path, an array, or one of Pillow's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache.errors import first_line
from rcnn_cli.looking.photos import ADDRESS
from stages.contract.errors import BadImage
from stages.images.reading import MAX_PIXELS, UNREADABLE, Pixels, pixels_of, read_image

ARRAY = "the image"
"""What messages call an image that is not a file."""


class Picture(NamedTuple):
    """An image to be looked at: `pixels` uint8 [H, W, 3] RGB, what it is called, and its file, if it has one."""

    pixels: Pixels
    name: str
    path: Path | None


def picture_of(image: Any, name: str | None = None) -> Picture:
    """The image as pixels of its own, called `name` (default: its file's stem, or "image").

    Raises BadImage for a file that cannot be read, and for anything that is not uint8 [H, W, 3].
    """
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        if ADDRESS.match(os.fspath(image)):
            raise BadImage(image, "is a URL, and rcnn downloads no images", "download it and give the file's path")
        if not path.exists():
            raise BadImage(image, "does not exist", "check the path")
        if path.is_dir():
            raise BadImage(image, "is a folder, not an image", "give the files in it one at a time")
        return Picture(read_image(path), name or path.stem, path)
    if isinstance(image, Image.Image):
        return pillow_picture(image, name)
    if isinstance(image, np.ndarray):
        check_array(image)
        return Picture(np.array(image, np.uint8, order="C"), name or "image", None)
    raise BadImage(
        ARRAY,
        f"is of type {type(image).__name__}",
        "give a file's path, an array uint8 [H, W, 3] in RGB, or an image of Pillow, one at a time",
    )


def pillow_picture(image: Image.Image, name: str | None) -> Picture:
    """An image of Pillow, upright and in RGB as one that is read from its file."""
    file = getattr(image, "filename", None)
    path = Path(file) if file and isinstance(file, str) else None
    if 0 in image.size:
        raise BadImage(path or ARRAY, f"has no pixels ({image.width} x {image.height})", "give one that has")
    try:
        return Picture(pixels_of(image, path or ARRAY, upright=True), name or (path.stem if path else "image"), path)
    except UNREADABLE as error:
        raise BadImage(path or ARRAY, f"is damaged ({first_line(error)})") from None


def check_array(image: NDArray[Any]) -> None:
    """Raises BadImage unless the array is uint8 [H, W, 3] with pixels, no more than a file may have."""
    advice = advice_on(image)
    if advice:
        raise BadImage(ARRAY, f"is an array {image.dtype} {list(image.shape)}, not uint8 [H, W, 3] in RGB", advice)
    height, width = image.shape[:2]
    if not height * width:
        raise BadImage(ARRAY, f"has no pixels ({width} x {height})", "give one that has")
    if height * width > MAX_PIXELS:
        raise BadImage(ARRAY, f"has {width} x {height} pixels, more than the {MAX_PIXELS:,} allowed", "make it smaller")


def advice_on(image: NDArray[Any]) -> str:
    """How an array becomes uint8 [H, W, 3]; "" where it is."""
    shape = image.shape
    if image.ndim == 2:
        return "repeat the channel of a grey image with np.stack([image] * 3, axis=-1)"
    if image.ndim == 4:
        return "give the images of a batch one at a time"
    if image.ndim != 3:
        return "give the pixels of one image"
    if shape[2] == 4:
        return "leave out the alpha channel with image[..., :3]"
    if shape[2] != 3:
        return "put the channels last with np.moveaxis(image, 0, -1)" if shape[0] == 3 else "give three channels"
    if image.dtype == np.uint8:
        return ""
    if image.dtype.kind == "f":
        return "turn values from 0 to 1 into bytes with (255 * image).round().astype(np.uint8)"
    if image.dtype.itemsize == 2:
        return "scale values from 0 to 65535 with (image // 257).astype(np.uint8), if they reach that far"
    return "scale the values to 0 ... 255, then make bytes of them with image.astype(np.uint8)"
