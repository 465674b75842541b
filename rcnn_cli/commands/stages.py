"""One command per stage, with the stage's settings as options."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import click

from rcnn_cli.commands.completion import complete_value
from rcnn_cli.commands.group import SETTING, StageCommand
from rcnn_cli.commands.options import (
    adopt_option,
    dask_options,
    execution_options,
    load_graph,
    log_to_option,
    make_options,
    recipe_argument,
    split_option,
)
from rcnn_cli.commands.setting_help import setting_help, setting_metavar, setting_values, toml_value
from stages.contract.card import Stage
from stages.contract.catalogue import catalogue

OPTIONS_OF_KINDS = {
    "detections": (
        click.option("--draw", is_flag=True, help="Draw the detections on the images, into results/ in --work."),
    )
}
"""Extra options of a stage's command, by what the stage makes."""


def stage_command(stage: Stage) -> click.Command:
    """The command of one stage, with its settings as options beside those common to all stages."""

    @click.pass_context
    def command(
        context: click.Context,
        recipe: Path,
        changes: tuple[str, ...],
        work: Path | None,
        split: str | None,
        force: bool,
        shard: str | None,
        draw: bool = False,
        **options: Any,
    ) -> None:
        from rcnn_cli.looking.results import draw_results, show_results
        from rcnn_cli.recipes.recipe import load_recipe
        from rcnn_cli.running.runner import remove, run_alone
        from rcnn_cli.running.splits import warn_of_shared_images

        changed = {name: options.pop(setting_option(name)) for name in setting_names(stage)}
        uses = [
            use for use in load_recipe(recipe, changes).uses.values() if use.stage is stage or use.name == stage.name
        ]
        graph = load_graph(recipe, [*changes, *setting_changes(uses, changed)], work)
        nodes = graph.select(stage.name, split)
        graph.check(nodes)
        made = make_options(graph.makers(nodes), shard=shard, **{**options, "adopt": options["adopt"] and not force})
        warn_of_shared_images(graph, nodes)
        for node in nodes:
            if force:
                remove(graph, node)
            finished = run_alone(graph, node, made)
            if finished and draw:
                draw_results(graph, node)
        if made.execution.rank == 0:
            show_results(graph, nodes)

    command.__doc__ = f"{stage.summary}\n\n\b\nExample: rcnn {stage.name} {stage.example}"
    tracked = log_to_option(command) if stage.log is not None else command
    decorated = recipe_argument(
        execution_options(dask_options(adopt_option(tracked)), "batch_size" not in setting_names(stage))
    )
    decorated = split_option("Only this dataset of the recipe  [default: all that the stage needs]")(decorated)
    decorated = click.option(
        "--force",
        is_flag=True,
        help="Delete the cache first and recompute all of it, without copying records from other caches.",
    )(decorated)
    decorated = click.option(
        "--shard",
        envvar="RCNN_SHARD",
        metavar="I/N",
        help="Make only every N-th part, starting with the I-th; `array`: numbered by this array-job task  "
        "[default: $RCNN_SHARD, else all]",
    )(decorated)
    for option in OPTIONS_OF_KINDS.get(stage.makes, ()):
        decorated = option(decorated)
    for option in reversed(setting_options(stage)):
        decorated = option(decorated)
    return click.command(name=stage.name, cls=StageCommand, short_help=stage.summary)(decorated)


def setting_names(stage: Stage) -> list[str]:
    """The names of the stage's settings."""
    return [field.name for field in dataclasses.fields(stage.settings)]


def setting_option(name: str) -> str:
    """The name of the click parameter for a setting."""
    return f"{SETTING}{name}"


def setting_options(stage: Stage) -> list[Callable[..., Any]]:
    """A click option per setting of the stage."""
    hints = get_type_hints(stage.settings)
    return [
        click.option(
            "--" + field.name.replace("_", "-"),
            setting_option(field.name),
            metavar=setting_metavar(hints[field.name], field.metadata["choices"]),
            shell_complete=complete_value(setting_values(hints[field.name], field.metadata["choices"])),
            help=setting_help(field),
        )
        for field in dataclasses.fields(stage.settings)
    ]


def setting_changes(uses: Sequence[Any], changed: dict[str, str | None]) -> list[str]:
    """The equivalent `--set` changes of settings given as options, for every use of the stage and every split."""
    changes = []
    for name, given in changed.items():
        if given is None:
            continue
        for use in uses:
            value = toml_value(get_type_hints(use.stage.settings)[name], given)
            changes.append(f"{use.name}.{name}={value}")
            changes += [f"{use.name}.{split}.{name}={value}" for split in use.split_settings]
    return changes


COMMANDS = tuple(stage_command(stage) for stage in catalogue().values())
