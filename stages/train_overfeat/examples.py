"""The windows that OverFeat is trained on, and its losses (sections 4.3 and 5).

Symbols: n windows of a map, m objects, K classes; p windows on objects, c candidates for background, b windows for the
regressor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from stages.boxes import Boxes, covered_share, iou_matrix, reaches
from stages.matching.examples import IGNORE, unused_regions
from stages.matching.windows import window_labels
from stages.networks import NetworkCard
from stages.networks.dense_reading import windows_of
from stages.train_overfeat import OBJECT, Settings
from stages.training.sampling import draw
from stages.training.whole_images import Objects, TrainingImage


@dataclass(frozen=True)
class WindowExamples:
    """The windows drawn of one map, as places (row, column), int64 [..., 2].

    `positives` [p, 2] with the classes `labels` int64 [p]; `candidates` [c, 2] are background, in random order, of
    which `negatives` are to be used; `box_windows` [b, 2] with the `edges` float32 [b, 4] of their objects in their
    frames, and the classes `box_labels` int64 [b] of these.
    """

    positives: torch.Tensor
    labels: torch.Tensor
    candidates: torch.Tensor
    negatives: int
    box_windows: torch.Tensor
    edges: torch.Tensor
    box_labels: torch.Tensor


def encode_edges(windows: Boxes, boxes: Boxes) -> NDArray[np.float64]:
    """The edges (x1, y1, x2, y2) of `boxes` [n, 4] in the frames of `windows` [n, 4], from their corners, in units of
    their sides: float64 [n, 4] (section 4.2)."""
    corners = np.tile(windows[:, :2].astype(np.float64), 2)
    return (boxes - corners) / np.tile(windows[:, 2:].astype(np.float64) - windows[:, :2], 2)


def labelled_windows(windows: Boxes, objects: Objects, classes: int, settings: Settings) -> NDArray[np.int32]:
    """The class of each of n windows [n, 4], `classes` for background, or UNUSED: int32 [n]."""
    boxes = np.concatenate([objects.boxes, windows]).astype(np.float32)
    unused = unused_regions(boxes, objects.unused, objects.crowds, IGNORE)
    labels = window_labels(
        boxes,
        objects.boxes,
        objects.labels,
        classes,
        settings.positive_overlap,
        settings.background_overlap,
        unused,
    )
    return labels[len(objects.boxes) :]


def regressed_windows(
    windows: Boxes, objects: Objects, settings: Settings
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The windows that the regressor may be trained on, and the object of each, among those that are used: rows int64
    [b] and [b].

    A window is left out unless an object overlaps it by at least `box_overlap`, as a share of `overlap_of` (section
    4.3); of several such objects, it learns the one with the highest IoU.
    """
    boxes = objects.used
    if not len(boxes) or not len(windows):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    overlaps = iou_matrix(windows, boxes)
    shares = covered_share(boxes, windows).T if settings.overlap_of == OBJECT else overlaps
    fit = reaches(shares, settings.box_overlap)
    nearest = np.where(fit, overlaps, -1.0).argmax(axis=1)
    rows = np.flatnonzero(fit.any(axis=1))
    return rows, nearest[rows]


def draw_windows(
    windows: Boxes,
    places: NDArray[np.int64],
    objects: Objects,
    classes: int,
    settings: Settings,
    random: np.random.Generator,
    device: torch.device | str,
) -> WindowExamples:
    """The windows to train on of one map: all of its `windows` [n, 4], in the pixels of the objects, and their `places`
    int64 [n, 2] on the map."""
    labels = labelled_windows(windows, objects, classes, settings)
    positives = draw(np.flatnonzero((labels >= 0) & (labels < classes)), settings.most_positive, random)
    negatives = settings.windows_per_image - len(positives)
    background = draw(np.flatnonzero(labels == classes), max(settings.candidates, negatives), random)
    candidates = random.permutation(background)
    rows, nearest = regressed_windows(windows, objects, settings)
    chosen = draw(np.arange(len(rows)), settings.box_windows, random)
    rows, nearest = rows[chosen], nearest[chosen]
    used = ~objects.unused
    edges = encode_edges(windows[rows], objects.boxes[used][nearest])

    def tensor(values: NDArray[np.generic], kind: type) -> torch.Tensor:
        return torch.from_numpy(values.astype(kind)).to(device)

    return WindowExamples(
        tensor(places[positives], np.int64),
        tensor(labels[positives], np.int64),
        tensor(places[candidates], np.int64),
        min(negatives, len(candidates)),
        tensor(places[rows], np.int64),
        tensor(edges, np.float32),
        tensor(objects.labels[used][nearest], np.int64),
    )


def windows_of_image(
    image: TrainingImage[None], card: NetworkCard, classes: int, settings: Settings, random: np.random.Generator
) -> WindowExamples:
    """The windows to train on of an image's map, by the network `card` that is trained; `draw_windows`."""
    windows, margin = windows_of(card), card.trunk.margin[0] + settings.border
    width, height = image.map_size
    boxes = (windows.boxes(height, width, margin) / np.float32(image.scale)).astype(np.float32)
    places = windows.places(height, width)
    return draw_windows(boxes, places, image.objects, classes, settings, random, image.inputs.device)


def chosen_negatives(background: torch.Tensor, count: int, offending: float) -> torch.Tensor:
    """Which of c candidates, whose probability of the background is `background` [c], are used: rows int64 [count].

    A share `offending` of them are those that look least like background, the others the first of those that remain,
    as candidates come in random order (section 5).
    """
    hard = round(count * offending)
    order = torch.argsort(background, stable=True)
    worst, rest = order[:hard], torch.sort(order[hard:]).values
    return torch.cat([worst, rest[: count - hard]])


def edge_loss(edges: torch.Tensor, targets: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The squared error of the edges of b windows, averaged over them, a scalar: `edges` [b, 4], or [b, 4 K] of which
    those of the class `labels` [b] count; `targets` [b, 4] (section 4.3). 0 without windows."""
    own = edges.unflatten(1, (-1, 4))
    rows = torch.arange(len(edges), device=edges.device)
    taken = own[rows, labels if own.shape[1] > 1 else torch.zeros_like(labels)]
    return ((taken - targets) ** 2).sum() / max(len(edges), 1)
