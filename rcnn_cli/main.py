"""`rcnn`: the command line. Here, and only here, an exception ends as a sentence and an exit code (sentences.py)."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import click

from rcnn_cli.commands.completion import (
    complete_cache,
    complete_image,
    complete_source,
    complete_source_option,
    complete_split,
    complete_table,
    complete_toml,
    complete_value,
)
from rcnn_cli.commands.group import SETTING, Commands, StageCommand
from rcnn_cli.commands.options import (
    adopt_option,
    dask_options,
    execution_options,
    load_graph,
    load_graphs,
    make_options,
    recipe_argument,
    recipe_options,
    table_option,
)
from rcnn_cli.commands.setting_help import setting_help, setting_metavar, setting_values, toml_value
from rcnn_cli.sentences import (
    BAD_INPUT,
    BROKEN_PIPE,
    INCOMPLETE,
    INTERRUPTED,
    OK,
    TERMINATED,
    explain,
    kept,
    sentence,
    verbose,
)
from rcnn_cli.streams import OutputLost, give_up_output, prepare
from stages.contract.card import Stage
from stages.contract.catalogue import catalogue
from stages.contract.errors import StageError
from stages.networks import NETWORKS, PREPROCESSINGS

PATIENCE = 10.0  # seconds that an interrupted process has to end in order
COUNTING = 2.0  # seconds more to count what it leaves

EPILOG = """Examples:

\b
  rcnn plan recipes/shapes.toml                    what it will take: images, boxes, disk, time
  rcnn run recipes/shapes.toml                     every stage of the demo, resumed where it was
  rcnn extract recipes/shapes.toml --padding 0     one stage, one setting changed: a new cache
  rcnn status recipes/shapes.toml                  what is complete, what is not, and why
"""


@click.group(
    cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="rcnn")
@click.option("-v", "--verbose", is_flag=True, help="Say more, and show the traceback of a bug.")
def cli(verbose: bool) -> None:
    """R-CNN as a pipeline of cached stages: every stage reads and writes HDF5 and resumes on its own.

    A recipe, a TOML file, names the data, the network and the stages to run, with their settings; recipes/shapes.toml
    is the demo's.
    """
    set_up_logging(verbose)


# Commands


@cli.command(short_help="Run all stages of a recipe; skip what is complete.")
@recipe_argument
@execution_options
@dask_options
@adopt_option
@click.option(
    "--only",
    metavar="CACHE",
    shell_complete=complete_cache,
    help="Only this cache, as `rcnn status` names it; its inputs must be complete  [default: all]",
)
@click.option(
    "--shard", metavar="I/N", help="With --only: make only every N-th part, beginning with the I-th  [default: all]"
)
def run(
    recipe: Path, changes: tuple[str, ...], work: Path | None, only: str | None, shard: str | None, **options: Any
) -> None:
    """Run all stages of RECIPE in order; what is complete is skipped.

    \b
    Example: rcnn run recipes/shapes.toml --jobs 2
    """
    from rcnn_cli.looking.results import show_results
    from rcnn_cli.running.runner import complete, run_alone, run_nodes, run_until_shown

    if shard and not only:
        raise StageError("--shard: splits one cache; name it with --only, or use the stage's own command")
    graph = load_graph(recipe, changes, work)
    nodes = graph.caches()
    if only:
        chosen = graph.select(only)
        made = make_options(graph.makers(chosen), shard=shard, **options)
        finished = [run_alone(graph, node, made) for node in chosen]
        if all(finished) and made.execution.rank == 0:
            show_results(graph, nodes if any(node.use.stage.makes == "evaluation" for node in chosen) else chosen)
        return
    graph.open_own_data()
    missing = [node for node in nodes if not complete(graph, node)]
    made = make_options(graph.makers(missing), **options)
    if made.execution.rank:
        run_nodes(graph, nodes, made)
        return
    if not missing:
        click.echo(f"Everything was complete: nothing to do for {recipe}.")
    run_until_shown(graph, nodes, made, lambda: show_results(graph, nodes))


def add_stage_command(stage: Stage) -> None:
    """The command of one stage: its settings are options, besides those of every stage."""

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

        changed = {name: options.pop(setting_option(name)) for name in setting_names(stage)}
        uses = [
            use for use in load_recipe(recipe, changes).uses.values() if use.stage is stage or use.name == stage.name
        ]
        graph = load_graph(recipe, [*changes, *setting_changes(uses, changed)], work)
        nodes = graph.select(stage.name, split)
        made = make_options(graph.makers(nodes), shard=shard, **{**options, "adopt": options["adopt"] and not force})
        for node in nodes:
            if force:
                remove(graph, node)
            finished = run_alone(graph, node, made)
            if finished and draw:
                draw_results(graph, node)
        if made.execution.rank == 0:
            show_results(graph, nodes)

    command.__doc__ = f"{stage.summary}\n\n\b\nExample: rcnn {stage.name} {stage.example}"
    decorated = recipe_argument(
        execution_options(dask_options(adopt_option(command)), "batch_size" not in setting_names(stage))
    )
    decorated = click.option(
        "--split",
        metavar="NAME",
        shell_complete=complete_split,
        help="Only this dataset of the recipe  [default: all that are needed]",
    )(decorated)
    decorated = click.option("--force", is_flag=True, help="Remove the cache first; compute it anew, copying nothing.")(
        decorated
    )
    decorated = click.option(
        "--shard",
        envvar="RCNN_SHARD",
        metavar="I/N",
        help="Make only every N-th part, beginning with the I-th; `array`: as this task of an array job is numbered  "
        "[default: $RCNN_SHARD, else all]",
    )(decorated)
    if stage.makes == "detections":
        decorated = click.option(
            "--draw", is_flag=True, help="Draw the detections on the images, into results/ of --work."
        )(decorated)
    for option in reversed(setting_options(stage)):
        decorated = option(decorated)
    cli.command(name=stage.name, cls=StageCommand, short_help=stage.summary)(decorated)


def setting_names(stage: Stage) -> list[str]:
    """The stage's settings."""
    return [field.name for field in dataclasses.fields(stage.settings)]


def setting_option(name: str) -> str:
    """The parameter that carries a setting given on the command line."""
    return f"{SETTING}{name}"


def setting_options(stage: Stage) -> list[Callable[..., Any]]:
    """A click option for each of the stage's settings."""
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
    """`--set` changes for settings given as options: for every use of the stage, on every split."""
    changes = []
    for name, given in changed.items():
        if given is None:
            continue
        for use in uses:
            value = toml_value(get_type_hints(use.stage.settings)[name], given)
            changes.append(f"{use.name}.{name}={value}")
            changes += [f"{use.name}.{split}.{name}={value}" for split in use.split_settings]
    return changes


for each in catalogue().values():
    add_stage_command(each)


@cli.command(short_help="Say what is complete, what is not, and why.")
@recipe_argument
@click.option("--json", "as_json_text", is_flag=True, help="Print JSON, for programs to read.")
def status(recipe: Path, changes: tuple[str, ...], work: Path | None, as_json_text: bool) -> None:
    """Say for each cache of RECIPE: complete, how far, missing or damaged, and why. Exit status 1 unless all complete.

    \b
    Example: rcnn status recipes/shapes.toml --json
    """
    from rcnn_cli.running.status import describe, format_status

    states = describe(load_graph(recipe, changes, work))
    click.echo(format_status(states, as_json_text))
    if any(state.state not in ("complete", "on demand") for state in states):
        raise SystemExit(INCOMPLETE)


@cli.command(short_help="Say what a recipe will take: images, boxes, disk, time.")
@recipe_argument
@execution_options
@click.option(
    "--sample", type=click.IntRange(1), metavar="N", help="Images of each split to measure  [default: 8, or 4 per job]"
)
@click.option("--json", "as_json_text", is_flag=True, help="Print JSON, for programs to read.")
def plan(
    recipe: Path,
    changes: tuple[str, ...],
    work: Path | None,
    sample: int | None,
    as_json_text: bool,
    **options: Any,
) -> None:
    """Say what each cache of RECIPE will take, before anything is run. Exit status 1 if the disk has no room for it.

    A few images of each split go through the real stages in a temporary folder ($TMPDIR). Datasets that the project
    draws are drawn, as `rcnn run` would.

    \b
    Example: rcnn plan recipes/shapes.toml --sample 8
    """
    from rcnn_cli.running.planning import format_plan, make_plan
    from rcnn_cli.running.runner import size
    from rcnn_cli.running.waiting import is_complete

    graph = load_graph(recipe, changes, work)
    graph.open_own_data()
    missing = [node for node in graph.caches() if not is_complete(graph, node)]
    made = make_plan(graph, make_options(graph.makers(missing), **options), sample, logging.getLogger("rcnn").info)
    click.echo(format_plan(made, graph.work, as_json_text))
    if not made.fits:
        logging.getLogger("rcnn").warning(
            "%s: THE DISK IS TOO SMALL: %s are free of the %s to be written; make room, name another --work, or see "
            "`cache = false` and --compression", graph.work, size(made.bytes_free), size(made.bytes_left)
        )  # fmt: skip
        raise SystemExit(INCOMPLETE)


@cli.command(short_help="Say how well proposals cover the objects: recall against IoU.")
@click.argument("recipes", nargs=-1, required=True, type=click.Path(path_type=Path), shell_complete=complete_toml)
@recipe_options
@click.option(
    "--split",
    metavar="NAME",
    default="test",
    show_default=True,
    shell_complete=complete_split,
    help="The dataset of the recipes that is measured on.",
)
@click.option(
    "--counts",
    default="300,1000,2000",
    show_default=True,
    metavar="N,...",
    help="How many proposals of an image, the first, recall is told for.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The folder to write to  [default: results/recall in --work]",
)
@click.option("--json", "as_json_text", is_flag=True, help="Print JSON, for programs to read.")
def recall(
    recipes: tuple[Path, ...],
    changes: tuple[str, ...],
    work: Path | None,
    split: str,
    counts: str,
    output: Path | None,
    as_json_text: bool,
) -> None:
    """Say how well the proposals of RECIPES cover the objects: recall by IoU, average recall, by size and class.

    All their caches of proposals are drawn in one figure, recall.png; recall.csv and recall.json have the numbers. The
    first N proposals are those of the cache's order; whether that is a ranking is said below the table.

    \b
    Examples: rcnn recall recipes/shapes.toml
              rcnn recall quality.toml fast.toml --split val --counts 100,1000 -o recall/
    """
    from rcnn_cli.looking.recall import measure, parse_counts, tell

    wanted = parse_counts(counts)
    measured = measure([load_graph(recipe, changes, work) for recipe in recipes], split, wanted)
    click.echo(tell(measured, output, as_json_text))


@cli.command(short_help="Show the regions that excite units of a convolutional layer most.")
@recipe_argument
@click.option(
    "--unit",
    "units",
    multiple=True,
    metavar="ROW,COLUMN,CHANNEL",
    help="A unit of the layer, each number from 1; repeatable.",
)
@click.option(
    "--montage",
    type=click.IntRange(1),
    metavar="N",
    help="Show the N most class-selective units  [default: 12 without --unit]",
)
@click.option("--layer", metavar="LAYER", help="A cached convolutional layer  [default: the deepest]")
@click.option(
    "--split",
    metavar="NAME",
    default="test",
    show_default=True,
    shell_complete=complete_split,
    help="The dataset of the recipe whose regions are searched.",
)
@table_option("--features", "features", "The recipe's extract table to use  [default: the main detector's]")
@click.option(
    "--top", type=click.IntRange(1), default=16, show_default=True, metavar="N", help="Regions shown for each unit."
)
@click.option(
    "--overlap",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    metavar="IOU",
    help="Regions of one image that a stronger one overlaps by more are left out; the authors' tool takes 0.1.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The folder to write to  [default: results/RECIPE/units in --work]",
)
@click.option("--json", "as_json_text", is_flag=True, help="Print JSON, for programs to read.")
def units(
    recipe: Path,
    changes: tuple[str, ...],
    work: Path | None,
    units: tuple[str, ...],
    montage: int | None,
    layer: str | None,
    split: str,
    features: str | None,
    top: int,
    overlap: float,
    output: Path | None,
    as_json_text: bool,
) -> None:
    """Show the regions of a split that excite units of a convolutional layer most: R-CNN's figures 4 and 12.

    Reads RECIPE's cache of features. Each region is drawn as the network saw it, with the unit's receptive field in
    white and its activation, divided by the largest of its channel.

    \b
    Examples: rcnn units recipes/shapes.toml
              rcnn units recipes/voc2007-alexnet.toml --layer pool5 --unit 3,4,80 --unit 4,5,110 --top 96
    """
    from rcnn_cli.looking.units import show_units

    graph = load_graph(recipe, changes, work)
    click.echo(show_units(graph, split, layer, features, units, montage, top, overlap, output, as_json_text))


@cli.command(short_help="Draw the paper's figures of recipes: detections, filters, box plots, transformations.")
@click.argument("recipes", nargs=-1, required=True, type=click.Path(path_type=Path), shell_complete=complete_toml)
@recipe_options
@click.option(
    "--only",
    metavar="NAME,...",
    help="Only these: detections, filters, transformations, training-samples, box-plots, precision-recall  "
    "[default: all]",
)
@click.option(
    "--precision",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Draw the detections whose score has this precision or more on the whole split; of an image without such "
    "the best, in thin lines.",
)
@click.option(
    "--image", "images", multiple=True, metavar="ID", help="An image for detections and transformations; repeatable."
)
@click.option(
    "--images",
    "count",
    type=click.IntRange(1),
    default=12,
    show_default=True,
    metavar="N",
    help="How many random images, without --image.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Seed of every random choice."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The folder to write to  [default: results/figures in --work]",
)
def figures(
    recipes: tuple[Path, ...],
    changes: tuple[str, ...],
    work: Path | None,
    only: str | None,
    precision: float,
    images: tuple[str, ...],
    count: int,
    seed: int,
    output: Path | None,
) -> None:
    """Draw R-CNN's figures, of what RECIPES have made, as PNGs. Exit status 1 if one that --only names, or all, failed.

    What cannot be drawn, because a cache is not complete or a recipe has no such table, is said in a line.

    \b
    Examples: rcnn figures recipes/shapes.toml
              rcnn figures recipes/shapes.toml recipes/shapes-finetuned.toml --only box-plots -o out/
              rcnn figures recipes/shapes.toml --only detections --image test_00003 --precision 0.8
    """
    from rcnn_cli.looking.figures import Wish, draw_figures, figure_names
    from rcnn_cli.outputs import OutputFolder
    from rcnn_cli.running.runner import work_folder

    names = figure_names(only)
    graphs = [load_graph(recipe, changes, work) for recipe in recipes]
    folder = OutputFolder(output or work_folder(work) / "results" / "figures", given=output is not None)
    drawn = []
    for one in draw_figures(graphs, names, Wish(precision, images, count, seed, folder)):
        click.echo(one)
        drawn.append(bool(one.paths))
    if not all(drawn) if only else not any(drawn):
        raise SystemExit(INCOMPLETE)


@cli.command(short_help="Make a page of HTML of what recipes gave: tables, curves, errors, a gallery of detections.")
@click.argument("recipes", nargs=-1, required=True, type=click.Path(path_type=Path), shell_complete=complete_toml)
@recipe_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The folder to write to  [default: results/RECIPE/report in --work]",
)
def report(recipes: tuple[Path, ...], changes: tuple[str, ...], work: Path | None, output: Path | None) -> None:
    """Make one page of HTML, index.html, of what RECIPES gave; it needs no network and opens from disk.

    All their evaluations stand side by side: settings and caches, AP, precision-recall curves, error analysis, recall
    of the proposals, training, a gallery of detections to be filtered, best and worst images.

    \b
    Examples: rcnn report recipes/shapes.toml
              rcnn report recipes/shapes.toml recipes/shapes-finetuned.toml -o report/
    """
    from rcnn_cli.report.page import make_report
    from rcnn_cli.report.runs import load_recipes

    page, reused = make_report(load_recipes(recipes, changes, work), changes, output)
    click.echo(f"Report{' (reused, its caches are the same)' if reused else ''}: {page}")


@cli.command(short_help="Say where two runs differ: settings, AP with intervals, errors, single images.")
@click.argument("a", type=click.Path(path_type=Path), shell_complete=complete_toml)
@click.argument("b", type=click.Path(path_type=Path), shell_complete=complete_toml)
@recipe_options
@table_option("--evaluation", "evaluation", "The evaluation to compare  [default: the main detector's]")
@table_option("--evaluation-b", "evaluation", "The evaluation of B  [default: as --evaluation]")
@click.option(
    "--resamples",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    metavar="N",
    help="How often the images are resampled for the intervals.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The folder to write to  [default: in results/ of --work]"
)
@click.option("--json", "as_json_text", is_flag=True, help="Print JSON, for programs to read.")
def compare(
    a: Path,
    b: Path,
    changes: tuple[str, ...],
    work: Path | None,
    evaluation: str | None,
    evaluation_b: str | None,
    resamples: int,
    output: Path | None,
    as_json_text: bool,
) -> None:
    """Say where the recipes A and B differ: settings, AP of each class with intervals, types of errors, single images.

    A and B may be one recipe with two evaluations. Writes compare.json, compare.csv, images.csv, better.png, worse.png.

    \b
    Examples: rcnn compare recipes/shapes.toml recipes/shapes-finetuned.toml
              rcnn compare r.toml r.toml --evaluation eval-without-bbox --evaluation-b eval
    """
    from rcnn_cli.looking.comparison import compare as compare_sides
    from rcnn_cli.looking.comparison import open_sides, tell

    first, second = load_graph(a, changes, work), load_graph(b, changes, work)
    sides = open_sides(first, second, evaluation, evaluation_b)
    click.echo(tell(*sides, compare_sides(*sides, resamples), output, as_json_text))


@cli.command(short_help="Run a grid of settings: one table beside the papers' numbers.")
@click.argument("grid", type=click.Path(path_type=Path), shell_complete=complete_toml)
@click.option(
    "--recipe",
    type=click.Path(path_type=Path),
    shell_complete=complete_toml,
    help="The base recipe  [default: the one that the grid names]",
)
@click.option("--seeds", metavar="N,...", help="Run every cell once with each of these seeds  [default: the grid's]")
@recipe_options
@execution_options
@dask_options
@adopt_option
@click.option("--dry-run", is_flag=True, help="Only say how many caches there are to make and to share.")
@click.option("--json", "as_json_text", is_flag=True, help="Print JSON, for programs to read.")
def ablate(
    grid: Path,
    recipe: Path | None,
    seeds: str | None,
    changes: tuple[str, ...],
    work: Path | None,
    dry_run: bool,
    as_json_text: bool,
    **options: Any,
) -> None:
    """Run every cell of GRID, sharing every cache that can be shared, and print one table. Exit status 1 if one failed.

    The table is also written to ablations/ in the work folder (Markdown, CSV, JSON).

    \b
    Examples:
      rcnn ablate recipes/grids/shapes-table2.toml --dry-run
      rcnn ablate recipes/grids/shapes-table2.toml --seeds 0 --set datasets.test.images=20
      rcnn ablate recipes/grids/table2.toml --recipe my-recipe.toml --device cuda
    """
    from rcnn_cli.experiments.ablation import base_recipe, make_plan
    from rcnn_cli.experiments.grid import load_grid
    from rcnn_cli.running.runner import work_folder

    loaded = load_grid(grid, seeds)
    plan = make_plan(loaded, base_recipe(loaded, recipe), changes, work_folder(work), explain)
    name = f"{grid.stem}-{recipe.stem}" if recipe else grid.stem
    run_plan(plan, name, changes, dry_run, as_json_text, options)
    if plan.failed:
        raise SystemExit(INCOMPLETE)


def run_plan(
    plan: Any, name: str, changes: Sequence[str], dry_run: bool, as_json_text: bool, options: dict[str, Any]
) -> Sequence[Any]:
    """Says what there is to make, makes it, prints and writes the table; its rows (none of a dry run)."""
    import json

    from rcnn_cli.experiments import ablation_table
    from rcnn_cli.experiments.ablation import execute

    counts = plan.counts()
    if dry_run:
        told = ablation_table.counts_json(plan, counts) if as_json_text else None
        click.echo(json.dumps(told, indent=2) if told else ablation_table.format_counts(plan, counts))
        return []
    logging.getLogger("rcnn").info(ablation_table.format_counts(plan, counts))
    made = make_options(plan.makers(), **options)
    rows = execute(plan, made, explain)
    if made.execution.rank:
        return []
    if as_json_text:
        click.echo(json.dumps(ablation_table.as_json(plan, rows, changes), indent=2, ensure_ascii=False))
    else:
        click.echo(ablation_table.format_text(plan, rows))
    for path in ablation_table.write_tables(plan, rows, changes, plan.work, name):
        logging.getLogger("rcnn").info("written: %s", path)
    return rows


@cli.command(short_help="Choose settings on a validation split, for a new recipe.")
@recipe_argument
@execution_options
@dask_options
@adopt_option
@click.option(
    "--split",
    metavar="NAME",
    default="val",
    show_default=True,
    shell_complete=complete_split,
    help="The dataset of the recipe to choose them on.",
)
@click.option(
    "--evaluation",
    metavar="NAME",
    shell_complete=complete_table("evaluation"),
    help="The evaluation of the detector to tune  [default: the main detector's]",
)
@click.option(
    "--negative-overlap",
    default="0,0.1,0.2,0.3,0.4,0.5",
    show_default=True,
    metavar="X,...",
    help="Values of train-svm.negative_overlap to try.",
)
@click.option(
    "--c", "cost", default="0.0001,0.001,0.01", show_default=True, metavar="X,...", help="Values of train-svm.C to try."
)
@click.option(
    "--nms-iou", default="0.2,0.3,0.4,0.5", show_default=True, metavar="X,...", help="Values of detect.nms_iou to try."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The recipe to write  [default: NAME-tuned.toml]")
@click.option("--force", is_flag=True, help="Replace the recipe to write if it is there.")
@click.option("--dry-run", is_flag=True, help="Only say how many caches there are to make and to share.")
@click.option("--json", "as_json_text", is_flag=True, help="Print JSON, for programs to read.")
def tune(
    recipe: Path,
    changes: tuple[str, ...],
    work: Path | None,
    split: str,
    evaluation: str | None,
    negative_overlap: str,
    cost: str,
    nms_iou: str,
    output: Path | None,
    force: bool,
    dry_run: bool,
    as_json_text: bool,
    **options: Any,
) -> None:
    """Search RECIPE's SVM and suppression settings on a validation split; write a recipe with the best of them.

    \b
    Examples:
      rcnn tune recipes/shapes.toml --split val -o shapes-tuned.toml
      rcnn tune recipes/shapes.toml --c 0.001 --nms-iou 0.3 --dry-run
    """
    from rcnn_cli.experiments.ablation import evaluation_of, make_plan
    from rcnn_cli.experiments.tuning import best_row, check_output, check_split, parse_values, tuning_grid, write_tuned
    from rcnn_cli.looking.evaluated import evaluation_node
    from rcnn_cli.recipes.detectors import choice_told, detector_of

    values = {
        "negative_overlap": ("--negative-overlap", negative_overlap),
        "C": ("--c", cost),
        "nms_iou": ("--nms-iou", nms_iou),
    }
    searched = {name: parse_values(option, text) for name, (option, text) in values.items()}
    output = output or recipe.with_name(f"{recipe.stem}-tuned.toml")
    graph = load_graph(recipe, changes, work)
    check_output(recipe, output, force or dry_run)
    node = evaluation_of(graph, evaluation) if evaluation else evaluation_node(graph)
    if choice_told(graph, detector_of(node)) and not evaluation:
        logging.getLogger("rcnn").info("tuned is [%s] by [%s]", detector_of(node).use.name, node.use.name)
    check_split(graph, node, split)
    plan = make_plan(tuning_grid(graph, node, split, searched), recipe, changes, graph.work, explain)
    rows = run_plan(plan, f"tune-{recipe.stem}", changes, dry_run, as_json_text, options)
    if plan.failed:
        logging.getLogger("rcnn").warning("nothing chosen and no recipe written: not all combinations could be tried")
        raise SystemExit(INCOMPLETE)
    if rows:
        best = best_row(rows)
        write_tuned(graph, output, best, split, len(rows), changes, force)
        logging.getLogger("rcnn").info("best on '%s': %s; written: %s", split, ", ".join(best.cell.words()), output)


@cli.command(short_help="Submit a recipe to Slurm: a job for each missing cache.")
@recipe_argument
@click.option(
    "--cluster",
    type=click.Path(path_type=Path),
    default=Path("cluster.toml"),
    show_default=True,
    shell_complete=complete_toml,
    help="The file that says what each stage asks of Slurm.",
)
@click.option("--dry-run", is_flag=True, help="Print the scripts and submit nothing; needs no Slurm.")
def submit(recipe: Path, changes: tuple[str, ...], work: Path | None, cluster: Path, dry_run: bool) -> None:
    """Submit RECIPE to Slurm: a job or array of jobs for each cache that is not complete, each after its inputs.

    \b
    Example: rcnn submit recipes/shapes.toml --cluster cluster.toml --dry-run
    """
    from rcnn_cli.clusters.cluster_file import load_cluster
    from rcnn_cli.clusters.jobs import Submitter, alone, scripts
    from rcnn_cli.clusters.slurm_scripts import Submission

    graph = load_graph(recipe, changes, work)
    wanted = load_cluster(cluster, graph.recipe)
    submission = Submission(recipe, graph.recipe.name, changes, graph.work.absolute(), Path.cwd())
    if dry_run:
        click.echo("\n".join(scripts(graph, wanted, submission)), nl=False)
        return
    with alone(graph.work, click.echo):
        count = Submitter(graph, wanted, submission, click.echo).submit()
    click.echo(f"{count} jobs submitted; `rcnn status {recipe}` follows them, their output: {submission.logs}/")


@cli.command(short_help="Cancel the jobs of a recipe; what is finished is kept.")
@recipe_argument
def cancel(recipe: Path, changes: tuple[str, ...], work: Path | None) -> None:
    """Cancel the jobs of RECIPE that are queued or running; what is finished is kept.

    \b
    Example: rcnn cancel recipes/shapes.toml
    """
    from rcnn_cli.clusters.jobs import alone
    from rcnn_cli.clusters.jobs import cancel as cancel_recipe
    from rcnn_cli.recipes.recipe import load_recipe
    from rcnn_cli.running.runner import work_folder

    folder, name = work_folder(work), load_recipe(recipe, changes).name
    with alone(folder, click.echo):
        jobs = cancel_recipe(folder, name)
    click.echo(f"Cancelled: {', '.join(jobs)}" if jobs else f"{recipe}: no job is queued or running")


@cli.command(short_help="Wait until a stage's caches are complete, whoever makes them.")
@recipe_argument
@click.argument("stage", shell_complete=complete_cache)
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS", help="Give up after so long  [default: never]")
def wait(recipe: Path, changes: tuple[str, ...], work: Path | None, stage: str, timeout: float | None) -> None:
    """Wait until STAGE's caches of RECIPE are complete, whoever makes them. Exit status 1 if --timeout comes first.

    STAGE is a stage, a table of the recipe, or a cache as `rcnn status` names it.

    \b
    Example: rcnn wait recipes/shapes.toml extract@train --timeout 3600
    """
    from rcnn_cli.running.runner import not_cached
    from rcnn_cli.running.waiting import wait_for

    graph = load_graph(recipe, changes, work)
    nodes = graph.select(stage)
    cached = [node for node in nodes if graph.is_cached(node)]
    if not cached:
        raise StageError(f"{nodes[0].name}: {not_cached(graph, nodes[0])}; wait for that")
    if not wait_for(graph, cached, timeout, logging.getLogger("rcnn").info):
        raise SystemExit(INCOMPLETE)


@cli.command(hidden=True)
def task() -> None:
    """Make parts of a cache as a Dask worker's process: a job on standard input, messages on standard output."""
    from rcnn_cli.clusters.dask_task import work

    work()


@cli.command(short_help="Show what a cache, a part, a recipe, a grid, results or an image is.")
@click.argument("file", type=click.Path(path_type=Path))
def inspect(file: Path) -> None:
    """Show what FILE is: a cache's folder, part, view or manifest; a recipe or a grid; JSON; an image.

    \b
    Examples: rcnn inspect work/caches/extract/shapes-train.3fa9c1d2be04
              rcnn inspect work/results/shapes/eval/results.json
    """
    from rcnn_cli.looking.inspection import inspect_file

    click.echo(inspect_file(file))


@cli.command(short_help="Detect objects in photos and videos: PNGs with boxes, JSON.")
@recipe_argument
@click.argument("photos", nargs=-1, required=True, type=click.Path())
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("out"),
    show_default=True,
    help="The folder to write to.",
)
@table_option("--detector", "detections", "The detect table to use  [default: detect, else the recipe's first]")
@click.option(
    "--precision",
    type=click.FloatRange(0, 1),
    help="Draw what scores at least as much as detections of this precision  [default: 0.5, if an evaluation is there]",
)
@click.option(
    "--threshold",
    type=float,
    metavar="SCORE",
    help="Draw what has at least this score  [default: as --precision; without an evaluation 0, of a softmax 0.5]",
)
@click.option(
    "--every",
    type=click.IntRange(1),
    default=30,
    show_default=True,
    metavar="N",
    help="Of a video take each N-th frame.",
)
@execution_options
def predict(
    recipe: Path,
    changes: tuple[str, ...],
    work: Path | None,
    photos: tuple[str, ...],
    output: Path,
    detector: str | None,
    precision: float | None,
    threshold: float | None,
    every: int,
    **options: Any,
) -> None:
    """Detect objects in PHOTOS with RECIPE's trained detector: a PNG with boxes and a JSON file for each.

    PHOTOS are images, videos, folders of them, and patterns in quotes, as 'photos/**/*.jpg'.

    \b
    Examples: rcnn predict recipes/shapes.toml photo.jpg -o out/
              rcnn predict recipes/shapes.toml photos/ clip.mp4 --every 10
    """
    from rcnn_cli.looking.photos import find_photos

    found = find_photos(photos, every)
    from rcnn_cli.looking.prediction import Wish, predict_photos, prepare

    wish = Wish(detector, threshold, precision)
    sound, folder = prepare(found, output, options["skip_bad_images"])
    graph = load_graph(recipe, changes, work)
    made = make_options(list(graph.nodes.values()), **options)
    for line in predict_photos(graph, sound, folder, made.execution, wish):
        click.echo(line)


@cli.command(name="explain", short_help="Say how an image's detections come about, and why objects were missed.")
@recipe_argument
@click.argument("image", shell_complete=complete_image)
@table_option(
    "--evaluation", "evaluation", "The evaluation whose detector is explained  [default: the main detector's]"
)
@table_option(
    "--detector", "detections", "The recipe's detect table, in place of an evaluation  [default: the evaluation's]"
)
@click.option(
    "--split",
    metavar="NAME",
    shell_complete=complete_split,
    help="The dataset of the image  [default: the first that has it]",
)
@click.option(
    "--object", "number", type=int, metavar="N", help="Only the image's N-th object, counted from 1  [default: all]"
)
@click.option("--class", "class_name", metavar="NAME", help="Only objects and detections of this class  [default: all]")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The folder to write to  [default: in results/ of --work]"
)
@click.option("--json", "as_json_text", is_flag=True, help="Print JSON, for programs to read.")
@execution_options
def explain_command(
    recipe: Path,
    changes: tuple[str, ...],
    work: Path | None,
    image: str,
    evaluation: str | None,
    detector: str | None,
    split: str | None,
    number: int | None,
    class_name: str | None,
    output: Path | None,
    as_json_text: bool,
    **options: Any,
) -> None:
    """Say how the detections in IMAGE come about, step by step, and why an object was missed.

    IMAGE is the id of an image in RECIPE's datasets, or a photo's path. Writes IMAGE.png and IMAGE.json.

    \b
    Examples: rcnn explain recipes/shapes.toml test_00016
              rcnn explain recipes/shapes.toml test_00016 --object 2 -o out/
              rcnn explain recipes/shapes.toml photo.jpg
    """
    from rcnn_cli.looking.explanation import choose, computed, explain_image, split_of
    from rcnn_cli.looking.explanation_lines import output_of, tell, tell_lines

    graph = load_graph(recipe, changes, work)
    chosen = choose(graph, evaluation, detector)
    found_in = split_of(chosen, image, split)
    folder, name = output_of(graph, image, found_in, output)
    made = make_options(computed(chosen, found_in), **options)
    explained = explain_image(chosen, image, found_in, made.execution)
    click.echo(tell(explained, tell_lines(explained, number, class_name), folder, name, as_json_text))


@cli.group(name="cache")
def cache_group() -> None:
    """List, verify and clean the caches.

    \b
    Examples: rcnn cache ls
              rcnn cache gc recipes/shapes.toml
    """


@cache_group.command(name="ls", short_help="List all caches with their state, age and size.")
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    help="Folder of the caches and results  [default: $RCNN_WORK, else work/]",
)
def cache_list(work: Path | None) -> None:
    """List all caches: state, when they were finished (UTC) or last written to, age, folder, size.

    \b
    Example: rcnn cache ls
    """
    import time

    from rcnn_cli.running.caches import list_caches
    from rcnn_cli.running.runner import work_folder

    click.echo(list_caches(work_folder(work), time.time()))


@cache_group.command(name="verify", short_help="Read every byte; set damaged parts aside.")
@click.argument("recipe", required=False, type=click.Path(path_type=Path), shell_complete=complete_toml)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    help="Folder of the caches and results  [default: $RCNN_WORK, else work/]",
)
def cache_verify(recipe: Path | None, work: Path | None) -> None:
    """Read every byte of all caches (or of RECIPE's); damaged files are set aside. Exit status 1 if there was one.

    \b
    Example: rcnn cache verify recipes/shapes.toml
    """
    from rcnn_cli.running.caches import verify_caches
    from rcnn_cli.running.runner import work_folder

    folder = work_folder(work)
    graph = load_graph(recipe, (), folder) if recipe else None
    damaged = verify_caches(folder, graph, click.echo)
    if damaged:
        raise SystemExit(INCOMPLETE)


@cache_group.command(name="gc", short_help="Delete the caches that no recipe refers to.")
@click.argument("recipes", nargs=-1, type=click.Path(path_type=Path), shell_complete=complete_toml)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    help="Folder of the caches and results  [default: $RCNN_WORK, else work/]",
)
@click.option("--yes", is_flag=True, help="Delete without asking.")
def cache_gc(recipes: tuple[Path, ...], work: Path | None, yes: bool) -> None:
    """List the caches that none of RECIPES (default: recipes/*.toml) refers to, then delete them.

    A grid of `rcnn ablate` may stand among RECIPES, with the base recipe that it names.

    \b
    Example: rcnn cache gc recipes/shapes.toml recipes/grids/shapes-table2.toml
    """
    from rcnn_cli.running.caches import collect_garbage
    from rcnn_cli.running.runner import work_folder

    folder = work_folder(work)
    collect_garbage(
        folder,
        recipes,
        lambda path: load_graphs(path, folder),
        click.echo,
        lambda: yes or confirmed("Delete these?"),
    )


def confirmed(question: str) -> bool:
    """The answer to a question. Raises StageError where nobody is there to give one."""
    try:
        return click.confirm(question)
    except click.Abort:
        raise StageError("nobody answered, so nothing was done; give --yes to go ahead without the question") from None


@cli.group()
def data() -> None:
    """Check, draw and download datasets.

    \b
    Examples: rcnn data check voc:my-folder:train
              rcnn data shapes shapes/
    """


@data.command(name="check", short_help="Read every image and annotation of a dataset.")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True, shell_complete=complete_source)
@click.option(
    "--classes",
    metavar="A,B",
    help="The classes, or a subset of a COCO or YOLO file's  [default: those that the data names]",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=complete_source_option,
    help="An option of the dataset, as in its table of a recipe, exif=stored for example; repeatable.",
)
def data_check(sources: tuple[str, ...], classes: str | None, changes: tuple[str, ...]) -> None:
    """Read every image and annotation of SOURCE, written as in a recipe. Exit status 1 if there is a problem.

    SOURCE is voc:DIR:SPLIT, coco:ANNOTATIONS.json:IMAGES, yolo:DATA.yaml:SPLIT or another form that docs/recipes.md
    lists; several are checked as one dataset.

    \b
    Examples: rcnn data check voc:VOCdevkit/VOC2007:trainval
              rcnn data check coco:annotations/instances_val2017.json:val2017 --classes cat,dog
              rcnn data check voc:my-folder:train --set exif=stored
    """
    from rcnn_cli.commands.data import check_source
    from rcnn_cli.running.runner import work_folder

    if not check_source(sources, work_folder(None), click.echo, changes, classes):
        raise SystemExit(INCOMPLETE)


@data.command(name="shapes", short_help="Draw the demo's dataset, in the layout of PASCAL VOC.")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change seed, or how many scenes train, val and test have; repeatable.",
)
def data_shapes(directory: Path, changes: tuple[str, ...]) -> None:
    """Draw the project's own detection set into DIRECTORY, in the layout of PASCAL VOC.

    \b
    Example: rcnn data shapes shapes/ --set seed=7
    """
    from rcnn_cli.commands.data import draw_dataset

    click.echo(draw_dataset(directory, changes))


@data.command(name="fetch", short_help="Download PASCAL VOC 2007 or 2012.")
@click.argument("name", type=click.Choice(("voc2007", "voc2012")))
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--mirror", metavar="URL", help="Take the archives from this folder on the web  [default: the official one]"
)
def data_fetch(name: str, directory: Path, mirror: str | None) -> None:
    """Download PASCAL VOC into DIRECTORY: checksums verified, a broken download goes on where it stopped.

    \b
    Example: rcnn data fetch voc2007 data/
    """
    from rcnn_cli.commands.data import fetch_dataset

    click.echo(fetch_dataset(name, directory, mirror))


@cli.group()
def weights() -> None:
    """Import weights of networks, show what a file of them holds.

    \b
    Examples: rcnn weights import torchvision:vgg16 --network onet -o onet.safetensors
              rcnn weights show onet.safetensors
    """


@weights.command(name="import", short_help="Import weights of Caffe, torchvision or a state dict.")
@click.argument("source")
@click.option(
    "--network", required=True, type=click.Choice(tuple(NETWORKS)), help="The network that the weights are of."
)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="The file to be written, .safetensors."
)
@click.option(
    "--preprocessing",
    type=click.Choice(tuple(PREPROCESSINGS)),
    help="What they were trained with  [default: the usual one of a .caffemodel and of torchvision]",
)
@click.option(
    "--mean", metavar="A,B,C", help="Their mean colour, in its channel order and scale  [default: the preprocessing's]"
)
@click.option(
    "--scores", metavar="LAYER", help="The .caffemodel's layer of class scores  [default: fc8, or the only other]"
)
def weights_import(
    source: str, network: str, output: Path, preprocessing: str | None, mean: str | None, scores: str | None
) -> None:
    """Import SOURCE, a .caffemodel, a state dict or torchvision:MODEL, as a file that a recipe's [network] can name.

    \b
    Examples: rcnn weights import bvlc_reference_caffenet.caffemodel --network tnet -o tnet.safetensors
              rcnn weights import torchvision:vgg16 --network onet -o onet.safetensors
    """
    from rcnn_cli.commands.weights import import_file

    click.echo(import_file(source, network, output, preprocessing, mean, scores))


@weights.command(name="show", short_help="Show what a file of weights holds.")
@click.argument("file", type=click.Path(path_type=Path))
def weights_show(file: Path) -> None:
    """Show what a FILE of weights holds, imported or not: source, preprocessing, tensors; checksums are compared.

    \b
    Example: rcnn weights show tnet.safetensors
    """
    from rcnn_cli.commands.weights import show_file

    click.echo(show_file(file))


# From exceptions to sentences


class Handler(logging.Handler):
    """Messages on standard error, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one message."""
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        if "tqdm" in sys.modules and sys.stderr.isatty():
            sys.modules["tqdm"].tqdm.write(text, file=sys.stderr)
        else:
            click.echo(text, err=True)


def set_up_logging(verbose: bool) -> None:
    """The project's own messages; those of libraries only if they are warnings.

    Of several processes that torchrun started the first one speaks for all.
    """
    from rcnn_cli.running.device import torchrun_ranks

    quiet = torchrun_ranks(os.environ)[0] > 0
    for name in ("rcnn", "stages", "cache"):
        logger = logging.getLogger(name)
        logger.handlers = [Handler()]
        logger.propagate = False
        logger.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO)


def stop(number: int, frame: Any) -> None:
    """SIGINT and SIGTERM end the process in order: claims are given back, what is finished stays.

    An exception that a signal raises inside a library may get lost there: what has not ended after PATIENCE is ended.
    """
    code = INTERRUPTED if number == signal.SIGINT else TERMINATED
    if not verbose():
        end_quietly()
    watchdog = threading.Timer(PATIENCE, end_at_once, [code])
    watchdog.daemon = True
    watchdog.start()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(code)


def end_quietly() -> None:
    """From now on threads and destructors say nothing: what they use is taken from under them, in any order."""
    threading.excepthook = lambda _: None
    sys.unraisablehook = lambda _: None
    warnings.simplefilter("ignore")


def end_at_once(code: int) -> None:
    """Ends this process and its children whatever they do; the next run sees that their claims are of the dead."""
    for child in children(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    late = threading.Timer(COUNTING, os._exit, [code])  # should the disk not answer
    late.daemon = True
    late.start()
    click.echo(f"rcnn: {'terminated' if code == TERMINATED else 'interrupted'}; {kept()}", err=True)
    os._exit(code)


def children(parent: int) -> list[int]:
    """The processes that `parent` started and that still run, theirs included (where /proc tells)."""
    try:
        tasks = sorted(Path(f"/proc/{parent}/task").glob("*/children"))
        own = [int(one) for task in tasks for one in task.read_text().split()]
    except OSError:
        return []
    return [*own, *(grandchild for child in own for grandchild in children(child))]


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script."""
    prepare()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
    try:
        code = exit_code(arguments)
        sys.stdout.flush()
    except OutputLost as lost:
        give_up_output()
        if not lost.nobody_reads:
            click.echo(f"rcnn: {lost}", err=True)
        code = BROKEN_PIPE if lost.nobody_reads else BAD_INPUT
    sys.exit(code)


def exit_code(arguments: Sequence[str] | None) -> int:
    """Runs the command; says what went wrong in a sentence. Raises OutputLost."""
    try:
        returned = cli.main(
            args=list(arguments) if arguments is not None else None, prog_name="rcnn", standalone_mode=False
        )
        return returned if isinstance(returned, int) else OK
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SystemExit as error:
        if error.code == TERMINATED:
            click.echo(f"rcnn: terminated; {kept()}", err=True)
        return error.code if isinstance(error.code, int) else OK
    except (Exception, KeyboardInterrupt) as error:
        words = sys.argv[1:] if arguments is None else arguments
        called = next((word for word in words if not word.startswith("-")), "")  # the options before it are flags
        text, code = sentence(error, cli.commands.get(called))
        if verbose():
            traceback.print_exc()
        click.echo(f"rcnn: {text}", err=True)
        return code


if __name__ == "__main__":
    main()
