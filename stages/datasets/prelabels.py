"""Detections as annotations, to be corrected by hand and read back: VOC's, YOLO's and COCO's formats.

Symbols: n detections in one image, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, clip_boxes
from stages.datasets.voc_writer import WrittenObject
from stages.detections import Detections, shortest


def whole_pixels(boxes: Boxes, width: int, height: int) -> NDArray[np.int64]:
    """The boxes [n, 4] in whole pixels, rounded, on an image of `width` x `height` and at least a pixel wide and high:
    int64 [n, 4], zero-based and half-open."""
    limit = np.array([width, height])
    low = np.clip(np.rint(boxes[:, :2]).astype(np.int64), 0, limit - 1)
    high = np.clip(np.rint(boxes[:, 2:]).astype(np.int64), low + 1, limit)
    return np.hstack([low, high])


def voc_objects(detections: Detections, classes: Sequence[str], width: int, height: int) -> list[WrittenObject]:
    """The objects of an image's annotation in VOC's format, which has whole pixels."""
    boxes = whole_pixels(detections.boxes, width, height).tolist()
    return [
        WrittenObject(classes[label], (x1, y1, x2, y2))
        for (x1, y1, x2, y2), label in zip(boxes, detections.labels, strict=True)
    ]


def yolo_labels(detections: Detections, width: int, height: int) -> str:
    """An image's label file: "class x y width height" for each detection, the centre and the sides as fractions of the
    image with six decimals."""
    sides = np.array([width, height, width, height], np.float64)
    corners = clip_boxes(detections.boxes, width, height).astype(np.float64) / sides
    numbers = np.hstack([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]])
    return "".join(
        f"{label} {' '.join(f'{number:.6f}' for number in own)}\n"
        for label, own in zip(detections.labels, numbers, strict=True)
    )


def coco_categories(classes: Sequence[str]) -> list[dict[str, Any]]:
    """COCO's `categories` of K classes: ids from 1, in their order."""
    return [{"id": label, "name": name} for label, name in enumerate(classes, 1)]


def coco_results(detections: Detections, image: int | str) -> list[dict[str, Any]]:
    """COCO's results of the image with this id: category, `bbox` (x, y, width, height) with two decimals, score."""
    return [
        {
            "image_id": image,
            "category_id": int(label) + 1,
            "bbox": [round(float(number), 2) for number in (x1, y1, x2 - x1, y2 - y1)],
            "score": shortest(score),
        }
        for (x1, y1, x2, y2), label, score in zip(
            detections.boxes.astype(np.float64), detections.labels, detections.scores, strict=True
        )
    ]


def coco_annotations(results: Sequence[dict[str, Any]], first: int) -> list[dict[str, Any]]:
    """The `annotations` of a dataset from `coco_results`, with ids from `first` on. They keep their scores, which
    COCO's format does not know and readers pass over."""
    return [
        {"id": number, **result, "area": round(result["bbox"][2] * result["bbox"][3], 2), "iscrowd": 0}
        for number, result in enumerate(results, first)
    ]
