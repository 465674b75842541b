"""Opening a dataset from its source, the one-line description used in recipes and commands."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from stages.contract.errors import BadSetting
from stages.contract.settings import build_settings, nearest, setting
from stages.datasets.classification import ClassificationDataset
from stages.datasets.coco import CocoOptions, open_coco
from stages.datasets.combined import CombinedDataset
from stages.datasets.listing import ONE_LINE
from stages.datasets.records import BadDataset, shown
from stages.datasets.voc import (
    ClassOptions,
    Dataset,
    ImageOptions,
    VocOptions,
    checked_classes,
    open_voc,
    plain_label,
)
from stages.datasets.yolo import open_yolo

FORMS = (
    "voc:DIR:SPLIT, coco:ANNOTATIONS.json:IMAGES, yolo:DATA.yaml:SPLIT, ilsvrc:DIR:SPLIT, sbd:DIR:SPLIT, "
    "shapes:SPLIT, shapes-classification:SPLIT or folder:DIR"
)


Source = str | Sequence[str]
"""One source, or several that are combined into one dataset."""


@dataclass(frozen=True)
class CombinedOptions:
    """Options of several sources combined."""

    prefix_ids: bool = setting(False, "Whether to prefix every image id with the name of its set and a slash.")


def open_dataset(
    source: Source,
    *,
    work: Path,
    classes: tuple[str, ...] | None = None,
    year: str | int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Dataset | ClassificationDataset:
    """The dataset named by `source`.

    voc:DIR:SPLIT[:YEAR], coco:ANNOTATIONS.json:IMAGES (a folder), yolo:DATA.yaml:SPLIT, ilsvrc:DIR:SPLIT and
    shapes:SPLIT are scenes with boxes, sbd:DIR:SPLIT with masks, too, of which several may be combined;
    shapes-classification:SPLIT and folder:DIR (one folder per class) are images of single objects, for pre-training.

    `work` is where digests and generated sets are stored. `options` is the rest of the recipe's table: `VocOptions` for
    `voc` (`classes` and `year` may also be given directly), `CocoOptions` for `coco`, `ClassOptions` for `yolo`,
    `IlsvrcOptions` for `ilsvrc`, `SbdOptions` for `sbd`, `exif` for `folder`;
    `seed` and `images`, or `per_class` and `side`, for the generated sets; for several sources, their options and
    `prefix_ids`. `~` and $VARIABLES are expanded. Raises BadDataset and BadSetting.
    """
    values = dict(options or {})
    values |= {name: value for name, value in (("classes", classes), ("year", year)) if value is not None}
    if isinstance(source, str):
        return open_one(source, Path(work), values)
    if len(source) == 1:
        return open_one(source[0], Path(work), values)
    return open_combined(source, Path(work), values)


def open_one(
    source: str, work: Path, values: Mapping[str, Any], *, partial: bool = False
) -> Dataset | ClassificationDataset:
    """The dataset of one source. `partial`: it is one of several, and need not have all of the listed classes."""
    kind, _, rest = source.partition(":")
    if not ONE_LINE.fullmatch(source):
        raise BadDataset(f"{shown(source)} is not a dataset; write {FORMS}, on one line")
    if kind in GENERATED and rest:
        return GENERATED[kind](rest, work, dict(values))
    if kind == "voc" and ":" in rest:
        voc_options = build_settings(VocOptions, as_numbers(values), source)
        folder, split, year = voc_parts(expanded(rest, source), voc_options.year)
        return open_voc(folder, split, work=work, options=voc_options, year=year)
    if kind in ("coco", "yolo") and ":" in rest:
        path, _, last = expanded(rest, source).rpartition(":")
        if kind == "coco":
            coco_options = build_settings(CocoOptions, values, source)
            if coco_options.images_listed_in is not None:
                listed = expanded(coco_options.images_listed_in, source)
                coco_options = replace(coco_options, images_listed_in=listed)
            return open_coco(Path(path), Path(last), work=work, options=coco_options, partial=partial)
        options = build_settings(ClassOptions, values, source)
        return open_yolo(Path(path), last, work=work, options=options, partial=partial)
    if kind == "ilsvrc" and ":" in rest:
        return open_ilsvrc_source(source, expanded(rest, source), work, values, partial)
    if kind == "sbd" and ":" in rest:
        return open_sbd_source(source, expanded(rest, source), work, values, partial)
    if kind == "folder" and rest:
        exif = build_settings(ImageOptions, values, source).exif
        folder = Path(expanded(rest, source))
        return ClassificationDataset(plain_label(folder.resolve().name), folder, work=work, exif=exif)
    raise BadDataset(f"{shown(source)} is not a dataset; write {FORMS}")


def open_ilsvrc_source(source: str, rest: str, work: Path, values: Mapping[str, Any], partial: bool) -> Dataset:
    """The dataset of `ilsvrc:` and `rest`, DIR:SPLIT; the options that name files are expanded like sources."""
    from stages.datasets.ilsvrc import IlsvrcOptions, open_ilsvrc

    stated = {name: values[name] for name in ("names", "blacklist") if isinstance(values.get(name), str)}
    files = {name: expanded(path, source) for name, path in stated.items()}
    folder, _, split = rest.rpartition(":")
    options = build_settings(IlsvrcOptions, {**values, **files}, source)
    return open_ilsvrc(Path(folder), split, work=work, options=options, partial=partial)


def open_sbd_source(source: str, rest: str, work: Path, values: Mapping[str, Any], partial: bool) -> Dataset:
    """The dataset of `sbd:` and `rest`, DIR:SPLIT; the lists of `excluded` are expanded like sources."""
    from stages.datasets.sbd import SbdOptions, open_sbd

    options = build_settings(SbdOptions, values, source)
    options = replace(options, excluded=tuple(expanded(name, source) for name in options.excluded))
    folder, _, split = rest.rpartition(":")
    return open_sbd(Path(folder), split, work=work, options=options, partial=partial)


def as_numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the year, which may be given as text, as a number."""
    year = values.get("year")
    return {**values, "year": int(year)} if isinstance(year, str) and year.isdecimal() else dict(values)


def open_combined(sources: Sequence[str], work: Path, values: Mapping[str, Any]) -> CombinedDataset:
    """Several sources with boxes combined into one dataset; each takes the options that it knows."""
    listed_sources = ", ".join(sources)
    if not sources or len(set(sources)) < len(sources):
        raise BadDataset(f"source = [{listed_sources}]: list at least one source, each only once")
    known = [names_of_options(source) for source in sources]
    own = {name: value for name, value in values.items() if name == "prefix_ids"}
    for name in values:
        if name not in own and not any(name in names for names in known):
            every = sorted({"prefix_ids"}.union(*known))
            raise BadSetting(f"{listed_sources}: unknown setting '{name}'{nearest(name, every)}")
    parts = []
    for source, names in zip(sources, known, strict=True):
        chosen = {name: value for name, value in values.items() if name in names}
        part = open_one(source, work, chosen, partial=True)
        if not isinstance(part, Dataset):
            raise BadDataset(
                f"{source}: has classes but no boxes; sources that are combined must have boxes, such as voc:DIR:SPLIT"
            )
        parts.append(part)
    combined_options = build_settings(CombinedOptions, own, listed_sources)
    classes = build_settings(ClassOptions, {"classes": values.get("classes")}, listed_sources).classes
    checked_classes(classes)
    return CombinedDataset(parts, classes=classes, prefix_ids=combined_options.prefix_ids)


def names_of_options(source: str) -> set[str]:
    """The names of a source's options."""
    from stages.datasets.ilsvrc import IlsvrcOptions
    from stages.datasets.sbd import SbdOptions
    from stages.datasets.shapes import COLLECTED, CollectedOptions, ShapesOptions

    kinds: dict[str, type] = {
        "voc": VocOptions,
        "coco": CocoOptions,
        "yolo": ClassOptions,
        "ilsvrc": IlsvrcOptions,
        "sbd": SbdOptions,
        "shapes": ShapesOptions,
    }
    kind, _, rest = source.partition(":")
    options = CollectedOptions if (kind, rest) == ("shapes", COLLECTED) else kinds.get(kind, ImageOptions)
    return {field.name for field in fields(options)}


def open_detection(source: Source, *, work: Path, options: Mapping[str, Any] | None = None) -> Dataset:
    """As `open_dataset`; raises BadDataset if `source` has no boxes."""
    dataset = open_dataset(source, work=work, options=options)
    if not isinstance(dataset, Dataset):
        raise BadDataset(f"{source}: has classes but no boxes; name a set with boxes, voc:DIR:SPLIT for example")
    return dataset


def open_classification(
    source: Source, *, work: Path, options: Mapping[str, Any] | None = None
) -> ClassificationDataset:
    """As `open_dataset`; raises BadDataset if `source` has scenes with boxes."""
    dataset = open_dataset(source, work=work, options=options)
    if not isinstance(dataset, ClassificationDataset):
        raise BadDataset(f"{source}: has scenes with boxes; name a set of single objects, folder:DIR for example")
    return dataset


def voc_parts(text: str, year: str | int | None) -> tuple[Path, str, str | None]:
    """The three parts of DIR:SPLIT[:YEAR]; a year in the text takes precedence over `year`."""
    match = re.fullmatch(r"(.+?):([^:]+):((?:19|20)\d\d)", text) or re.fullmatch(r"(.+):([^:]+)()", text)
    if match is None:
        raise BadDataset(f"'voc:{text}' is not a dataset; write {FORMS}")
    stated = match[3] or year
    return Path(match[1]), match[2], None if stated is None else str(stated)


def expanded(text: str, source: str) -> str:
    """`text` with `~` and environment variables expanded. Raises BadDataset, naming a variable that is not set."""
    for match in re.finditer(r"\$(?:(\w+)|\{(\w+)\})", text):
        name = match[1] or match[2]
        if not os.environ.get(name):
            raise BadDataset(f"{source}: the environment variable {name} is not set; set it to the dataset's folder")
    return os.path.expanduser(os.path.expandvars(text))


def open_shapes(split: str, work: Path, options: dict[str, Any]) -> Dataset:
    """The generated detection set, drawn on first use."""
    from stages.datasets.shapes import COLLECTED, SHAPES, ShapesOptions, materialised_shapes, settings_for

    if split == COLLECTED:
        return open_collected(work, options)
    chosen = build_settings(ShapesOptions, options, f"shapes:{split}")
    folder = materialised_shapes(settings_for(split, chosen), work, masks=chosen.masks, long_tail=chosen.long_tail)
    voc_options = VocOptions(classes=tuple(SHAPES), masks=chosen.masks)
    return open_voc(folder, split, work=work, options=voc_options, name=f"shapes-{split}")


def open_collected(work: Path, options: dict[str, Any]) -> Dataset:
    """The generated images that were collected for a class each, drawn on first use; not annotated exhaustively."""
    from stages.datasets.shapes import COLLECTED, SHAPES, CollectedOptions, materialised_collected

    folder = materialised_collected(build_settings(CollectedOptions, options, f"shapes:{COLLECTED}"), work)
    voc_options = VocOptions(classes=tuple(SHAPES), exhaustive=False)
    return open_voc(folder, COLLECTED, work=work, options=voc_options, name=f"shapes-{COLLECTED}")


def open_shapes_classification(split: str, work: Path, options: dict[str, Any]) -> ClassificationDataset:
    """The generated classification set, drawn on first use."""
    from stages.datasets.shapes import ClassificationSettings, materialised_classification

    chosen = build_settings(ClassificationSettings, options, f"shapes-classification:{split}")
    folder = materialised_classification(split, chosen, work)
    return ClassificationDataset(f"shapes-classification-{split}", folder, work=work)


GENERATED: dict[str, Callable[[str, Path, dict[str, Any]], Dataset | ClassificationDataset]] = {
    "shapes": open_shapes,
    "shapes-classification": open_shapes_classification,
}
