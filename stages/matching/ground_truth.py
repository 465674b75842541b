"""Checking that detections and annotations are of the same images and classes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from stages.contract.errors import StageError
from stages.detections.class_names import own_name
from stages.plurals import number_of

log = logging.getLogger("stages")


def check_images(stage: str, image_ids: Sequence[str], dataset: Any, what: str = "detections") -> None:
    """Raises StageError unless `image_ids`, the images of the detections (or of `what`), are those of the dataset."""
    if set(image_ids) != set(dataset.image_ids):
        raise StageError(
            f"{stage}: the {what} cover {len(image_ids)} images, which are not the {len(dataset.image_ids)} of "
            f"{dataset.name}; use the same split for [{stage}] and the {what} it reads"
        )


def check_exhaustive(stage: str, dataset: Any, why: str) -> None:
    """Raises StageError if objects of the dataset may lack an annotation in some of its images; `why` ends the sentence
    that says what the stage would take them for."""
    partly = dataset.images_not_exhaustive
    if partly:
        first = next(image_id for image_id in dataset.image_ids if image_id in partly)
        raise StageError(
            f"{stage}: {number_of(len(partly), 'image')} of {dataset.name} ('{first}', ...) may show objects without an"
            f" annotation (exhaustive = false), which {why}; use a dataset that is annotated exhaustively"
        )


def check_proposals(stage: str, proposals: Any, dataset: Any) -> None:
    """Raises StageError unless the `proposals`, a cache.Reader, are of all images of the dataset, and maybe others."""
    unknown = [image_id for image_id in dataset.image_ids if image_id not in proposals.positions]
    if unknown:
        raise StageError(
            f"{stage}: the proposals in {proposals.folder} were made from other images than {dataset.name} ("
            f"'{unknown[0]}' is missing); set inputs.proposals to the proposals of the same split"
        )


def check_classes(stage: str, detected: Sequence[str], annotated: Sequence[str]) -> None:
    """Warns of classes that only one side has; raises StageError if there is no class in common."""
    unknown, never = classes_apart(detected, annotated)
    renamed = [name for name in never if own_name(name, detected)]
    remedy = (
        f"; COCO's and VOC's names for {listed(renamed)} differ: list the classes in detect.classes" if renamed else ""
    )
    if len(unknown) == len(detected):
        raise StageError(
            f"{stage}: the detector ({listed(detected)}) and the dataset ({listed(annotated)}) have no class in "
            f"common; use a dataset with the classes that the detector was trained on{remedy}"
        )
    if unknown:
        log.warning("detections of classes that the dataset does not have are ignored: %s", listed(unknown))
    if never:
        log.warning("classes unknown to the detector, so all their objects are missed: %s%s", listed(never), remedy)


def classes_apart(detected: Sequence[str], annotated: Sequence[str]) -> tuple[list[str], list[str]]:
    """(the classes of the detector that the dataset does not have, those of the dataset that the detector does not)."""
    known, wanted = set(detected), set(annotated)
    return [name for name in detected if name not in wanted], [name for name in annotated if name not in known]


def listed(names: Sequence[str], at_most: int = 30) -> str:
    """The names, separated by commas; of many, the first `at_most` and the number of the rest."""
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more


def warn_of_skipped(detections: Any) -> None:
    """Warns of images skipped upstream, whose objects count as missed; `detections` is a cache.Reader."""
    skipped = detections.manifest.get("skipped", {})
    if skipped:
        whose = "image was skipped: its" if len(skipped) == 1 else "images were skipped: their"
        log.warning("%d unreadable %s objects count as missed", len(skipped), whose)
