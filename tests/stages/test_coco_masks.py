"""Masks of datasets in COCO's format: polygons and run lengths, crowds, overlaps, and what is no mask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import pytest
from PIL import Image

from stages.datasets import BadAnnotation, BadDataset, open_detection
from stages.datasets.check import check_dataset
from stages.datasets.class_masks import VOID
from stages.datasets.coco_masks import object_mask

SQUARE = [[1, 1, 5, 1, 5, 4, 1, 4]]


def square() -> np.ndarray:
    mask = np.zeros((6, 8), bool)
    mask[1:4, 1:5] = True
    return mask


def opened(folder: Path, annotations: list[dict[str, Any]], *, masks: bool = True) -> Any:
    """A file with two images of 8 x 6 pixels, the classes cat and dog, and these annotations of image 1."""
    (folder / "images").mkdir(exist_ok=True)
    for name in ("a", "b"):
        Image.new("RGB", (8, 6), "white").save(folder / f"images/{name}.png")
    whole = [
        {"id": number, "image_id": 1, "bbox": [0, 0, 8, 6], **annotation}
        for number, annotation in enumerate(annotations, 1)
    ]
    images = [{"id": n, "file_name": f"{name}.png", "width": 8, "height": 6} for n, name in ((1, "a"), (2, "b"))]
    categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    (folder / "toy.json").write_text(json.dumps({"images": images, "annotations": whole, "categories": categories}))
    return open_detection(
        f"coco:{folder / 'toy.json'}:{folder / 'images'}", work=folder / "work", options={"masks": masks}
    )


def runs(mask: np.ndarray) -> dict[str, Any]:
    """Run lengths as numbers."""
    flat = mask.T.ravel()
    lengths, now = [0], False
    for pixel in flat.tolist():
        if pixel != now:
            lengths.append(0)
            now = pixel
        lengths[-1] += 1
    return {"size": list(mask.shape), "counts": lengths}


def characters(mask: np.ndarray) -> dict[str, Any]:
    """Run lengths as characters."""
    encoded = pycocotools.mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


@pytest.mark.parametrize("segmentation", [SQUARE, runs(square()), characters(square())])
def test_polygons_and_run_lengths_are_the_same_mask(segmentation: Any) -> None:
    assert object_mask("x", segmentation, (8, 6)).tolist() == square().tolist()


def test_objects_may_overlap_and_then_their_classes_are_unknown(tmp_path: Path) -> None:
    first, second, third, crowd = np.zeros((4, 6, 8), bool)
    first[:, :4], second[:, 3:6], third[0, :2], crowd[5, :] = True, True, True, True
    dataset = opened(
        tmp_path,
        [
            {"category_id": 7, "segmentation": runs(first)},
            {"category_id": 3, "segmentation": runs(second)},
            {"category_id": 7, "segmentation": runs(third)},
            {"category_id": 3, "segmentation": characters(crowd), "iscrowd": 1},
        ],
    )
    assert dataset.has_masks
    row = [2, 2, 2, VOID, 1, 1]
    assert dataset.class_mask("1").tolist() == [[*row, 0, 0]] * 5 + [[*row, VOID, VOID]]
    labels, masks = dataset.object_masks("1")
    assert labels.tolist() == [1, 0, 1]
    assert masks.tolist() == [first.tolist(), second.tolist(), third.tolist()]
    assert dataset.class_mask("2").tolist() == np.zeros((6, 8)).tolist()
    assert dataset.object_masks("2")[1].shape == (0, 6, 8)
    assert check_dataset(dataset).problems == []


BAD = [
    (None, "has segmentation = None; write polygons or run lengths"),
    ([], "has segmentation"),
    ([[1, 1, 5, 1]], "has the polygon"),
    ([[1, 1, 5, 1, 5]], "has the polygon"),
    ([[1, 1, 5, 1, 5, "4"]], "has the polygon"),
    ([[1, 1, 5, 1, 5, float("nan")]], "has"),
    ([[1, 1, 5, 1, 5, 1e30]], "has a polygon far outside its image of 8 x 6"),
    ({"size": [8, 6], "counts": [48]}, "has run lengths of size"),
    ({"size": [6, 8], "counts": [40]}, "has run lengths that do not fill an image of 8 x 6"),
    ({"size": [6, 8], "counts": [60, -12]}, "has run lengths that do not"),
    ({"size": [6, 8], "counts": "~~~"}, "has run lengths that do not"),
    ({"size": [6, 8], "counts": None}, "has run lengths that do not"),
]


@pytest.mark.parametrize(("segmentation", "said"), BAD)
def test_what_is_no_mask_is_said(tmp_path: Path, segmentation: Any, said: str) -> None:
    dataset = opened(tmp_path, [{"category_id": 3, "segmentation": segmentation}])
    with pytest.raises(BadAnnotation, match=r"toy\.json: annotation 1 \(cat\) of image 1 " + said):
        dataset.object_masks("1")
    assert len(check_dataset(dataset).problems) == 1


def test_keys_are_of_segmentations(tmp_path: Path) -> None:
    def keys(category: int, mask: Any) -> tuple[str, str]:
        dataset = opened(tmp_path, [{"category_id": category, "segmentation": mask}])
        return dataset.masks_key, dataset.mask_digest("2")

    first = keys(3, SQUARE)
    assert keys(3, SQUARE) == first
    assert keys(7, SQUARE)[0] != first[0]
    other = keys(3, [[0, 0, 5, 1, 5, 4]])
    assert other[0] != first[0]
    assert other[1] == first[1]


def test_without_the_option_there_are_none(tmp_path: Path) -> None:
    plain = opened(tmp_path, [{"category_id": 3, "segmentation": SQUARE}], masks=False)
    assert not plain.has_masks
    with pytest.raises(BadDataset, match="opened without masks"):
        plain.class_mask("1")
