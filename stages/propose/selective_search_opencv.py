"""Selective search (R-CNN section 2.1; Uijlings et al., IJCV 2013) with OpenCV's contrib module `ximgproc`.

OpenCV's implementation differs from the original: it starts from three segmentations (k = base_k, base_k + inc_k,
base_k + 2 inc_k) with a minimum segment size of 100 pixels, where the original has k = 50, 100 and a minimum size of k.
Its order of boxes depends on libc's `rand()`, but not its set of boxes, so `canonical_boxes` sorts them.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.contract.errors import StageError
from stages.propose import Settings
from stages.propose.searched_image import check_pixels, search_resized, size_advice
from stages.propose.selection import Proposals, canonical_boxes

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
    cost = ": selective search takes about 20 s for 2 million pixels, and minutes for 8 million"
    return size_advice(settings, size, SLOW_PIXELS, cost)


def find(settings: Settings, size: tuple[int, int], image: NDArray[np.uint8]) -> Proposals:
    """The proposals for an image uint8 [H, W, 3] RGB, in canonical order."""

    def search(resized: NDArray[np.uint8]) -> NDArray[np.int64]:
        return raw_search(resized, settings.mode, settings.base_k, settings.inc_k, settings.sigma)

    return Proposals(search_resized(image, search, settings.resize_width, settings.max_side, settings.min_side))


def raw_search(image: NDArray[np.uint8], mode: str, base_k: int, inc_k: int, sigma: float) -> NDArray[np.int64]:
    """The boxes that OpenCV finds in an image uint8 [H, W, 3] RGB: int64 [n, 4], half-open, in canonical order.

    Each call creates its own OpenCV object, since sharing one between threads crashes. OpenCV silently accepts float
    images, with other results, so anything but uint8 [H, W, 3] raises ValueError.
    """
    check_pixels(image)
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[:, :, ::-1]))
    switch = search.switchToSelectiveSearchFast if mode == "fast" else search.switchToSelectiveSearchQuality
    switch(base_k, inc_k, sigma)
    rectangles = np.asarray(search.process(), np.int64).reshape(-1, 4)
    corners = np.hstack([rectangles[:, :2], rectangles[:, :2] + rectangles[:, 2:]])
    return canonical_boxes(corners)
