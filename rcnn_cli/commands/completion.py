"""Shell completion of recipes and of their tables, caches, splits and settings.

Nothing heavy is imported. If something is wrong (a broken recipe, an unreadable folder), nothing is completed: a prompt
is no place for an error.
"""

from __future__ import annotations

import dataclasses
import functools
import glob
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import click
from click.shell_completion import BashComplete, CompletionItem, ZshComplete, add_completion_class, split_arg_string

from rcnn_cli.recipes.packaged import packaged
from rcnn_cli.recipes.recipe import Recipe, load_recipe, network_table, sources_of
from stages.contract.catalogue import catalogue
from stages.contract.errors import StageError
from stages.networks import NetworkSettings

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]


def completer(candidates: Callable[[click.Context, str], Iterable[str]]) -> Complete:
    """Turns `candidates(context, incomplete)` into a click `shell_complete` that filters them by what was typed; if it
    raises, nothing is completed."""

    @functools.wraps(candidates)
    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        try:
            return [CompletionItem(name) for name in candidates(context, incomplete) if name.startswith(incomplete)]
        except Exception:
            return []

    return complete


# Files


def complete_toml(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """TOML files and folders; if there are neither, recipes that come with rcnn, else any file."""
    try:
        names = list(toml_files(incomplete)) or packaged_names(incomplete)
    except OSError:
        names = packaged_names(incomplete)
    if not names or any(letter.isspace() for name in names for letter in name):
        return [CompletionItem(incomplete, type="file")]  # leave it to the shell, which knows how to quote names
    return [CompletionItem(name) for name in names]


def toml_files(incomplete: str) -> list[str]:
    """TOML files and folders ("recipes/") that start with `incomplete`; descends into a folder if it matches alone."""
    start = incomplete.rpartition("/")[2]
    shown = incomplete.removesuffix(start)
    entries = sorted(os.scandir(os.path.expanduser(shown) or "."), key=lambda entry: entry.name)
    matches = [entry for entry in entries if entry.name.startswith(start) and (start or not entry.name.startswith("."))]
    folders = [f"{shown}{entry.name}/" for entry in matches if entry.is_dir()]
    files = [f"{shown}{entry.name}" for entry in matches if entry.name.endswith(".toml") and entry.is_file()]
    return toml_files(folders[0]) or folders if len(folders) == 1 and not files else [*files, *folders]


def packaged_names(incomplete: str) -> list[str]:
    """The names of the recipes and grids that come with rcnn and start with `incomplete`."""
    return [name for name in packaged() if name.startswith(incomplete)]


@completer
def complete_packaged(context: click.Context, incomplete: str) -> Iterable[str]:
    """The recipes and grids that come with rcnn."""
    return packaged()


# Contents of a recipe


def recipe_of(context: click.Context) -> Recipe:
    """The recipe named on the command line so far (for a grid, its base), with --set applied if that is possible.

    Raises StageError.
    """
    given = context.params
    # click leaves arguments unparsed, in `args`, while the option being completed has no value
    names = [given.get("recipe"), given.get("a"), given.get("grid"), *(given.get("recipes") or ()), *context.args]
    path = next((Path(name) for name in names if name), None)
    if path is None:
        raise StageError("no recipe yet")
    from rcnn_cli.experiments.grid import is_grid, load_grid

    if is_grid(path):
        grid = load_grid(path)
        path = grid.recipe or grid.cells[0].recipe or path
    try:
        return load_recipe(path, given.get("changes") or ())
    except StageError:
        return load_recipe(path)


@completer
def complete_split(context: click.Context, incomplete: str) -> Iterable[str]:
    """The recipe's datasets."""
    return recipe_of(context).datasets


@completer
def complete_cache(context: click.Context, incomplete: str) -> Iterable[str]:
    """The recipe's caches, by the names that `rcnn status` shows."""
    from rcnn_cli.recipes.graph import Graph

    return [node.name for node in Graph(recipe_of(context), Path()).caches()]


def complete_table(makes: str) -> Complete:
    """The recipe's tables whose stage makes `makes`, e.g. "detections"."""

    @completer
    def complete(context: click.Context, incomplete: str) -> Iterable[str]:
        return recipe_of(context).making(makes)

    return complete


def complete_value(values: Iterable[str]) -> Complete:
    """Completes one of `values`."""
    return completer(lambda context, incomplete: values)


@completer
def complete_image(context: click.Context, incomplete: str) -> Iterable[str]:
    """The images with cached detections, of --split if given; only the caches' plans are read."""
    from cache.layout import planned_items
    from rcnn_cli.recipes.graph import CACHES, Graph

    work = Path(context.params.get("work") or os.environ.get("RCNN_WORK") or "work")
    graph, split = Graph(recipe_of(context), work), context.params.get("split")
    image_ids: dict[str, None] = {}
    for node in graph.making("detections"):
        if split in (None, node.dataset):
            for folder in sorted((work / CACHES / node.use.stage.name).glob(f"{glob.escape(graph.label(node))}.*")):
                image_ids |= dict.fromkeys(planned_items(folder))
    return image_ids


@completer
def complete_setting(context: click.Context, incomplete: str) -> Iterable[str]:
    """For --set: SECTION., then SECTION.KEY=, then the values if they are a fixed few."""
    try:
        recipe = recipe_of(context)
    except Exception:
        recipe = None
    settings = dict(recipe_settings(recipe) if recipe else catalogue_settings())
    name, equals, _ = incomplete.partition("=")
    if equals:
        return [f"{name}={value}" for value in settings.get(name, ())]
    return dict.fromkeys(up_to_next_dot(f"{setting}=", len(incomplete)) for setting in settings if setting)


def up_to_next_dot(name: str, typed: int) -> str:
    """`name` up to the first dot after `typed` letters, e.g. "extract." of "extract.padding="; else all of it."""
    dot = name.find(".", typed)
    return name if dot < 0 else name[: dot + 1]


def recipe_settings(recipe: Recipe) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(dotted name, possible values if they are a fixed few) of every setting of a recipe."""
    for use in recipe.uses.values():
        yield from settings_of(use.name, use.stage.settings)
        if use.stage.follows_split:
            for split in recipe.datasets:
                yield from settings_of(f"{use.name}.{split}", use.stage.settings)
    for name in recipe.networks:
        yield from settings_of(network_table(name), NetworkSettings)
    for split, table in recipe.datasets.items():
        options: dict[str, tuple[str, ...]] = dict.fromkeys(table, ())
        for source in sources_of(table):
            options |= SOURCE_OPTIONS.get(source.partition(":")[0], {})
        yield from ((f"datasets.{split}.{key}", values) for key, values in options.items())


def catalogue_settings() -> Iterator[tuple[str, tuple[str, ...]]]:
    """`recipe_settings` for an unknown recipe: each stage in a table of its own name."""
    for stage in catalogue().values():
        yield from settings_of(stage.name, stage.settings)


def settings_of(section: str, settings: type) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(dotted name, possible values if they are a fixed few) of the settings of a table."""
    hints = get_type_hints(settings)
    for field in dataclasses.fields(settings):
        values = ("true", "false") if hints[field.name] is bool else field.metadata.get("choices") or ()
        yield f"{section}.{field.name}", tuple(map(str, values))


# Sources of datasets

EXIF: dict[str, tuple[str, ...]] = {"exif": ("auto", "upright", "stored")}
SOURCE_OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "voc": {
        **EXIF,
        "classes": (),
        "year": (),
        "other_classes": ("error", "leave-out"),
        "unannotated": ("error", "background"),
        "zero_based": ("true", "false"),
        "exhaustive": ("true", "false"),
        "masks": ("true", "false"),
    },
    "coco": {**EXIF, "classes": (), "masks": ("true", "false")},
    "yolo": {**EXIF, "classes": ()},
    "ilsvrc": {
        **EXIF,
        "classes": (),
        "names": (),
        "blacklist": (),
        "use_blacklist": ("true", "false"),
        "exhaustive": ("true", "false"),
        "per_class": (),
        "per_class_of": ("objects", "images"),
        "seed": (),
        "other_classes": ("error", "leave-out"),
    },
    "sbd": {**EXIF, "classes": (), "other_classes": ("error", "leave-out"), "excluded": ()},
    "shapes": {"seed": (), "images": (), "masks": ("true", "false"), "long_tail": ()},
    "shapes-classification": {"seed": (), "per_class": (), "side": ()},
    "folder": EXIF,
}
"""The options of each kind of source, and their values if they are a fixed few. A copy of those in `stages.datasets`,
which is not imported here because it needs numpy."""
WITH_BOXES = ("voc:", "coco:", "yolo:", "ilsvrc:", "sbd:", "shapes:")
SPLITS = ("train", "val", "trainval", "test")
OF_ILSVRC = ("train", "val", "test", "val1", "val2")


@completer
def complete_source(context: click.Context, incomplete: str) -> Iterable[str]:
    """For `rcnn data check`: the kind of source, then an existing folder or file, then its splits."""
    kind, colon, rest = incomplete.partition(":")
    if f"{kind}:" not in WITH_BOXES or not colon:
        return () if colon else WITH_BOXES
    if kind == "shapes":
        return [f"shapes:{split}" for split in SPLITS]
    place, colon, _ = rest.rpartition(":")
    if colon:
        return [f"{kind}:{place}:{last}" for last in last_parts(kind, Path(os.path.expanduser(place)), rest)]
    ending = {"coco": (".json",), "yolo": (".yaml", ".yml")}.get(kind, ())
    return [f"{kind}:{name}{'' if name.endswith('/') else ':'}" for name in entries(rest, ending)]


def last_parts(kind: str, place: Path, rest: str) -> list[str]:
    """Completions of the last part of a source (split, image folder) whose folder or file is `place`."""
    if kind == "coco":
        return entries(rest.rpartition(":")[2], ())
    if kind in ("yolo", "ilsvrc"):
        return list(SPLITS if kind == "yolo" else OF_ILSVRC)
    if kind == "sbd":
        return sorted({path.stem for home in (place, place / "dataset") for path in home.glob("*.txt")})
    sets = sorted(path.stem for path in (place / "ImageSets" / "Main").glob("*.txt"))
    return sets or [name for name in entries(f"{place}/", (".txt",), relative=True) if not name.startswith(".")]


def entries(typed: str, endings: tuple[str, ...], relative: bool = False) -> list[str]:
    """The folders ("photos/") and files with these `endings` in the typed folder; `relative`: only their names."""
    shown = typed[: typed.rfind("/") + 1]
    listing = sorted(os.scandir(os.path.expanduser(shown) or "."), key=lambda entry: entry.name)
    names = [
        f"{entry.name}/" if entry.is_dir() else entry.name
        for entry in listing
        if entry.is_dir() or entry.name.endswith(endings)
    ]
    return [name.removesuffix("/").removesuffix(".txt") for name in names] if relative else [shown + n for n in names]


@completer
def complete_source_option(context: click.Context, incomplete: str) -> Iterable[str]:
    """For `rcnn data check --set`: KEY=, then the values if they are a fixed few."""
    sources = [*(context.params.get("sources") or ()), *context.args]
    options: dict[str, tuple[str, ...]] = {}
    for source in sources or ["voc:"]:
        options |= SOURCE_OPTIONS.get(str(source).partition(":")[0], {})
    name, equals, _ = incomplete.partition("=")
    return [f"{name}={value}" for value in options.get(name, ())] if equals else [f"{key}=" for key in options]


# Shells


class Bash(BashComplete):
    """click's completion for bash, without a space after an unfinished word.

    bash splits "extract@train" and "propose.method=file" into several words: so the whole line is read, and only the
    part that bash will replace, its $2, is returned.
    """

    source_template = BashComplete.source_template.replace(
        "COMP_CWORD=$COMP_CWORD",
        'COMP_CWORD=$COMP_CWORD COMP_LINE="$COMP_LINE" COMP_POINT=$COMP_POINT COMP_REPLACED="$2"',
    ).replace("COMPREPLY+=($value)", "COMPREPLY+=($value)\n            [[ $value == *[=./:] ]] && compopt -o nospace")
    before = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """(the complete words before the cursor, the incomplete one)."""
        if "COMP_REPLACED" not in os.environ:
            return super().get_completion_args()
        line = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
        words = split_arg_string(line)
        incomplete = "" if line[-1:].isspace() else words.pop()
        self.before = incomplete.removesuffix(os.environ["COMP_REPLACED"])
        if self.before.startswith("-"):
            self.before = self.before.partition("=")[2]  # --set=extract.padding
        return words[1:], incomplete

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """The completion without what bash takes for earlier words."""
        return f"{item.type},{str(item.value).removeprefix(self.before)}"


class Zsh(ZshComplete):
    """click's completion for zsh, without a space after an unfinished word."""

    source_template = ZshComplete.source_template.replace(
        'if [[ "$descr" == "_" ]]; then',
        'if [[ "$key" == *[=./:] ]]; then\n                compadd -U -S "" -- "$key"\n'
        '            elif [[ "$descr" == "_" ]]; then',
    )


add_completion_class(Bash, "bash")
add_completion_class(Zsh, "zsh")
