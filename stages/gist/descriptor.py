"""The GIST descriptor of a colour image: the energy of oriented filters, averaged over a coarse grid.

Oliva and Torralba, IJCV 2001, for colour images as in LEAR's program (Douze et al., "Evaluation of GIST descriptors for
web-scale image search", CIVR 2009), which R-CNN's Appendix F follows. Written from the definition.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from PIL import Image

from stages.gist import Settings
from stages.images.reading import Pixels

PADDING = 5
"""Pixels mirrored at each side of the image for the low-pass."""
CONTRAST_FLOOR = 0.2
"""Added to the local contrast before dividing by it, so that smooth places stay quiet."""
RADIAL_WIDTH = 3.5
CENTRE, OCTAVE = 0.3, 1.85
"""The finest filter's centre, in cycles per pixel, and the ratio from one scale to the next."""

Values = NDArray[np.float32]


def gist(pixels: Pixels, settings: Settings) -> Values:
    """The descriptor of an image, uint8 [H, W, 3] RGB: float32 [settings.length], at least 0.

    Channel by channel, filter by filter (scales from fine to coarse), and for each filter the mean response in each
    block, column by column. A single colour gives zeros, up to rounding.
    """
    image = prefiltered(warped(pixels, settings.side), settings.prefilter)
    spectrum = scipy.fft.fft2(image)
    responses = np.abs(scipy.fft.ifft2(spectrum[:, None] * filter_bank(settings.side, settings.orientations)))
    return np.swapaxes(block_means(responses, settings.blocks), -2, -1).reshape(-1)


def warped(pixels: Pixels, side: int) -> Values:
    """The whole image at `side` x `side`, whatever its shape, with antialiasing: float32 [3, side, side], 0 to 255."""
    small = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(small, np.float32).transpose(2, 0, 1))


def prefiltered(image: Values, cycles: float) -> Values:
    """The logarithm of the image without its low frequencies and divided by its local contrast, [3, S, S].

    The contrast is that of the mean of the channels.
    """
    around = ((0, 0), (PADDING, PADDING), (PADDING, PADDING))
    padded = np.pad(np.log1p(image), around, mode="symmetric")
    padded -= low_passed(padded, cycles)
    contrast = np.sqrt(np.abs(low_passed(padded.mean(axis=0) ** 2, cycles)))
    padded /= np.float32(CONTRAST_FLOOR) + contrast
    return padded[:, PADDING:-PADDING, PADDING:-PADDING]


def low_passed(image: Values, cycles: float) -> Values:
    """The image [..., S, S] after a circular low-pass, a Gaussian of 1/2 at `cycles` per image."""
    side = image.shape[-1]
    low = scipy.fft.irfft2(scipy.fft.rfft2(image) * low_pass(side, cycles), s=(side, side))
    return np.asarray(low, np.float32)


@functools.lru_cache(maxsize=8)
def low_pass(side: int, cycles: float) -> Values:
    """The Gaussian on the frequencies of `rfft2`: float32 [S, S // 2 + 1]."""
    y, x = np.fft.fftfreq(side, 1 / side)[:, None], np.fft.rfftfreq(side, 1 / side)
    return np.exp(-(x**2 + y**2) * math.log(2) / cycles**2).astype(np.float32)


@functools.lru_cache(maxsize=8)
def filter_bank(side: int, orientations: Sequence[int]) -> Values:
    """The filters on the frequencies of `fft2`, float32 [filters, S, S]: per scale, evenly spaced over half a turn.

    Each passes a band around CENTRE / OCTAVE^scale cycles per pixel, on one side of the plane of frequencies only.
    """
    frequency = np.fft.fftfreq(side)
    radius, angle = np.hypot(*np.meshgrid(frequency, frequency)), np.arctan2(frequency[:, None], frequency)
    filters = []
    for scale, count in enumerate(orientations):
        along = RADIAL_WIDTH * (radius * OCTAVE**scale / CENTRE - 1) ** 2
        for number in range(count):
            turned = angle + math.pi * number / count
            turned = np.where(turned > math.pi, turned - 2 * math.pi, turned)
            across = 2 * math.pi * (count / 8) ** 2 * turned**2
            filters.append(np.exp(-along - across))
    return np.array(filters, np.float32)


def block_means(responses: Values, blocks: int) -> Values:
    """The mean in each cell of a grid over the last two axes: float32 [..., blocks, blocks], row by row."""
    side = responses.shape[-1]
    edges = np.arange(blocks) * side // blocks
    sizes = np.diff(edges, append=side).astype(np.float32)
    sums = np.add.reduceat(np.add.reduceat(responses, edges, axis=-2), edges, axis=-1)
    return np.asarray(sums / (sizes[:, None] * sizes), np.float32)
