"""The class vector of an image: what a network says about its views, pooled and averaged.

Symbols: K classes, S the side of the network's input.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from stages.classify import Settings, crop_side, layer_of
from stages.contract.errors import StageError
from stages.images.reading import Pixels
from stages.images.scale import image_scale, scaled_image, stretched_image
from stages.networks.dense_reading import Windows, dense_outputs, windows_of
from stages.networks.feature_maps import prepared_image
from stages.networks.network import Network

ClassVector = NDArray[np.float32]
"""One number per class, [K]."""


def dense_vector(pixels: Pixels, network: Network, settings: Settings, image_id: str) -> tuple[ClassVector, int]:
    """The class vector of an image uint8 [H, W, 3], and how many windows it is from.

    OverFeat section 3.3: the maximum of each class over all windows of a scale, of the image and its mirror image; then
    the mean over scales and mirror images. Windows lie inside the image. Scales at which none fits, because the longer
    side is limited, are left out. Raises StageError, with the image's id, if there is no other.
    """
    height, width = pixels.shape[:2]
    layer, windows = layer_of(settings, network.card), windows_of(network.card)
    maxima, count = [], 0
    for shorter, longer in settings.scales:
        if longer is None:
            scaled = scaled_image(pixels, image_scale(width, height, shorter, settings.longest))
        else:
            scaled = stretched_image(pixels, shorter, longer)
        for image in (scaled, scaled[:, ::-1]) if settings.flips else (scaled,):
            scores = window_scores(image, network, layer, windows, settings.fine)
            if len(scores):
                maxima.append(scores.max(dim=0).values)
                count += len(scores)
    if not maxima:
        raise StageError(
            f"classify: image '{image_id}' is so long that no window of {windows.pixels} pixels fits into it at any "
            f"scale with longest = {settings.longest}; raise classify.longest, or remove the image"
        )
    return torch.stack(maxima).mean(dim=0).cpu().numpy(), count


def window_scores(
    image: NDArray[np.float32], network: Network, layer: str, windows: Windows, fine: bool
) -> torch.Tensor:
    """The outputs of a layer for every window of a scaled image float32 [H, W, 3], 0..255, or those of the coarse
    stride: float32 [n, K]."""
    trunk = replace(network.card.trunk, margin=(0, 0))
    inputs = prepared_image(image, trunk, network.preprocessing, network.device).to(network.dtype)
    with torch.inference_mode():
        cells = network.maps(inputs)
        if min(windows.on_map(*cells.shape[2:])) < 1:
            return torch.zeros((0, network.layers[layer]))
        scores = dense_outputs(network, cells, [layer], windows.cells)[layer]
        return scores.every(1 if fine else windows.step).to(torch.float32)


def crop_vector(pixels: Pixels, network: Network, settings: Settings) -> tuple[ClassVector, int]:
    """The mean class vector of crops of an image uint8 [H, W, 3], and how many: four corners and the centre, and the
    same of the mirror image (Krizhevsky et al. 2012, section 4.1)."""
    side, layer = network.input_size, layer_of(settings, network.card)
    scaled = scaled_image(pixels, crop_side(settings, network.card) / min(pixels.shape[:2]))
    images = (scaled, scaled[:, ::-1]) if settings.flips else (scaled,)
    crops = np.stack([crop for image in images for crop in five_crops(image, side)]).transpose(0, 3, 1, 2)
    batch = network.preprocessing.apply(torch.from_numpy(np.ascontiguousarray(crops)).to(network.device))
    with torch.inference_mode():
        inputs = batch.to(network.dtype).contiguous(memory_format=torch.channels_last)
        scores = network.forward(inputs, [layer])[layer].to(torch.float32)
    return scores.mean(dim=0).cpu().numpy(), len(crops)


def five_crops(image: NDArray[np.float32], side: int) -> list[NDArray[np.float32]]:
    """The corners and the centre [S, S, 3] of an image [H, W, 3], `side` pixels each."""
    below, right = image.shape[0] - side, image.shape[1] - side
    places = [(0, 0), (0, right), (below, 0), (below, right), (below // 2, right // 2)]
    return [image[top : top + side, left : left + side] for top, left in places]
