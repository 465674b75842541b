"""Detection in the tiles of an image that is large beside its objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rcnn_cli.looking.image_detector import ImageDetector
from stages.contract.errors import StageError
from stages.detections import Detections
from stages.detections.tiles import merge_tiles, tiles_of
from stages.images.reading import Pixels

OVERLAP = 0.2
"""Of the tiles' side, where no overlap is given; SAHI's `overlap_height_ratio`."""


@dataclass(frozen=True)
class Tiling:
    """Tiles of `side` pixels that overlap by at least `overlap`; with `whole`, the whole image is looked at, too.

    Raises StageError for tiles that could not be laid out.
    """

    side: int
    overlap: int
    whole: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.side:
            raise StageError(
                f"--tile-overlap {self.overlap}: must be less than the side of the tiles, --tiles {self.side}"
            )


def tiling_of(side: int, overlap: int | None, *, whole: bool) -> Tiling:
    """Tiles of this side; they overlap by OVERLAP of it if no overlap is given. Raises StageError."""
    return Tiling(side, round(OVERLAP * side) if overlap is None else overlap, whole)


def detect_in_tiles(
    detector: ImageDetector, pixels: Pixels, name: str, path: Path | None, tiling: Tiling
) -> Detections:
    """As `detector.detect`, with the image uint8 [H, W, 3] cut into tiles, and their detections merged.

    An image that is no larger than a tile is looked at once. The detector's limits on the number of detections hold for
    each tile. Raises StageError for a detector that does not say how its detections are suppressed.
    """
    height, width, _ = pixels.shape
    tiles = [tuple(tile) for tile in tiles_of(width, height, tiling.side, tiling.overlap).tolist()]
    if len(tiles) == 1:
        return detector.detect(pixels, name, path)
    if detector.suppression is None:
        raise StageError(
            "--tiles: this detector does not say how its detections are suppressed; name its recipe instead"
        )
    if tiling.whole:
        tiles.append((0, 0, width, height))
    found = []
    for tile in tiles:
        x1, y1, x2, y2 = tile
        found.append((tile, detector.detect(np.ascontiguousarray(pixels[y1:y2, x1:x2]), name, path)))
    return merge_tiles(found, width, height, detector.suppression, detector.showing.cuts)
