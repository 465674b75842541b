"""The GIST descriptor against its definition written out naively, and what it does not depend on."""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stages.contract.errors import BadSetting
from stages.contract.settings import build_settings
from stages.gist import Settings
from stages.gist.descriptor import block_means, filter_bank, gist, warped

DEFAULT = Settings()


def smooth(height: int, width: int, seed: int = 0, cells: int = 9) -> np.ndarray:
    """An image without detail finer than its `cells`, uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (cells, cells, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def fourier(values: np.ndarray, sign: int = -1) -> np.ndarray:
    """The discrete Fourier transform of a square, from its definition: a sum over all pixels."""
    side = len(values)
    waves = np.array([[cmath.exp(sign * 2j * math.pi * k * x / side) for x in range(side)] for k in range(side)])
    return waves @ values @ waves.T


def signed(place: int, side: int) -> int:
    """The frequency at a place of a transform, from -side / 2 on."""
    return place if place < side / 2 else place - side


def naive_low_pass(values: np.ndarray) -> np.ndarray:
    """The part of a padded channel below about 4 cycles."""
    side, width = len(values), 4 / math.sqrt(math.log(2))
    spectrum = fourier(values)
    for v in range(side):
        for u in range(side):
            spectrum[v, u] *= math.exp(-(signed(u, side) ** 2 + signed(v, side) ** 2) / width**2)
    return fourier(spectrum, +1).real / side**2


def naive_gist(small: np.ndarray) -> list[float]:
    """The descriptor of an image of 32 x 32 pixels [3, 32, 32]: the definition step by step, without any FFT."""
    mirrored = [4, 3, 2, 1, 0, *range(32), 31, 30, 29, 28, 27]
    padded = [np.array([[math.log(1 + c[y, x]) for x in mirrored] for y in mirrored]) for c in small]
    high = [channel - naive_low_pass(channel) for channel in padded]
    contrast = np.sqrt(np.abs(naive_low_pass((sum(high) / 3) ** 2)))
    channels = [(channel / (0.2 + contrast))[5:37, 5:37] for channel in high]
    descriptor = []
    for channel in channels:
        spectrum = fourier(channel)
        for scale, orientations in enumerate((8, 8, 4)):
            for number in range(orientations):
                passed = np.zeros((32, 32), complex)
                for v in range(32):
                    for u in range(32):
                        fx, fy = signed(u, 32), signed(v, 32)
                        angle = math.atan2(fy, fx) + math.pi * number / orientations
                        angle -= 2 * math.pi * (angle > math.pi)
                        from_centre = math.hypot(fx, fy) / 32 / (0.3 / 1.85**scale) - 1
                        across = 2 * math.pi * 16 * orientations**2 / 32**2 * angle**2
                        passed[v, u] = spectrum[v, u] * math.exp(-10 * 0.35 * from_centre**2 - across)
                response = np.abs(fourier(passed, +1)) / 32**2
                for column in range(4):
                    for row in range(4):
                        descriptor.append(response[8 * row : 8 * row + 8, 8 * column : 8 * column + 8].mean())
    return descriptor


def test_the_descriptor_is_the_definition_written_out() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    made = gist(pixels, DEFAULT)
    assert (made.dtype, made.shape, DEFAULT.length) == (np.float32, (960,), 960)
    np.testing.assert_allclose(made, naive_gist(pixels.transpose(2, 0, 1).astype(float)), atol=2e-6)


def test_the_whole_image_is_warped_whatever_its_shape() -> None:
    halves = np.zeros((100, 300, 3), np.uint8)
    halves[:, 150:] = 255
    small = warped(halves, 32)
    assert small.shape == (3, 32, 32)
    np.testing.assert_array_equal(small[0, :, :15], 0)
    np.testing.assert_array_equal(small[0, :, 17:], 255)


def test_each_filter_passes_its_own_band_and_direction() -> None:
    bank = filter_bank(32, (8, 8, 4))
    assert bank.shape == (20, 32, 32)
    finest = bank[0]  # 0.3 cycles per pixel are 9.6 per image, along x
    assert np.unravel_index(finest.argmax(), finest.shape) == (0, 10)
    turned = bank[4]  # half of eight orientations on: a quarter turn
    assert np.unravel_index(turned.argmax(), turned.shape) == (32 - 10, 0)
    coarsest = bank[16]  # 0.3 / 1.85^2 of 32: 2.8
    assert np.unravel_index(coarsest.argmax(), coarsest.shape) == (0, 3)


def test_stripes_answer_to_their_own_filter() -> None:
    wave = 127 + 100 * np.cos(2 * np.pi * 10 * np.arange(32) / 32)
    stripes = np.broadcast_to(wave[None, :, None], (32, 32, 3)).astype(np.uint8)
    responses = gist(stripes, DEFAULT).reshape(3, 20, 16).mean(axis=(0, 2))
    assert responses.argmax() == 0
    responses = gist(stripes.transpose(1, 0, 2), DEFAULT).reshape(3, 20, 16).mean(axis=(0, 2))
    assert responses.argmax() == 4


def test_means_of_blocks_by_hand() -> None:
    values = np.arange(25, dtype=np.float32).reshape(5, 5)
    np.testing.assert_array_equal(block_means(values, 1), [[12]])
    # with two blocks of five columns the first has two and the second three
    np.testing.assert_array_equal(block_means(values, 2), [[3, 5.5], [15.5, 18]])


@given(st.integers(0, 255), st.integers(1, 60), st.integers(1, 60))
def test_a_single_colour_gives_nothing(value: int, height: int, width: int) -> None:
    assert np.abs(gist(np.full((height, width, 3), value, np.uint8), DEFAULT)).max() < 1e-4


@given(st.integers(0, 1000))
def test_a_grey_image_has_three_equal_channels(seed: int) -> None:
    grey = np.repeat(smooth(50, 70, seed)[:, :, :1], 3, axis=2)
    first, second, third = gist(grey, DEFAULT).reshape(3, -1)
    np.testing.assert_allclose(second, first, atol=1e-6)
    np.testing.assert_allclose(third, first, atol=1e-6)


@given(st.integers(0, 1000))
def test_a_mirrored_image_has_its_columns_and_orientations_mirrored(seed: int) -> None:
    pixels = smooth(32, 32, seed)
    plain = gist(pixels, DEFAULT).reshape(3, 20, 4, 4)  # channel, filter, column, row
    mirrored = gist(pixels[:, ::-1], DEFAULT).reshape(3, 20, 4, 4)
    order = [*((8 * scale + (-turn) % 8) for scale in (0, 1) for turn in range(8)), 16, 19, 18, 17]
    np.testing.assert_allclose(mirrored, plain[:, order, ::-1], atol=0.01 * float(plain.max()))


@given(st.integers(0, 1000), st.sampled_from([2, 3, 5]))
def test_the_size_of_the_image_hardly_matters(seed: int, times: int) -> None:
    large = gist(smooth(64 * times, 80 * times, seed), DEFAULT)
    small = gist(smooth(64, 80, seed), DEFAULT)
    assert np.linalg.norm(large - small) < 0.05 * np.linalg.norm(small)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"side": 16, "blocks": 17}, r"blocks = 17 must be at most side = 16"),
        ({"orientations": []}, r"orientations = \[\] must list at least one scale"),
        ({"orientations": [8, 0]}, r"must be at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(BadSetting, match=message):
        build_settings(Settings, values, "[gist]")


def test_other_settings_give_other_lengths() -> None:
    settings = build_settings(Settings, {"side": 31, "blocks": 3, "orientations": [4, 2]}, "[gist]")
    made = gist(smooth(40, 50), settings)
    assert made.shape == (settings.length,) == (3 * 6 * 9,)
    assert np.isfinite(made).all()
