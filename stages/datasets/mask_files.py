"""Masks in files: PNG images whose pixels are indices, as in VOC's SegmentationClass and SegmentationObject."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache.files import cannot
from stages.datasets.records import BadAnnotation
from stages.images.reading import UNREADABLE
from stages.input_files import read_whole

PNG = b"\x89PNG\r\n\x1a\n"
SIZE, DEPTH, COLOUR_TYPE, HEADER = slice(16, 24), 24, 25, 29  # where a PNG states them, and its first chunk's end
GREY, PALETTE = 0, 3
MISSING_MASK = "no such mask; add it, or take its id out of the image set"


def read_indices(path: Path, size: tuple[int, int], read: Callable[[Path], bytes] = read_whole) -> NDArray[np.uint8]:
    """The indices in the file `path` of an image of `size` (width, height), read with `read`: uint8 [H, W].

    A palette's colours do not matter. Raises BadAnnotation for anything but a PNG of that size with a palette, or with
    grey values of 8 bits.
    """
    try:
        content = read(path)
    except FileNotFoundError:
        raise BadAnnotation(f"{path}: {MISSING_MASK}") from None
    except OSError as error:
        raise BadAnnotation(f"{path}: " + cannot("be read", error, "repair or remove it")) from None
    if not content.startswith(PNG) or len(content) < HEADER:
        raise BadAnnotation(f"{path}: is not a PNG file; write masks as PNG, with a palette")
    if content[COLOUR_TYPE] != PALETTE and (content[COLOUR_TYPE], content[DEPTH]) != (GREY, 8):
        depth = content[DEPTH]
        values = f"grey values of {depth} bit{'s' if depth > 1 else ''}" if content[COLOUR_TYPE] == GREY else "colours"
        raise BadAnnotation(
            f"{path}: has {values}, not indices of classes; write it with a palette, or with the indices as 8-bit grey "
            "values"
        )
    stated = struct.unpack(">II", content[SIZE])
    if stated != size:
        given, wanted = (f"{width} x {height}" for width, height in (stated, size))
        raise BadAnnotation(f"{path}: has {given} pixels but its image has {wanted}; correct one of the two")
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            return np.array(image, np.uint8)
    except UNREADABLE as error:
        raise BadAnnotation(f"{path}: is damaged ({' '.join(str(error).split())}); repair or remove it") from None


def write_indices(path: Path, indices: NDArray[np.uint8]) -> None:
    """Writes indices uint8 [H, W] as a PNG with VOC's palette."""
    image = Image.fromarray(indices, "L")
    image.putpalette(voc_palette().ravel().tolist())
    image.save(path, format="PNG")


def voc_palette() -> NDArray[np.uint8]:
    """VOC's colour of each index, uint8 [256, 3]: its bits, the lowest first, are dealt to red, green and blue in turn,
    and fill each from its highest bit (VOClabelcolormap.m)."""
    indices = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= (((indices >> bit) & 1) << (7 - bit // 3)).astype(np.uint8)
    return colours
