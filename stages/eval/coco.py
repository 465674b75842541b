"""COCO metrics from pycocotools, and files in COCO's formats.

VOC's difficult objects are passed to pycocotools as crowds, like COCO's own: they need not be found, and any number of
detections may match one. The devkit requires an IoU of such a detection, pycocotools that enough of its own area lies
in the crowd. Sizes are the objects' areas in pixels of the original image.
"""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.boxes import Boxes, area
from stages.detections import ClassDetections, DetectionSet
from stages.matching.objects import ClassObjects

MEASURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""COCOeval's twelve metrics: AP averaged over IoUs 0.5, 0.55 ... 0.95, at 0.5 and 0.75, and for small (area up to
32 x 32), medium (up to 96 x 96) and large objects; AR with at most 1, 10 and 100 detections per image and class, and by
size with 100."""


def class_measures(detections: ClassDetections, objects: ClassObjects) -> NDArray[np.float64]:
    """COCOeval's twelve metrics for one class, in the order of MEASURES: float64 [12], nan where there are no objects.

    Their means over classes, ignoring nan, are COCOeval's metrics for all classes together.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images = [{"id": int(image)} for image in np.union1d(detections.images, objects.images)]
    areas = area(objects.boxes) if objects.areas is None else objects.areas
    things = as_annotations(objects.images, objects.boxes, areas, objects.difficult)
    no_crowds = np.zeros(len(detections), bool)
    results = as_annotations(detections.images, detections.boxes, area(detections.boxes), no_crowds)
    for result, score in zip(results, detections.scores.tolist(), strict=True):
        result["score"] = score
    if not images:
        return np.full(len(MEASURES), np.nan)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        sets = []
        for annotations in (things, results):
            coco = COCO()
            coco.dataset = {"images": images, "categories": [{"id": 1}], "annotations": annotations}
            coco.createIndex()
            sets.append(coco)
        evaluation = COCOeval(*sets, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    numbers = np.array(evaluation.stats, np.float64)
    return np.where(numbers < 0, np.nan, numbers)


def as_annotations(
    images: NDArray[np.int64], boxes: Boxes, areas: NDArray[np.float64], crowds: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """Boxes [n, 4] of one class (category 1) as COCO annotations, numbered from 1: id 0 would mean unmatched."""
    columns = (images.tolist(), corners_and_sides(boxes).tolist(), areas.tolist(), crowds.tolist())
    return [
        {"id": number, "image_id": image, "category_id": 1, "bbox": box, "area": size, "iscrowd": int(crowd)}
        for number, (image, box, size, crowd) in enumerate(zip(*columns, strict=True), 1)
    ]


def corners_and_sides(boxes: Boxes) -> NDArray[np.float64]:
    """Boxes [n, 4] as COCO's (x, y, width, height), float64 [n, 4]."""
    wide = boxes.astype(np.float64)
    return np.hstack([wide[:, :2], wide[:, 2:] - wide[:, :2]])


def write_coco_results(dataset: Any, detections: DetectionSet, path: Path) -> None:
    """Writes the detections in COCO's results format, [{image_id, category_id, bbox, score}], for COCO.loadRes.

    One detection per line; ids are the dataset's (from its COCO file, else counted from 1), boxes are rounded to a
    millionth of a pixel. Classes that the dataset does not have are left out.
    """
    category = dict(zip(dataset.classes, dataset.category_ids, strict=True))
    ids = [category.get(name) for name in detections.classes]
    with path.open("w", encoding="utf-8") as file:
        separator = "[\n"
        for image_id in detections.image_ids:
            of_image, number = detections.of_image(image_id), dataset.image_number(image_id)
            boxes = np.round(corners_and_sides(of_image.boxes), 6).tolist()
            scores = of_image.scores.astype(str)  # the shortest decimal for this float32
            for box, score, label in zip(boxes, scores, of_image.labels, strict=True):
                if ids[label] is not None:
                    head = f'{{"image_id": {json.dumps(number)}, "category_id": {json.dumps(ids[label])}'
                    file.write(f'{separator}{head}, "bbox": {json.dumps(box)}, "score": {score}}}')
                    separator = ",\n"
        file.write("[]\n" if separator == "[\n" else "\n]\n")


def write_coco_annotations(dataset: Any, path: Path) -> None:
    """Writes the dataset's objects in COCO's annotation format, with the ids that `write_coco_results` uses."""
    images: list[dict[str, Any]] = []
    things: list[dict[str, Any]] = []
    for image_id in dataset.image_ids:
        record, number = dataset.record(image_id), dataset.image_number(image_id)
        size = {"width": int(record.width), "height": int(record.height)}
        images.append({"id": number, "file_name": record.path.name, **size})
        boxes, areas = corners_and_sides(record.boxes).tolist(), record.areas.tolist()
        for box, size_of, label, difficult in zip(boxes, areas, record.labels, record.difficult, strict=True):
            ids = {"id": len(things) + 1, "image_id": number, "category_id": dataset.category_ids[label]}
            things.append({**ids, "bbox": box, "area": size_of, "iscrowd": int(difficult)})
    categories = [{"id": id_, "name": name} for id_, name in zip(dataset.category_ids, dataset.classes, strict=True)]
    content = {"info": {"description": dataset.name}, "images": images, "categories": categories}
    path.write_text(json.dumps({**content, "annotations": things}, ensure_ascii=False) + "\n", encoding="utf-8")
