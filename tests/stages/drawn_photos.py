"""Images like photographs: smooth areas, edges and noise, so that hardly two differences of pixels are equal."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def photo(shape: tuple[int, int], channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    """uint8 [H, W, C]: ellipses and rectangles of random colours on a shaded ground, with noise."""
    random = np.random.default_rng(seed)
    height, width = shape
    image = np.zeros((height, width, channels), np.float32)
    image += np.linspace(40, 160, width)[None, :, None] + random.uniform(0, 60, channels)
    for _ in range(12):
        x, y = random.uniform(0, width), random.uniform(0, height)
        sides = random.uniform(0.03, 0.3, 2) * (width, height)
        rows, columns = np.indices(shape)
        distance = np.abs((columns - x) / sides[0]) ** 2 + np.abs((rows - y) / sides[1]) ** 2
        image[distance < 1] = random.uniform(0, 255, channels)
    noisy = cv2.GaussianBlur(image, (0, 0), 0.7).reshape(image.shape) + random.normal(0, 6, image.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
