"""`rcnn data`: checks, draws and downloads datasets."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rcnn_cli.progress import progress
from stages.contract.errors import StageError
from stages.datasets import BadDataset, Dataset, open_dataset
from stages.datasets.check import check_dataset
from stages.plurals import number_of


def check_source(
    sources: Sequence[str],
    work: Path,
    say: Callable[[str], None],
    changes: Sequence[str] = (),
    classes: str | None = None,
) -> bool:
    """Reads every image and annotation; prints each problem and a summary. True if there is no problem.

    `changes` are the dataset's options as KEY=VALUE, `classes` comma-separated names.
    """
    options = parsed(changes)
    if classes is not None:
        options["classes"] = [name.strip() for name in classes.split(",")]
    try:
        dataset = open_dataset(sources, work=work, options=options)
    except BadDataset as error:
        if error.faults is None:
            raise
        for fault in error.faults.sentences():
            say(fault)
        say(f"{number_of(len(error.faults), 'problem')}; images and boxes are checked once the file can be read")
        return False
    if not isinstance(dataset, Dataset):
        raise StageError(
            f"{sources[0]}: is a classification set; `rcnn data check` reads sets with boxes, such as voc:DIR:SPLIT"
        )
    report = check_dataset(dataset, progress)
    for problem in report.problems:
        say(problem)
    width = max([5, *map(len, report.classes)])
    say(f"{'class':<{width}}  images  objects  difficult  truncated")
    for name, count in report.classes.items():
        say(f"{name:<{width}}  {count.images:>6}  {count.objects:>7}  {count.difficult:>9}  {count.truncated:>9}")
    for note in report.notes:
        say(note)
    say(f"{number_of(len(dataset), 'image')}, {number_of(report.problem_count, 'problem')}")
    return not report.problems


def draw_dataset(directory: Path, changes: Sequence[str]) -> str:
    """Draws the shapes dataset into `directory`, which must be empty or not exist. Raises StageError."""
    from stages.contract.settings import build_settings
    from stages.datasets.shapes import ShapesSettings, draw_shapes

    settings = build_settings(ShapesSettings, parsed(changes), "rcnn data shapes --set")
    if os.path.lexists(directory) and not directory.is_dir():
        raise StageError(f"{directory}: is a file; choose a new folder")
    if directory.exists() and any(directory.iterdir()):
        raise StageError(f"{directory}: is not empty; choose a new folder, so that nothing is overwritten")
    draw_shapes(directory, settings)
    return f"Drawn: {directory} (check it with `rcnn data check voc:{directory}:trainval`)"


def parsed(changes: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE pairs as a dict; a value that is not TOML is taken as a string. Raises StageError."""
    values: dict[str, Any] = {}
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise StageError(f"--set {change}: must be written KEY=VALUE, for example --set seed=7")
        try:
            values[name.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[name.strip()] = text
    return values


def fetch_dataset(name: str, directory: Path, mirror: str | None) -> str:
    """Downloads PASCAL VOC `name` into `directory`; returns the message for the user."""
    from stages.datasets.download import fetch

    folder = fetch(name, directory, mirror=mirror, progress=progress)
    return f"Ready: {folder} (check it with `rcnn data check voc:{folder}:trainval`)"
