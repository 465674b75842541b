"""Losses of detectors that are trained end to end."""

from __future__ import annotations

import torch


def smooth_l1(differences: torch.Tensor, sigma: float = 1.0) -> torch.Tensor:
    """The smooth L1 loss of each of `differences` d [...]: (sigma d)² / 2 up to |d| = 1 / sigma², then
    |d| - 1 / (2 sigma²).

    Fast R-CNN, equation 3, with sigma 1; py-faster-rcnn's region proposal network has 3, which the paper does not say.
    """
    return torch.nn.functional.smooth_l1_loss(
        differences, torch.zeros_like(differences), reduction="none", beta=1 / sigma**2
    )
