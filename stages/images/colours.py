"""Random changes of an image's colours, for training: brightness, contrast, saturation and hue.

The scheme is SSD's (Liu et al., arXiv 1512.02325, section 2.2, after Howard, arXiv 1312.5402), in the order and the
ranges of torchvision's RandomPhotometricDistort: each of the four is changed with probability 0.5, and the contrast
before or after saturation and hue. Colour channels are never exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

BRIGHTNESS, CONTRAST, SATURATION, HUE = "brightness", "contrast", "saturation", "hue"
RANGES = {BRIGHTNESS: 0.25, CONTRAST: 1.0, SATURATION: 1.0, HUE: 0.1}
"""How far each may be changed at strength 1. SSD's ranges are those of strength 0.5: 1 ± 0.125, 1 ± 0.5, 1 ± 0.5, and
± 0.05 turns of the hue."""


@dataclass(frozen=True)
class ColourChange:
    """What is changed, in this order: pairs of a name and its amount, a factor or, for the hue, a share of a turn."""

    steps: tuple[tuple[str, float], ...]


AS_THEY_ARE = ColourChange(())


def drawn_colours(strength: float, random: np.random.Generator) -> ColourChange:
    """A change of the given `strength`, 0 to 1. Always takes nine numbers from `random`."""
    amounts = strength * (2 * random.random(4) - 1)
    changed = random.random(4) < 0.5
    contrast_first = bool(random.random() < 0.5)
    after_brightness = (CONTRAST, SATURATION, HUE) if contrast_first else (SATURATION, HUE, CONTRAST)
    drawn = {
        name: float(RANGES[name] * amount + (name != HUE))
        for name, amount, one in zip(RANGES, amounts, changed, strict=True)
        if one
    }
    return ColourChange(tuple((name, drawn[name]) for name in (BRIGHTNESS, *after_brightness) if name in drawn))


def recoloured(image: torch.Tensor, change: ColourChange) -> torch.Tensor:
    """The image [3, H, W], RGB, with its colours changed: uint8 0..255, or float32 0..1, as it was given."""
    from torchvision.transforms.v2 import functional  # imported here: it takes long

    adjust = {
        BRIGHTNESS: functional.adjust_brightness,
        CONTRAST: functional.adjust_contrast,
        SATURATION: functional.adjust_saturation,
        HUE: functional.adjust_hue,
    }
    for name, amount in change.steps:
        image = adjust[name](image, amount)
    return image
