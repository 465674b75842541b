"""The pages of the reference that are generated from the code: settings, commands, recipes, docstrings."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

import rcnn
from rcnn_cli.commands.group import sections
from rcnn_cli.commands.setting_help import bounds, setting_metavar, setting_values, shown
from rcnn_cli.main import cli
from stages.contract.card import Stage
from stages.contract.catalogue import catalogue

PROJECT = Path(__file__).parents[2]
RECIPES = PROJECT / "recipes"
WIDTH = 100
"""Columns of the commands' help."""

MATHEMATICS: dict[str, dict[str, tuple[str, ...]]] = {
    "Boxes": {"stages.boxes": ("iou_matrix", "clip_boxes", "encode_deltas", "decode_deltas")},
    "R-CNN": {
        "stages.images.warp": ("crop_geometry", "warp_regions"),
        "stages.train_svm.mining": ("mined_images", "hard_negatives", "easy_negatives", "is_due"),
        "stages.train_bbox.ridge": ("whiten", "fit_ridge"),
        "stages.detections.suppression": ("greedy_nms",),
    },
    "Fast R-CNN": {
        "stages.networks.roi_pooling": ("map_boxes", "map_regions", "pooled_regions"),
        "stages.training.sampling": ("draw_examples",),
    },
    "Faster R-CNN": {"stages.anchors": (), "stages.matching.anchors": ("anchor_labels", "anchor_deltas")},
    "OverFeat": {"stages.detections.merging": ("normalised_match", "merge_boxes")},
    "Evaluation": {
        "stages.matching.average_precision": (),
        "stages.eval.operating_points": (),
        "stages.eval.confusion": (),
        "stages.eval.calibration": (),
        "stages.diagnose.false_positives": (),
    },
}
"""What the page on the mathematics shows under each heading: modules, and which of their functions (none: all)."""


def generated_pages() -> dict[str, str]:
    """Markdown by path on the site."""
    return {
        "reference/index.md": "".join(overview()),
        "reference/settings.md": "".join(settings_page()),
        "reference/commands.md": "".join(commands_page()),
        "reference/recipes.md": "".join(recipes_page()),
        "reference/python.md": "".join(python_page()),
        "reference/mathematics.md": "".join(mathematics_page()),
    }


def overview() -> Iterator[str]:
    """What the reference has, and every stage with what it reads and makes."""
    yield "# Reference\n\n"
    yield "[Settings](settings.md), [commands](commands.md) and [recipes](recipes.md) are generated from the code.\n\n"
    yield "| stage | what it does | reads | makes |\n|---|---|---|---|\n"
    for name, stage in catalogue().items():
        reads = ", ".join(" or ".join(wanted.kinds) for wanted in stage.inputs)
        yield f"| [{name}](settings.md#{name}) | {escaped(stage.summary)} | {reads} | {stage.makes} |\n"


def settings_page() -> Iterator[str]:
    """A section per stage, with a table of its settings."""
    yield "# Settings of every stage\n\n"
    yield (
        "In a recipe, a setting is a line in its stage's table; on the command line, an option of its stage's command. "
        "The defaults are the papers', or those of the authors' releases, as the sources say; "
        '"ours" marks what this project chose. A setting is part of the key of the cache unless it says otherwise.\n'
    )
    for stage in catalogue().values():
        yield from stage_section(stage)


def stage_section(stage: Stage) -> Iterator[str]:
    """A stage's summary and settings."""
    yield f"\n## {stage.name}\n\n{stage.summary}\n\n"
    hints = typing.get_type_hints(stage.settings)
    yield "| setting | default | what it is |\n|---|---|---|\n"
    for field in dataclasses.fields(stage.settings):
        yield setting_row(field, hints[field.name])


def setting_row(field: dataclasses.Field[Any], hint: Any) -> str:
    """A line of the table of settings."""
    metadata = field.metadata
    default = f"`{shown(field.default)}`" + ("; some networks have their own" if metadata["of_network"] else "")
    what = [metadata["what"]]
    if values := setting_values(hint, metadata["choices"]):
        what.append(f"One of {', '.join(f'`{value}`' for value in values)}.")
    elif limits := bounds(metadata):
        what.append(f"`{setting_metavar(hint, None)}`, `{limits}`.")
    if metadata["only_with"]:
        setting, *wanted = metadata["only_with"]
        what.append(f"Only with `{setting} = {' or '.join(map(str, wanted))}`.")
    if not metadata["identity"]:
        what.append(
            "The file's content is part of the key." if metadata["by_content"] else "Not part of the cache's key."
        )
    if metadata["source"]:
        what.append(f"*Source: {metadata['source']}.*")
    return f"| `{field.name}` | {escaped(default)} | {escaped(' '.join(what))} |\n"


def commands_page() -> Iterator[str]:
    """The help of every command, under the headings of `rcnn --help`."""
    yield "# Commands\n\n```text\n" + help_of(cli, "rcnn") + "\n```\n"
    for heading, names in sections().items():
        yield f"\n## {heading}\n"
        for name in names:
            yield from command_section(f"rcnn {name}", cli.commands[name])


def command_section(title: str, command: click.Command) -> Iterator[str]:
    """A command's help, and that of its subcommands."""
    yield f"\n### {title}\n\n```text\n{help_of(command, title)}\n```\n"
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from command_section(f"{title} {name}", inner)


def help_of(command: click.Command, title: str) -> str:
    """What `TITLE --help` prints."""
    context = click.Context(command, info_name=title, terminal_width=WIDTH, max_content_width=WIDTH)
    return command.get_help(context)


def recipes_page() -> Iterator[str]:
    """Every recipe and grid that comes along, with its text."""
    yield "# Recipes that come along\n"
    for heading, folder in (("Recipes", RECIPES), ("Grids", RECIPES / "grids")):
        yield f"\n## {heading}\n"
        for path in sorted(folder.glob("*.toml")):
            text = path.read_text(encoding="utf-8").rstrip()
            yield f"\n### {path.stem}\n\n{description(text)}\n\n```toml\n{text}\n```\n"


def description(text: str) -> str:
    """A recipe's own `description`, "" if it has none."""
    found = re.search(r'^description = "(.*)"$', text, re.MULTILINE)
    return found[1] if found else ""


def python_page() -> Iterator[str]:
    """The public names of `rcnn`, and of `cache` below it."""
    yield "# Python, name by name\n\n[Python](../python.md) shows how they are used together.\n"
    for name in sorted(rcnn.__all__, key=lambda name: not name.islower()):  # functions before classes
        defined = getattr(rcnn, name)
        heading = {"show_root_heading": "true", "heading": f"rcnn.{name}", "toc_label": f"rcnn.{name}"}
        yield "\n" + docstrings(f"{defined.__module__}.{defined.__qualname__}", (), heading_level=2, **heading)
    yield "\n## cache\n\nThe files are described in [Caches](../caches.md).\n\n"
    yield docstrings("cache", ("open", "Reader"), heading_level=3)


def mathematics_page() -> Iterator[str]:
    """The functions from arrays to arrays that the papers' equations and rules have become."""
    yield "# The mathematics\n\n"
    yield "Functions from arrays to arrays, without files or state; tests check them on arrays worked out by hand.\n"
    for heading, modules in MATHEMATICS.items():
        yield f"\n## {heading}\n"
        for module, members in modules.items():
            yield f"\n### {module}\n\n{docstrings(module, members, heading_level=4)}"


def docstrings(path: str, members: Sequence[str], heading_level: int, **heading: str) -> str:
    """What mkdocstrings makes a page of: the docstrings of a module or an object, and of its public `members`, all or
    those named. Without options for its `heading`, it has none."""
    options = {"heading_level": str(heading_level), **(heading or {"show_root_heading": "false"})}
    if not heading:
        options["show_root_toc_entry"] = "false"
    if members:
        options["members"] = f"[{', '.join(members)}]"
    return f"::: {path}\n    options:\n" + "".join(f"      {name}: {value}\n" for name, value in options.items())


def escaped(text: str) -> str:
    """The text as a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")
