"""Selective search (R-CNN section 2.1; Uijlings et al., IJCV 2013) with OpenCV's contrib module `ximgproc`.

OpenCV's implementation differs from the original: it starts from three segmentations (k = base_k, base_k + inc_k,
base_k + 2 inc_k) with a minimum segment size of 100 pixels, where the original has k = 50, 100 and a minimum size of k.
Its order of boxes depends on libc's `rand()`; the set of boxes, from which `rows_by_size` starts, does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stages.contract.errors import StageError
from stages.propose import Settings
from stages.propose.searched_image import are_large, check_pixels, map_back, resize, searched_size, size_advice
from stages.propose.selection import Proposals

SLOW_PIXELS = 2_000_000
MISSING = (
    "method = 'selective-search-opencv' needs cv2.ximgproc, which is missing: set method = 'selective-search', or "
    "install opencv-contrib-python-headless in place of the other opencv packages"
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


def find(settings: Settings, size: tuple[int, int], image: NDArray[np.uint8], key: Mapping[str, Any]) -> Proposals:
    """The regions of an image uint8 [H, W, 3] RGB that are large (`are_large`) at the size at which it is searched."""
    searched = searched_size(*size, settings.resize_width, settings.max_side)
    boxes = raw_search(resize(image, searched), settings.mode, settings.base_k, settings.inc_k, settings.sigma)
    return Proposals(map_back(boxes[are_large(boxes, searched, settings.min_side)], searched, size))


def raw_search(image: NDArray[np.uint8], mode: str, base_k: int, inc_k: int, sigma: float) -> NDArray[np.int64]:
    """The boxes that OpenCV finds in an image uint8 [H, W, 3] RGB: int64 [n, 4], half-open, which may repeat.

    Each call creates its own OpenCV object, since sharing one between threads crashes. OpenCV silently accepts float
    images, with other results, so anything but uint8 [H, W, 3] raises ValueError.
    """
    check_pixels(image)
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[:, :, ::-1]))
    switch = search.switchToSelectiveSearchFast if mode == "fast" else search.switchToSelectiveSearchQuality
    switch(base_k, inc_k, sigma)
    rectangles = np.asarray(search.process(), np.int64).reshape(-1, 4)
    return np.hstack([rectangles[:, :2], rectangles[:, :2] + rectangles[:, 2:]])
