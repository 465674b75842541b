"""Opening a dataset by its source, the one line by which recipes and commands name it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.datasets.classification import ClassificationDataset
from stages.datasets.coco import open_coco
from stages.datasets.orientation import AUTO, CHOICES
from stages.datasets.records import BadDataset
from stages.datasets.voc import Dataset, open_voc, plain_label
from stages.settings import build_settings, setting


@dataclass(frozen=True)
class ImageOptions:
    """What a recipe may say of `folder:DIR` and `coco:ANNOTATIONS.json:IMAGES`: whether images with an EXIF orientation
    are read upright or as they are stored (`stages.datasets.orientation`)."""

    exif: str = setting(
        AUTO,
        "Images with an EXIF orientation: read upright, as they are stored, or whichever fits the annotated size.",
        choices=CHOICES,
    )


@dataclass(frozen=True)
class VocOptions(ImageOptions):
    """What a recipe may say of `voc:DIR:SPLIT`: its classes, where they are not to be found, and its year, too."""

    classes: tuple[str, ...] | None = setting(
        None, "The classes, in their order; none: VOC's twenty, or those that the annotations name."
    )
    year: int | None = setting(
        None, "The year of the VOC set, where the folder's name does not tell.", at_least=1900, at_most=2099
    )


FORMS = "voc:DIR:SPLIT[:YEAR], coco:ANNOTATIONS.json:IMAGES, shapes:SPLIT, shapes-classification:SPLIT or folder:DIR"


def open_dataset(
    source: str,
    *,
    work: Path,
    classes: tuple[str, ...] | None = None,
    year: str | int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Dataset | ClassificationDataset:
    """The dataset that `source` names: voc:DIR:SPLIT[:YEAR], coco:ANNOTATIONS.json:IMAGES (a folder) and
    shapes:SPLIT have scenes with boxes; shapes-classification:SPLIT and folder:DIR (one folder a class) have single
    objects for pre-training.

    `work` keeps digests and generated sets. `options` is the rest of a recipe's table: `classes` and `year` for `voc`,
    where they may also be given directly; `exif` for all that are not generated; `seed` and `images`, or `per_class`
    and `side`, for those that are. `~` and $VARIABLES are expanded. Raises BadDataset and BadSetting.
    """
    kind, _, rest = source.partition(":")
    values = dict(options or {})
    if kind in GENERATED and rest:
        return GENERATED[kind](rest, Path(work), values)
    if kind == "voc" and ":" in rest:
        chosen = build_settings(VocOptions, values, source)
        listed = classes if classes is not None else chosen.classes
        folder, split, stated_year = voc_parts(expanded(rest, source), year if year is not None else chosen.year)
        return open_voc(folder, split, work=Path(work), classes=listed, year=stated_year, exif=chosen.exif)
    if kind == "coco" and ":" in rest:
        exif = build_settings(ImageOptions, values, source).exif
        path, _, images = expanded(rest, source).rpartition(":")
        return open_coco(Path(path), Path(images), work=Path(work), exif=exif)
    if kind == "folder" and rest:
        exif = build_settings(ImageOptions, values, source).exif
        folder = Path(expanded(rest, source))
        return ClassificationDataset(plain_label(folder.resolve().name), folder, work=Path(work), exif=exif)
    raise BadDataset(f"'{source}' is not a dataset; write {FORMS}")


def open_detection(source: str, *, work: Path, options: Mapping[str, Any] | None = None) -> Dataset:
    """As `open_dataset`, and BadDataset if `source` names a set without boxes."""
    dataset = open_dataset(source, work=work, options=options)
    if not isinstance(dataset, Dataset):
        raise BadDataset(f"{source}: has classes but no boxes; name a set with boxes, voc:DIR:SPLIT for example")
    return dataset


def open_classification(source: str, *, work: Path, options: Mapping[str, Any] | None = None) -> ClassificationDataset:
    """As `open_dataset`, and BadDataset if `source` names a set of scenes with boxes."""
    dataset = open_dataset(source, work=work, options=options)
    if not isinstance(dataset, ClassificationDataset):
        raise BadDataset(f"{source}: has scenes with boxes; name a set of single objects, folder:DIR for example")
    return dataset


def voc_parts(text: str, year: str | int | None) -> tuple[Path, str, str | None]:
    """DIR:SPLIT[:YEAR] as its three parts; a year in the text wins over `year`."""
    match = re.fullmatch(r"(.+?):([^:]+):((?:19|20)\d\d)", text) or re.fullmatch(r"(.+):([^:]+)()", text)
    if match is None:
        raise BadDataset(f"'voc:{text}' is not a dataset; write {FORMS}")
    stated = match[3] or year
    return Path(match[1]), match[2], None if stated is None else str(stated)


def expanded(text: str, source: str) -> str:
    """`text` with `~` and environment variables replaced; raises BadDataset naming a variable that is not set."""
    for match in re.finditer(r"\$(?:(\w+)|\{(\w+)\})", text):
        name = match[1] or match[2]
        if not os.environ.get(name):
            raise BadDataset(
                f"{source}: the environment variable {name} is not set; set it to the folder that is meant"
            )
    return os.path.expanduser(os.path.expandvars(text))


def open_shapes(split: str, work: Path, options: dict[str, Any]) -> Dataset:
    """The generated detection set, drawn at first use."""
    from stages.datasets.shapes import SHAPES, ShapesOptions, materialised_shapes, settings_for

    chosen = build_settings(ShapesOptions, options, f"shapes:{split}")
    folder = materialised_shapes(settings_for(split, chosen), work)
    return open_voc(folder, split, work=work, classes=tuple(SHAPES), name=f"shapes-{split}")


def open_shapes_classification(split: str, work: Path, options: dict[str, Any]) -> ClassificationDataset:
    """The generated classification set, drawn at first use."""
    from stages.datasets.shapes import ClassificationSettings, materialised_classification

    chosen = build_settings(ClassificationSettings, options, f"shapes-classification:{split}")
    folder = materialised_classification(split, chosen, work)
    return ClassificationDataset(f"shapes-classification-{split}", folder, work=work)


GENERATED: dict[str, Callable[[str, Path, dict[str, Any]], Dataset | ClassificationDataset]] = {
    "shapes": open_shapes,
    "shapes-classification": open_shapes_classification,
}
