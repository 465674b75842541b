"""What a detector takes for an image: files, arrays, Pillow's images; one sentence for anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rcnn.pixels import picture_of
from stages.contract.errors import BadImage

RED = np.full((4, 6, 3), (200, 10, 20), np.uint8)


def test_an_array_is_copied_and_may_be_a_view() -> None:
    picture = picture_of(RED[:, ::-1])
    assert picture.pixels.flags["C_CONTIGUOUS"]
    assert picture.pixels.base is None
    np.testing.assert_array_equal(picture.pixels, RED)
    assert picture[1:] == ("image", None)
    assert picture_of(RED, "frame 12").name == "frame 12"


def test_a_file_by_text_or_path(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(RED).save(path)
    for given in (path, str(path)):
        picture = picture_of(given)
        np.testing.assert_array_equal(picture.pixels, RED)
        assert picture[1:] == ("photo", path)


def sideways(path: Path) -> Path:
    """An image that its EXIF orientation turns by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RED).save(path, exif=exif)
    return path


def test_images_of_pillow_are_upright_and_rgb_as_their_files(tmp_path: Path) -> None:
    path = sideways(tmp_path / "sideways.png")
    with Image.open(path) as image:
        opened = picture_of(image)
    assert opened.pixels.shape == (6, 4, 3)
    np.testing.assert_array_equal(opened.pixels, picture_of(path).pixels)
    assert opened[1:] == ("sideways", path)
    grey = picture_of(Image.fromarray(RED[..., 0]))
    np.testing.assert_array_equal(grey.pixels, np.full((4, 6, 3), 200))
    assert grey[1:] == ("image", None)
    transparent = Image.fromarray(np.dstack([RED, np.zeros((4, 6), np.uint8)]))
    np.testing.assert_array_equal(picture_of(transparent).pixels, RED)


def test_a_truncated_image_of_pillow(tmp_path: Path) -> None:
    path = tmp_path / "half.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3)).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with Image.open(path) as image, pytest.raises(BadImage, match=r"half\.jpg: is damaged \(image file is truncated"):
        picture_of(image)


BAD: dict[str, tuple[Any, str]] = {
    "values from 0 to 1": (
        RED / np.float32(255),
        r"the image: is an array float32 \[4, 6, 3\], not uint8 \[H, W, 3\] in RGB; turn values from 0 to 1 into bytes "
        r"with \(255 \* image\).round\(\).astype\(np.uint8\)",
    ),
    "larger integers": (RED.astype(np.int64), r"int64 \[4, 6, 3\].*scale the values to 0 \.\.\. 255"),
    "sixteen bits": (RED.astype(np.uint16), r"uint16 \[4, 6, 3\].*\(image // 257\)"),
    "grey": (RED[..., 0], r"uint8 \[4, 6\].*np.stack\(\[image\] \* 3, axis=-1\)"),
    "with alpha": (np.dstack([RED, RED[..., :1]]), r"uint8 \[4, 6, 4\].*image\[..., :3\]"),
    "channels first": (np.moveaxis(RED, -1, 0), r"uint8 \[3, 4, 6\].*np.moveaxis\(image, 0, -1\)"),
    "two channels": (RED[..., :2], "three channels"),
    "a batch": (RED[None], "one at a time"),
    "one number": (np.uint8(3) + np.zeros((), np.uint8), r"of one image|is of type uint8"),
    "no pixels": (RED[:0], r"has no pixels \(6 x 0\)"),
    "too many": (np.broadcast_to(np.uint8(0), (20_000, 20_000, 3)), "20000 x 20000 pixels, more than the 160,000,000"),
    "a list": (RED.tolist(), "is of type list; give a file's path, an array"),
    "nothing": (None, "is of type NoneType"),
    "bytes": (b"\x89PNG", "is of type bytes"),
    "an address": ("https://example.org/a.jpg", "is a URL, and rcnn downloads no images"),
    "no file": ("nowhere/a.jpg", r"nowhere/a\.jpg: does not exist; check the path"),
    "a folder": (".", "is a folder, not an image; give the files in it one at a time"),
    "an image without pixels": (Image.new("RGB", (0, 3)), r"has no pixels \(0 x 3\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_anything_else_is_a_sentence(name: str) -> None:
    given, sentence = BAD[name]
    with pytest.raises(BadImage, match=sentence) as caught:
        picture_of(given)
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)
