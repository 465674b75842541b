"""EdgeBoxes (Zitnick and Dollár, ECCV 2014): boxes ranked by how many edges they contain whole.

A window's score is the strength of the contours inside it less that of those that cross its border, so that objects,
which are closed, score high. Windows slide over the image; good ones are refined and those that overlap a better one
are suppressed. The search is OpenCV's (`cv2.ximgproc.createEdgeBoxes`), on edges of a structured forest or of the
image's gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.contract.errors import StageError
from stages.propose import Settings
from stages.propose.edge_map import Map, gradient_edges, orientation_of, thinned
from stages.propose.searched_image import map_back, resize, searched_size
from stages.propose.selection import Proposals
from stages.propose.structured_forest import load_forest, resolve_path

SLOW_PIXELS = 1_000_000
ALL = np.iinfo(np.int32).max
MISSING = (
    "EdgeBoxes needs cv2.ximgproc, which is missing: install opencv-contrib-python-headless in place of the other "
    "opencv packages"
)
OPENCV_NAMES = {
    "alpha": "alpha",
    "beta": "beta",
    "eta": "eta",
    "min_score": "minScore",
    "edge_min_mag": "edgeMinMag",
    "edge_merge_thr": "edgeMergeThr",
    "cluster_min_mag": "clusterMinMag",
    "max_aspect_ratio": "maxAspectRatio",
    "min_box_area": "minBoxArea",
    "gamma": "gamma",
    "kappa": "kappa",
}
"""OpenCV's name of each setting."""


def check_available() -> None:
    """Raises StageError if OpenCV is installed without the contrib modules."""
    if not hasattr(getattr(cv2, "ximgproc", None), "createEdgeBoxes"):
        raise StageError(MISSING)


def announcement(settings: Settings) -> str:
    """Which edges are used."""
    if settings.model:
        return f"EdgeBoxes takes the edges of the structured forest {settings.model}"
    return "EdgeBoxes takes image gradients for edges; the paper takes those of a structured forest (propose.model)"


def advice(settings: Settings, size: tuple[int, int]) -> str:
    """A warning if images of `size` (width, height) take long, else ""."""
    width, height = searched_size(*size, 0, settings.edge_max_side)
    if width * height <= SLOW_PIXELS:
        return ""
    return (
        f"is searched at {width} x {height} pixels: EdgeBoxes takes about 2 s for 0.75 million pixels, and 20 s for 3 "
        "million; set propose.edge_max_side = 1000 to search a smaller image"
    )


def find(settings: Settings, size: tuple[int, int], image: NDArray[np.uint8], key: Mapping[str, Any]) -> Proposals:
    """The boxes of an image uint8 [H, W, 3] RGB, in its pixels, and their scores; none if it has no edges.

    Raises StageError for a model that cannot be used, and ChangedInput if it is not the one that `key` was made from.
    """
    searched = searched_size(*size, 0, settings.edge_max_side)
    boxes, scores = search_edges(edges_of(resize(image, searched), settings, key), settings)
    return Proposals(map_back(boxes, searched, size), scores)


def edges_of(image: NDArray[np.uint8], settings: Settings, key: Mapping[str, Any]) -> Map:
    """The strength of the edges in an image uint8 [H, W, 3] RGB, by the model if there is one: float32 [H, W]."""
    if not settings.model:
        return gradient_edges(image, settings.gradient_sigma)
    return load_forest(resolve_path(settings.model), key["model_sha256"]).edges(image)


def search_edges(edges: Map, settings: Settings) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The boxes around `edges` [H, W], which are not yet thinned: int64 [n, 4], half-open, and scores float32 [n]."""
    orientation = orientation_of(edges)
    return raw_boxes(thinned(edges, orientation, settings.edge_min_mag), orientation, settings)


def raw_boxes(edges: Map, orientation: Map, settings: Settings) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """OpenCV's boxes for thin `edges` and their `orientation`, both [H, W]: int64 [n, 4], half-open, and scores
    float32 [n], in OpenCV's order.

    Each call creates its own OpenCV object, which would mix an image with the one before. OpenCV's limit on the number
    of boxes is not used: the first boxes are the same with it.
    """
    options = {theirs: getattr(settings, ours) for ours, theirs in OPENCV_NAMES.items()}
    rectangles, scores = cv2.ximgproc.createEdgeBoxes(maxBoxes=ALL, **options).getBoundingBoxes(edges, orientation)
    boxes = np.asarray(rectangles, np.int64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    with_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return boxes[with_area], np.asarray(scores, np.float32).reshape(-1)[with_area]
