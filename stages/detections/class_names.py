"""Classes that a dataset calls by other names than the detector's training set, such as those of VOC and COCO (Faster
R-CNN section 4.2, "From MS COCO to PASCAL VOC")."""

from __future__ import annotations

from collections.abc import Sequence

from stages.contract.errors import StageError
from stages.contract.settings import nearest

COCO_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""COCO's names for classes of PASCAL VOC; the other fourteen have the same name in both."""
OTHER_NAMES = COCO_NAMES | {coco: voc for voc, coco in COCO_NAMES.items()}
"""VOC's name for COCO's classes too."""


def own_name(name: str, classes: Sequence[str]) -> str | None:
    """What a detector of these `classes` calls the class `name`: that, else its other name in OTHER_NAMES; None if it
    has neither."""
    return next((known for known in (name, OTHER_NAMES.get(name)) if known in classes), None)


def chosen_classes(entries: Sequence[str], classes: Sequence[str]) -> list[tuple[int, str]]:
    """Which of a detector's `classes` the `entries` of a setting choose, and their new names: (index, name) each.

    An entry is a name that the detector has, or one that OTHER_NAMES knows it by, or "OWN:NAME", the detector's class
    OWN to be called NAME. Raises StageError for a class that the detector does not have, and where two entries choose
    one class or give two the same name.
    """
    chosen: dict[int, str] = {}
    for entry in entries:
        own, _, renamed = (entry, "", entry) if entry in classes or ":" not in entry else entry.partition(":")
        known = own_name(own, classes)
        if known is None:
            raise StageError(
                f"detect: classes has '{entry}', but the detector has no class '{own}'{nearest(own, classes)}; "
                "correct it, or leave it out: a dataset's objects of that class are then all missed"
            )
        index = classes.index(known)
        if index in chosen:
            raise StageError(f"detect: classes names the detector's class '{known}' twice; leave one of them out")
        if renamed in chosen.values():
            twin = classes[next(row for row, name in chosen.items() if name == renamed)]
            raise StageError(
                f"detect: classes calls both '{twin}' and '{known}' '{renamed}'; two classes cannot become one"
            )
        chosen[index] = renamed
    return list(chosen.items())
