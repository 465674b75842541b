"""Detections in overlapping tiles of a large image, put together (slicing aided inference: Akyon et al., ICIP 2022).

An object no larger than the overlap lies whole in some tile; others may be cut by a tile's edge. SAHI, the authors'
program, matches boxes of one class by intersection over the smaller area (IoS) and lets the higher score win, so that
the box of a half of an object may win over that of the whole. Here a box that ends at an inner edge of its tile never
wins over one that does not (see `parts_of_whole_boxes`); all that is left goes through the detector's own suppression.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, covered_share, reaches
from stages.detections.order import by_class
from stages.detections.sets import Detections, no_boxes
from stages.detections.suppression import Suppression

MARGIN = 1 / 50
"""How near to a tile's edge a box ends at it, as a fraction of the tile's side: regression is not exact."""
IOS = 0.5
"""From which share of its area in a whole box a cut one is a part of it: SAHI's `postprocess_match_threshold`."""


def tile_starts(length: int, side: int, overlap: int) -> list[int]:
    """Where tiles of `side` pixels begin that cover `length` pixels, the fewest that overlap by at least `overlap`
    pixels: evenly spaced, the first at 0, the last ending at `length`. One where all is in a tile.

    Any interval of at most `overlap` pixels lies in one of them. Raises ValueError unless 0 <= overlap < side.
    """
    if not 0 <= overlap < side:
        raise ValueError(f"tiles of {side} pixels cannot overlap by {overlap}")
    if length <= side:
        return [0]
    count = -(-(length - overlap) // (side - overlap))
    return [place * (length - side) // (count - 1) for place in range(count)]


def tiles_of(width: int, height: int, side: int, overlap: int) -> NDArray[np.int64]:
    """The tiles of an image as boxes int64 [t, 4] in pixels, zero-based and half-open, by rows; see `tile_starts`."""
    return np.array(
        [
            (x, y, min(x + side, width), min(y + side, height))
            for y in tile_starts(height, side, overlap)
            for x in tile_starts(width, side, overlap)
        ],
        np.int64,
    )


def ends_at_inner_edge(
    boxes: Boxes, tile: Sequence[int] | NDArray[np.int64], width: int, height: int
) -> NDArray[np.bool_]:
    """Which of the boxes float32 [n, 4] found in a `tile`, all in pixels of an image of `width` x `height`, end at an
    edge of the tile that is none of the image, so that an object may go on beyond it: bool [n]."""
    x1, y1, x2, y2 = (int(edge) for edge in tile)
    near_x, near_y = MARGIN * (x2 - x1), MARGIN * (y2 - y1)
    left, top = (boxes[:, 0] <= x1 + near_x) & (x1 > 0), (boxes[:, 1] <= y1 + near_y) & (y1 > 0)
    right, below = (boxes[:, 2] >= x2 - near_x) & (x2 < width), (boxes[:, 3] >= y2 - near_y) & (y2 < height)
    return np.asarray(left | top | right | below)


def parts_of_whole_boxes(
    detections: Detections, cut: NDArray[np.bool_], cuts: NDArray[np.floating]
) -> NDArray[np.bool_]:
    """Which of n detections, of all tiles, are parts of another one: bool [n].

    Such a box is `cut`, bool [n], and lies with at least IOS of its area in a box of its class that is not, and that
    scores at least its class's entry in `cuts` float32 [K] or at least as much as the part: a whole object may score
    less than its half, but a box that does not count should not remove one that does.
    """
    gone = np.zeros(len(detections), bool)
    for label, rows in by_class(detections.labels):
        parts, wholes = rows[cut[rows]], rows[~cut[rows]]
        if not len(parts) or not len(wholes):
            continue
        inside = reaches(covered_share(detections.boxes[parts], detections.boxes[wholes]), IOS)
        of_parts, of_wholes = detections.scores[parts][:, None], detections.scores[wholes][None, :]
        gone[parts] = (inside & ((of_wholes >= cuts[label]) | (of_wholes >= of_parts))).any(axis=1)
    return gone


def merge_tiles(
    found: Sequence[tuple[Sequence[int] | NDArray[np.int64], Detections]],
    width: int,
    height: int,
    suppression: Suppression,
    cuts: NDArray[np.floating],
) -> Detections:
    """The detections in an image of `width` x `height` from those `found` in its tiles: (tile, detections in pixels of
    the tile) each. The whole image may be one of the tiles.

    Parts of whole boxes go (`parts_of_whole_boxes`, with the lowest scores that count, `cuts` float32 [K]), what is
    left goes through `suppression`, by which boxes of an object in several tiles become one.
    """
    moved, cut = [], [np.zeros(0, bool)]
    for tile, detections in found:
        boxes = detections.boxes + np.array([tile[0], tile[1], tile[0], tile[1]], np.float32)
        moved.append(Detections(boxes, detections.scores, detections.labels))
        cut.append(ends_at_inner_edge(boxes, tile, width, height))
    every = Detections(
        np.concatenate([no_boxes(), *(one.boxes for one in moved)]),
        np.concatenate([np.zeros(0, np.float32), *(one.scores for one in moved)]),
        np.concatenate([np.zeros(0, np.int32), *(one.labels for one in moved)]),
    )
    left = every.where(~parts_of_whole_boxes(every, np.concatenate(cut), cuts))
    return suppression.outcome(left.where(np.lexsort((-left.scores, left.labels)))).detections
