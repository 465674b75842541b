"""Caffe layers that PyTorch lacks, or lacks in some precision: both forms of local response normalisation.

Both divide by (1 + alpha x the mean of squares)^beta. The factor is applied before squaring, so that float16 does not
overflow for activations above 256.
"""

from __future__ import annotations

import torch
from torch import nn


class CrossChannelNormalisation(nn.Module):
    """Local response normalisation across channels: Krizhevsky et al. (2012), section 3.3, as Caffe's LRN layer.

    b = a / (1 + alpha / size x the sum of squares over `size` neighbouring channels)^beta; [N, C, H, W] of any
    floating dtype. PyTorch's LocalResponseNorm computes the same, but several times slower and without bfloat16 on
    CPUs; here the sums are a 1 x 1 convolution with a band of ones.
    """

    def __init__(self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """The normalised `maps`, [N, C, H, W] of the same dtype."""
        squares = (maps * (self.alpha / self.size) ** 0.5).square()
        channels = maps.shape[1]
        band = torch.ones(channels, channels, dtype=maps.dtype, device=maps.device)
        band = band.tril(self.size // 2).triu(-(self.size // 2))[:, :, None, None]
        return maps * (1 + nn.functional.conv2d(squares, band)).pow(-self.beta)


class WithinChannelNormalisation(nn.Module):
    """Local response normalisation within each map: Caffe's LRN layer with norm_region WITHIN_CHANNEL.

    b = a / (1 + alpha x the mean of squares over a `size` x `size` window)^beta; positions outside the map count as
    zeros. [N, C, H, W] of any floating dtype.
    """

    def __init__(self, size: int = 3, alpha: float = 5e-5, beta: float = 0.75) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """The normalised `maps`, [N, C, H, W] of the same dtype."""
        squares = (maps * self.alpha**0.5).square()
        means = nn.functional.avg_pool2d(squares, self.size, stride=1, padding=self.size // 2)
        return maps * (1 + means).pow(-self.beta)
