"""Selective search (R-CNN section 2.1; Uijlings et al., IJCV 2013) with OpenCV's contrib module `ximgproc`.

OpenCV's implementation differs from the original: it starts from three segmentations (k = base_k, base_k + inc_k,
base_k + 2 inc_k) with a minimum segment size of 100 pixels, where the original has k = 50, 100 and a minimum size of k.
Its order of boxes depends on libc's `rand()`, but not its set of boxes, so `canonical_boxes` sorts them.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes
from stages.contract.errors import StageError
from stages.propose import Settings
from stages.propose.selection import canonical_boxes

SLOW_PIXELS = 2_000_000
MISSING = (
    "selective search needs cv2.ximgproc, which is missing: install opencv-contrib-python-headless in place of the "
    "other opencv packages, or copy a finished proposals cache from another machine and set method = 'file'"
)


def check_available() -> None:
    """Raises StageError if OpenCV is installed without the contrib modules."""
    segmentation = getattr(getattr(cv2, "ximgproc", None), "segmentation", None)
    if not hasattr(segmentation, "createSelectiveSearchSegmentation"):
        raise StageError(MISSING)


def advice(settings: Settings, size: tuple[int, int]) -> str:
    """A warning if images of `size` (width, height) take long, else ""."""
    width, height = searched_size(*size, settings.resize_width, settings.max_side)
    if width * height <= SLOW_PIXELS:
        return ""
    return (
        f"is searched at {width} x {height} pixels: selective search takes about 20 s for 2 million pixels, and "
        "minutes for 8 million; set propose.resize_width = 500 to search a smaller image"
    )


def find(settings: Settings, size: tuple[int, int], image: NDArray[np.uint8]) -> Boxes:
    """The boxes of an image uint8 [H, W, 3] RGB: float32 [n, 4], in canonical order."""
    names = ("mode", "base_k", "inc_k", "sigma", "resize_width", "max_side", "min_side")
    return search_boxes(image, **{name: getattr(settings, name) for name in names})


def search_boxes(
    image: NDArray[np.uint8],
    mode: str = "fast",
    base_k: int = 50,
    inc_k: int = 50,
    sigma: float = 0.8,
    resize_width: int = 500,
    max_side: int = 2000,
    min_side: int = 20,
) -> Boxes:
    """Proposals for an image uint8 [H, W, 3] RGB: float32 [n, 4] in its own pixels, in canonical order.

    The image is searched at `searched_size`. Boxes with a side below `min_side` at that size are dropped, unless that
    side spans the whole image (so that a thin strip keeps its whole-image box); the rest are mapped back.
    """
    height, width = image.shape[:2]
    size = searched_size(width, height, resize_width, max_side)
    boxes = raw_search(resize(image, size), mode, base_k, inc_k, sigma)
    return map_back(drop_small(boxes, size, min_side), size, (width, height))


def searched_size(width: int, height: int, resize_width: int, max_side: int) -> tuple[int, int]:
    """(width, height) at which an image is searched: `resize_width` wide (0: its own width), no side over `max_side`.

    OpenCV's time grows with the square of the longer side, however thin the image, and it fails from 32,767 pixels on.
    """
    scale = min((resize_width or width) / width, max_side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The image [H, W, 3] resized to `size` (width, height): area averaging to shrink it, bicubic to enlarge it."""
    if image.shape[1::-1] == size:
        return image
    method = cv2.INTER_AREA if size[0] < image.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)


def raw_search(image: NDArray[np.uint8], mode: str, base_k: int, inc_k: int, sigma: float) -> NDArray[np.int64]:
    """The boxes that OpenCV finds in an image uint8 [H, W, 3] RGB: int64 [n, 4], half-open, in canonical order.

    Each call creates its own OpenCV object, since sharing one between threads crashes. OpenCV silently accepts float
    images, with other results, so anything but uint8 [H, W, 3] raises ValueError.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"selective search needs uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[:, :, ::-1]))
    switch = search.switchToSelectiveSearchFast if mode == "fast" else search.switchToSelectiveSearchQuality
    switch(base_k, inc_k, sigma)
    rectangles = np.asarray(search.process(), np.int64).reshape(-1, 4)
    corners = np.hstack([rectangles[:, :2], rectangles[:, :2] + rectangles[:, 2:]])
    return canonical_boxes(corners)


def drop_small(boxes: NDArray[np.int64], size: tuple[int, int], min_side: int) -> NDArray[np.int64]:
    """The `boxes` [n, 4] whose width and height are at least `min_side`, or that of the searched image (its `size`)."""
    least = np.minimum(size, min_side)
    return boxes[(boxes[:, 2:] - boxes[:, :2] >= least).all(axis=1)]


def map_back(boxes: NDArray[np.int64], searched: tuple[int, int], original: tuple[int, int]) -> Boxes:
    """`boxes` [n, 4] found at `searched` size (width, height), in pixels of the `original` size: float32 [n, 4].

    Each axis is scaled by its own exact ratio, so that image edges map to image edges. (The original maps one-based
    inclusive corners by the ratio of the widths: (b - 1) * scale + 1.)
    """
    ratio = np.array(original, np.float64) / np.array(searched, np.float64)
    mapped = boxes * np.tile(ratio, 2)
    return np.minimum(mapped, np.tile(original, 2)).astype(np.float32)
