"""Reading image files: every mode becomes RGB, and whatever cannot be read is BadImage, never anything else."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import stages.images.reading
from stages.contract.errors import BadImage
from stages.images.reading import image_size, read_image


def save(path: Path, pixels: np.ndarray, mode: str | None = None, **options: Any) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


@pytest.fixture
def colours() -> np.ndarray:
    """Three rows of red, green and blue, 3 x 5 pixels."""
    return np.repeat(np.eye(3, dtype=np.uint8)[:, None] * 255, 5, axis=1)


def test_a_png_is_read_exactly_as_rgb_and_writable(tmp_path: Path, colours: np.ndarray) -> None:
    pixels = read_image(save(tmp_path / "a.png", colours))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, colours)
    pixels[0, 0] = 7
    assert image_size(tmp_path / "a.png") == (5, 3)


@pytest.mark.parametrize(("mode", "suffix"), [("L", "jpg"), ("L", "png"), ("1", "png"), ("LA", "png")])
def test_grey_images_become_rgb_with_equal_channels(tmp_path: Path, mode: str, suffix: str) -> None:
    ramp = np.repeat(np.array([[0, 255]], np.uint8), 8, axis=0).repeat(8, axis=1)
    pixels = read_image(save(tmp_path / f"grey.{suffix}", ramp, mode))
    assert pixels.shape == (8, 16, 3)
    assert (pixels == pixels[:, :, :1]).all()
    assert pixels[0, 0, 0] <= 3
    assert pixels[0, -1, 0] >= 252


def test_alpha_is_dropped_and_not_blended(tmp_path: Path, colours: np.ndarray) -> None:
    transparent = np.dstack([colours, np.zeros(colours.shape[:2], np.uint8)])
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", transparent)), colours)


def test_palettes_with_and_without_transparency(tmp_path: Path, colours: np.ndarray) -> None:
    np.testing.assert_array_equal(read_image(save(tmp_path / "p.png", colours, "P")), colours)
    options = {"transparency": bytes([0, 128, 255])}
    np.testing.assert_array_equal(read_image(save(tmp_path / "t.png", colours, "P", **options)), colours)


def test_cmyk_jpeg_comes_out_in_its_colours(tmp_path: Path, colours: np.ndarray) -> None:
    big = colours.repeat(16, axis=0).repeat(16, axis=1)
    pixels = read_image(save(tmp_path / "cmyk.jpg", big, "CMYK", quality=95))
    assert np.abs(pixels[8, 8].astype(int) - [255, 0, 0]).max() < 12
    assert np.abs(pixels[40, 8].astype(int) - [0, 0, 255]).max() < 12


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    grey = np.array([[0, 257, 128 * 257, 65535, 40000]], np.uint16)
    pixels = read_image(save(tmp_path / "deep.png", grey))
    assert pixels[0, :, 0].tolist() == [0, 1, 128, 255, round(40000 / 257)]
    assert (pixels == pixels[:, :, :1]).all()


def test_exif_orientation_is_obeyed_unless_told_otherwise(tmp_path: Path, colours: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    path = save(tmp_path / "turned.png", colours, exif=exif)
    np.testing.assert_array_equal(read_image(path, upright=False), colours)
    np.testing.assert_array_equal(read_image(path), np.rot90(colours, -1))
    assert image_size(path, upright=False) == (5, 3)
    assert image_size(path) == (3, 5)


def test_one_pixel_and_extreme_shapes(tmp_path: Path) -> None:
    assert read_image(save(tmp_path / "1.jpg", np.full((1, 1, 3), 9, np.uint8))).shape == (1, 1, 3)
    assert read_image(save(tmp_path / "wide.jpg", np.zeros((1, 3000, 3), np.uint8))).shape == (1, 3000, 3)


def jpeg_bytes() -> bytes:
    rng = np.random.default_rng(1)
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def bad_files(folder: Path) -> dict[str, Path]:
    files = {
        "does not exist": folder / "missing.jpg",
        "is a folder": folder / "folder.jpg",
        "is empty": folder / "empty.jpg",
        "is not an image": folder / "text.jpg",
        "is damaged": folder / "cut.jpg",
    }
    files["is a folder"].mkdir()
    files["is empty"].write_bytes(b"")
    files["is not an image"].write_text("this is a text\n" * 20)
    files["is damaged"].write_bytes(jpeg_bytes()[:900])
    return files


def test_every_unreadable_file_is_one_sentence_naming_it(tmp_path: Path) -> None:
    for words, path in bad_files(tmp_path).items():
        with pytest.raises(BadImage, match=words) as caught:
            read_image(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.path == str(path)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
        assert str(caught.value).endswith("; restore it, or remove it from the dataset") == (words == "does not exist")


def test_the_size_needs_only_the_header(tmp_path: Path) -> None:
    files = bad_files(tmp_path)
    assert image_size(files["is damaged"]) == (60, 40)
    with pytest.raises(BadImage, match="does not exist"):
        image_size(files["does not exist"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_forbidden_file_says_so(tmp_path: Path, colours: np.ndarray) -> None:
    path = save(tmp_path / "a.png", colours)
    path.chmod(0)
    with pytest.raises(BadImage, match="permission denied"):
        read_image(path)


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [13_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_claiming(side, side))
    with pytest.raises(BadImage, match="160,000,000"):
        read_image(path)


def test_the_limit_itself_is_allowed(tmp_path: Path, colours: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", colours)
    monkeypatch.setattr(stages.images.reading, "MAX_PIXELS", 15)
    assert read_image(path).shape == (3, 5, 3)
    monkeypatch.setattr(stages.images.reading, "MAX_PIXELS", 14)
    with pytest.raises(BadImage, match="5 x 3 pixels, more than the 14"):
        read_image(path)


@pytest.mark.parametrize("kind", ["F", "I"])
def test_values_that_are_no_pixels_are_refused(tmp_path: Path, kind: str) -> None:
    values = np.array([[0.5, 1e6]], np.float32) if kind == "F" else np.array([[0, 1 << 20]], np.int32)
    with pytest.raises(BadImage, match="not 8- or 16-bit pixels"):
        read_image(save(tmp_path / "a.tiff", values))


def encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(2).integers(0, 256, (12, 17, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


FILES = {kind: encoded(kind) for kind in ("JPEG", "PNG", "BMP", "GIF", "TIFF", "PPM")}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(FILES)),
    flips=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8),
    cut=st.integers(0, 1500),
)
def test_a_damaged_file_is_an_image_or_bad_image_and_nothing_else(
    tmp_path: Path, kind: str, flips: list[tuple[int, int]], cut: int
) -> None:
    content = bytearray(FILES[kind])
    for position, value in flips:
        content[position % len(content)] = value
    path = tmp_path / "fuzz"
    path.write_bytes(bytes(content[: max(len(content) - cut, 0)]))
    pixels = None
    with contextlib.suppress(BadImage):
        pixels = read_image(path)
    if pixels is not None:
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
