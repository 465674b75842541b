"""The eval-segmentation stage: label maps and the dataset's masks in, a confusion matrix per image out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import numpy as np

from cache import Column, Reader, Record, Schema, Writer
from stages.contract.errors import StageError
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.datasets.class_masks import VOID
from stages.eval_segmentation import Settings
from stages.eval_segmentation.confusion import class_accuracy, confusion_matrix, resampled_accuracy
from stages.matching.ground_truth import check_exhaustive, check_images, listed, warn_of_skipped
from stages.resampling import CONFIDENCE, image_weights, percentile_interval

log = logging.getLogger("stages.eval_segmentation")

BACKGROUND = "background"


def items(settings: Settings, inputs: Inputs) -> Sequence[str]:
    """The images of the dataset."""
    return list(inputs.dataset("masks").image_ids)


def schema(settings: Settings, inputs: Inputs) -> Schema:
    """Per image, how many pixels of each class are labelled as each: `confusion` int64 [C, C], a row for each class of
    the truth; the background comes first, then the dataset's classes."""
    classes = len(inputs.dataset("masks").classes) + 1
    return Schema(item="image", per_item={"confusion": Column("int64", (classes, classes))})


def attributes(settings: Settings, inputs: Inputs) -> dict[str, Any]:
    """The names of the rows and columns."""
    return {"classes": [BACKGROUND, *inputs.dataset("masks").classes]}


def run(settings: Settings, inputs: Inputs, output: Writer, execution: Execution) -> None:
    """Compares the label map of each image with its mask. Raises StageError if they are of other images, classes or
    sizes."""
    masks, segmentation = inputs.dataset("masks"), inputs.reader("segmentation")
    check_images("eval-segmentation", segmentation.item_ids, masks, "label maps")
    check_exhaustive("eval-segmentation", masks, "would count as background")
    labelled = segmentation.manifest["summary"]["classes"]
    if labelled != list(masks.classes):
        raise StageError(
            f"eval-segmentation: the segmentation has the classes {listed(labelled)}, but {masks.name} has "
            f"{listed(list(masks.classes))}; train the regressions on a dataset with the same classes in the same order"
        )
    warn_of_skipped(segmentation)
    with execution.progress("eval-segmentation", output.remaining_items, "images") as bar:
        for part in output.claim():
            output.write(part, [image_record(image_id, segmentation, masks) for image_id in part.item_ids])
            bar.advance(len(part.item_ids))


def image_record(image_id: str, segmentation: Reader, masks: Any) -> Record:
    """One image's confusion matrix; that of a skipped image counts as labelled background. Raises StageError if map and
    mask have other sizes."""
    labels, truth = label_map(segmentation, image_id), masks.class_mask(image_id)
    if image_id in segmentation.manifest["skipped"]:
        labels = np.zeros_like(truth)
    if labels.shape != truth.shape:
        sizes = " but ".join(f"{shape[1]} x {shape[0]}" for shape in (labels.shape, truth.shape))
        raise StageError(
            f"eval-segmentation: image '{image_id}': its label map has {sizes} pixels in the dataset's mask; give both "
            "the same split"
        )
    return {"confusion": confusion_matrix(truth, labels, len(masks.classes), VOID)}


def label_map(segmentation: Reader, image_id: str) -> np.ndarray:
    """An image's label map in a segment cache: uint8 [H, W]."""
    record = segmentation.read(image_id, ["map/label", "image_size"])
    width, height = record["image_size"].tolist()
    return record["map/label"].reshape(height, width)


def confusions(reader: Reader) -> np.ndarray:
    """The confusion matrices of all images, int64 [I, C, C]."""
    return np.stack([record["confusion"] for _, record in reader.records(["confusion"])])


def summarise(settings: Settings, inputs: Inputs, reader: Reader) -> dict[str, Any]:
    """The accuracy of the background and of each class, None without pixels of it, and the mean of the others; shares
    of 1. With a bootstrap, its intervals."""
    names = [BACKGROUND, *inputs.dataset("masks").classes]
    matrices = confusions(reader)
    total = matrices.sum(axis=0)
    accuracy, pixels = class_accuracy(total), total.sum(axis=1)
    known = ~np.isnan(accuracy)
    without = [name for name, is_known in zip(names, known, strict=True) if not is_known]
    if without:
        log.warning("%s: no pixels in the truth, left out of the mean", listed(without))
    classes: dict[str, dict[str, Any]] = {
        name: {"accuracy": float(value) if is_known else None, "pixels": int(count)}
        for name, value, is_known, count in zip(names, accuracy, known, pixels, strict=True)
    }
    summary: dict[str, Any] = {
        "mean_accuracy": float(accuracy[known].mean()) if known.any() else None,
        "pixel_accuracy": float(np.trace(total) / total.sum()) if total.any() else None,
        "classes": classes,
        "without_pixels": without,
        "images": len(reader),
    }
    if settings.bootstrap:
        summary["bootstrap"] = bootstrap_summary(settings, reader.item_ids, matrices, classes)
        low, high = summary["bootstrap"]["mean_accuracy"] or (None, None)
        summary |= {"mean_accuracy_low": low, "mean_accuracy_high": high}
    return summary


def bootstrap_summary(
    settings: Settings, image_ids: Sequence[str], matrices: np.ndarray, classes: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Adds each class's interval to `classes`, and returns that of the mean. `images` identifies the resampled images:
    evaluations with the same images, number of resamples and seed are paired."""
    weights = image_weights(len(image_ids), settings.bootstrap, settings.bootstrap_seed)
    of_classes, means = resampled_accuracy(matrices, weights)
    for values, result in zip(of_classes, classes.values(), strict=True):
        result["interval"] = percentile_interval(values)
    return {
        "resamples": settings.bootstrap,
        "seed": settings.bootstrap_seed,
        "confidence": CONFIDENCE,
        "images": sha256("\n".join(image_ids).encode()).hexdigest()[:12],
        "mean_accuracy": percentile_interval(means),
    }
