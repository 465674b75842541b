"""`rcnn data`: checks, draws and downloads datasets."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rcnn_cli.progress import progress
from stages.contract.errors import StageError
from stages.datasets import BadDataset, Dataset, open_dataset, open_detection
from stages.datasets.check import check_dataset
from stages.plurals import number_of


def check_source(
    sources: Sequence[str],
    work: Path,
    say: Callable[[str], None],
    changes: Sequence[str] = (),
    classes: str | None = None,
    against: str | None = None,
) -> bool:
    """Reads every image and annotation; prints each problem and a summary. True if there is no problem.

    `changes` are the dataset's options as KEY=VALUE, `classes` comma-separated names. `against` is another dataset;
    images that are also there are noted, and are no problem.
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
    if against is not None:
        say(shared_with(against, {"source": list(sources), **options}, work, bool(report.problems)))
    say(f"{number_of(len(dataset), 'image')}, {number_of(report.problem_count, 'problem')}")
    return not report.problems


def split_source(
    source: str,
    directory: Path,
    seed: int,
    trials: int,
    work: Path,
    say: Callable[[str], None],
    changes: Sequence[str] = (),
    classes: str | None = None,
) -> None:
    """Writes the ids of two halves of the source, balanced by class, to SPLIT1.txt and SPLIT2.txt in `directory`
    (SPLIT-1 and SPLIT-2 if SPLIT ends in a digit), and prints how far the counts of the classes are apart. Other
    arguments as of `check_source`. Raises StageError."""
    from cache.files import cannot
    from stages.datasets.balance import balanced_halves, class_counts

    kind = source.partition(":")[0]
    if kind not in ("voc", "ilsvrc"):
        raise StageError(
            f"{source}: has no lists of image ids; `rcnn data split` divides voc:DIR:SPLIT, ilsvrc:DIR:SPLIT"
        )
    options = parsed(changes)
    if classes is not None:
        options["classes"] = [name.strip() for name in classes.split(",")]
    dataset = open_detection(source, work=work, options=options)
    if len(dataset) < 2:
        raise StageError(f"{source}: has 1 image, and halves need 2 or more; name a larger set")
    place, year = re.fullmatch(r"(.*?)(:(?:19|20)\d\d)?", source).groups(default="")  # type: ignore[union-attr]
    folder, _, split = place.rpartition(":")
    stem = Path(split).name.removesuffix(".txt")
    dash = "-" if stem[-1:].isdigit() else ""
    paths = [directory / f"{stem}{dash}{half}.txt" for half in (1, 2)]
    for path in paths:
        if os.path.lexists(path):
            raise StageError(f"{path}: exists; name another folder, or remove it")
    counts = class_counts(dataset, progress)
    second = balanced_halves(counts, seed, trials)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, half in zip(paths, (~second, second), strict=True):
            ids = [image_id for image_id, chosen in zip(dataset.image_ids, half, strict=True) if chosen]
            path.write_text("".join(f"{image_id}\n" for image_id in ids), encoding="utf-8")
    except OSError as error:
        raise StageError(f"{directory}: " + cannot("be written to", error, "name another folder")) from None
    say_balance(dataset.classes, counts, second, say)
    sizes = [number_of(int(half.sum()), "image") for half in (~second, second)]
    for path, size in zip(paths, sizes, strict=True):
        say(f"{path}: {size} ({folder}:{path}{year})")


def say_balance(classes: Sequence[str], counts: Any, second: Any, say: Callable[[str], None]) -> None:
    """Prints the largest and the median relative imbalance of two halves, and the classes that are worst off."""
    import numpy as np

    from stages.datasets.balance import relative_imbalances

    apart = relative_imbalances(counts, second)
    known = apart[~np.isnan(apart)]
    if not len(known):
        say("no objects: the halves are equal in size alone")
        return
    worst = [label for label in np.argsort(-np.nan_to_num(apart, nan=-1), kind="stable")[:5] if apart[label] > 0]
    if worst:
        width = max(5, *(len(classes[label]) for label in worst))
        say(f"{'class':<{width}}   first  second  imbalance")
        for label in worst:
            halves = [int(counts[half, label].sum()) for half in (~second, second)]
            say(f"{classes[label]:<{width}}  {halves[0]:>6}  {halves[1]:>6}  {100 * apart[label]:>7.1f} %")
    without = int(np.isnan(apart).sum())
    note = f"; {number_of(without, 'class')} without objects" if without else ""
    largest, median = (f"{100 * value:.1f} %" for value in (known.max(), np.median(known)))
    say(f"relative imbalance of the classes: {largest} at most, median {median}{note}")


def shared_with(against: str, table: dict[str, Any], work: Path, problems: bool) -> str:
    """In one sentence, which images of the dataset of this `table` are also in the dataset `against`."""
    from rcnn_cli.running.device import cores
    from rcnn_cli.running.near_duplicates import compared, near_duplicates_in_words, table_of
    from rcnn_cli.running.runner import Options
    from stages.contract.execution import Execution

    if problems:
        return f"Not compared with {against}: correct the problems first"
    a, b = compared([table_of(against), table], work, Options(Execution(jobs=cores(), progress=progress)))
    shown = near_duplicates_in_words(a, b, files=True)
    return f"{b.name}: {shown[0]} of {against}: {shown[1]}" if shown else f"{b.name}: no image is also in {against}"


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
