"""The layers of the authors' detectors with generated weights, and their trunk in functions of PyTorch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional

from stages.networks import architectures
from tests.stages.caffe_files import Blobs, dropout

Tensors = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
WIDTH = 16
"""Units of fc6 and fc7, so that files are small."""
UNSCALED = {"drop6": dropout(scale_train=False), "drop7": dropout(scale_train=False)}
"""The dropout of ZF in py-faster-rcnn (models/pascal_voc/ZF)."""


def detector_layers(
    name: str = "zf", classes: int = 20, anchors: int = 9, convolution: str = "rpn_conv1"
) -> dict[str, list[np.ndarray]]:
    """The layers of a release of this network, in order: `convolution` is the region proposal network's first.

    Weights are drawn such that scores differ by some units from one place to the next, and deltas by some tenths.
    """
    torch.manual_seed(3)
    module = getattr(architectures, name)(5, width=WIDTH)
    for parameter in module.parameters():
        if parameter.dim() > 1:
            torch.nn.init.kaiming_normal_(parameter)
    layers = {
        part: [value.detach().numpy() for value in values.parameters()] for part, values in module.named_children()
    }
    del layers["fc8"]
    generator = np.random.default_rng(4)

    def drawn(spread: float, *shape: int) -> list[np.ndarray]:
        weights = generator.normal(0, spread, shape).astype(np.float32)
        return [weights, generator.normal(0, 0.2, shape[0]).astype(np.float32)]

    channels = len(layers["conv5" if name != "onet" else "conv5_3"][0])
    heads = {
        "cls_score": drawn(0.05, classes + 1, WIDTH),
        "bbox_pred": drawn(0.005, 4 * (classes + 1), WIDTH),
    }
    if anchors:
        heads[convolution] = drawn(0.003, 8, channels, 3, 3)
        heads["rpn_cls_score"] = drawn(0.1, 2 * anchors, 8, 1, 1)
        heads["rpn_bbox_pred"] = drawn(0.03, 4 * anchors, 8, 1, 1)
    return {**layers, **heads}


def tensors_of(layers: Mapping[str, Blobs]) -> Tensors:
    """The weights and biases of the layers that have any."""
    pairs = {name: blobs for name, blobs in layers.items() if blobs}
    return {name: (torch.from_numpy(weights), torch.from_numpy(biases)) for name, (weights, biases) in pairs.items()}


def zf_trunk(layers: Tensors, image: torch.Tensor) -> torch.Tensor:
    """conv5 of models/pascal_voc/ZF for a preprocessed image [1, 3, H, W]."""

    def convolved(maps: torch.Tensor, name: str, stride: int = 1, padding: int = 1) -> torch.Tensor:
        return functional.conv2d(maps, *layers[name], stride=stride, padding=padding).relu()

    def normalised(maps: torch.Tensor) -> torch.Tensor:
        squares = functional.avg_pool2d(maps * maps, 3, stride=1, padding=1)
        return maps / (1 + 5e-5 * squares) ** 0.75

    def pooled(maps: torch.Tensor) -> torch.Tensor:
        return functional.max_pool2d(maps, 3, stride=2, padding=1, ceil_mode=True)

    maps = pooled(normalised(convolved(image, "conv1", stride=2, padding=3)))
    maps = pooled(normalised(convolved(maps, "conv2", stride=2, padding=2)))
    for name in ("conv3", "conv4", "conv5"):
        maps = convolved(maps, name)
    return maps
