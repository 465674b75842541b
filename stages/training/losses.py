"""Losses of detectors that are trained end to end, and how many examples they recognise."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def smooth_l1(differences: torch.Tensor, sigma: float = 1.0) -> torch.Tensor:
    """The smooth L1 loss of each of `differences` d [...]: (sigma d)² / 2 up to |d| = 1 / sigma², then
    |d| - 1 / (2 sigma²).

    Fast R-CNN, equation 3, with sigma 1; py-faster-rcnn's region proposal network has 3, which the paper does not say.
    """
    return torch.nn.functional.smooth_l1_loss(
        differences, torch.zeros_like(differences), reduction="none", beta=1 / sigma**2
    )


def hits(scores: torch.Tensor, labels: torch.Tensor, positives: int) -> dict[str, torch.Tensor]:
    """How many positive and negative examples there are, and how many of each are recognised, from their class `scores`
    [k, C] and `labels` int64 [k], of which the first `positives` are those of positive ones."""
    right = scores.argmax(1) == labels
    return {
        "true_positives": right[:positives].sum(),
        "positives": torch.tensor(positives),
        "true_negatives": right[positives:].sum(),
        "negatives": torch.tensor(len(right) - positives),
    }


def accuracies(sums: Mapping[str, float]) -> tuple[float, float]:
    """The shares of positive and of negative examples that are recognised, from sums of `hits`."""
    return (
        sums["true_positives"] / max(sums["positives"], 1),
        sums["true_negatives"] / max(sums["negatives"], 1),
    )
