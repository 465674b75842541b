"""The commands that choose settings: ablate, tune, thresholds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from rcnn_cli.commands.completion import complete_split, complete_table, complete_toml
from rcnn_cli.commands.options import (
    GRIDS,
    FiniteRange,
    RecipePath,
    adopt_option,
    dask_options,
    execution_options,
    json_option,
    load_graph,
    log_to_option,
    make_options,
    output_option,
    recipe_argument,
    recipe_options,
)
from rcnn_cli.sentences import INCOMPLETE, explain


@click.command(short_help="Run a grid of settings: one table beside the papers' numbers.")
@click.argument("grid", type=RecipePath(GRIDS), shell_complete=complete_toml)
@click.option(
    "--recipe",
    type=RecipePath(),
    shell_complete=complete_toml,
    help="The base recipe  [default: the one that the grid names]",
)
@click.option("--seeds", metavar="N,...", help="Run every cell once with each of these seeds  [default: the grid's]")
@recipe_options
@execution_options
@dask_options
@adopt_option
@log_to_option
@click.option("--dry-run", is_flag=True, help="Only report how many caches would be made and shared.")
@json_option
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
    """Run every cell of GRID, sharing caches where possible, and print one table. Exit status 1 if a cell failed.

    The table is also written to ablations/ in the work folder (Markdown, CSV, JSON); of a grid that measures the recall
    of proposals, a figure too.

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
    """Logs the counts, runs the cells, prints and writes the table; returns its rows (none for a dry run)."""
    import json

    from rcnn_cli.experiments import ablation_table
    from rcnn_cli.experiments.ablation import execute

    counts = plan.counts()
    if dry_run:
        if as_json_text:
            click.echo(json.dumps(ablation_table.counts_json(plan, counts), indent=2))
        else:
            click.echo(ablation_table.format_counts(plan, counts))
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
    paths = [*ablation_table.write_tables(plan, rows, changes, plan.work, name), *draw_recall(plan, name)]
    for path in paths:
        logging.getLogger("rcnn").info("written: %s", path)
    return rows


def draw_recall(plan: Any, name: str) -> list[Path]:
    """Draws the recall of the cells' proposals, each with the first seed, in NAME.png beside the tables, if the grid
    measures any; its path."""
    from rcnn_cli.experiments.ablation import ends_in_proposals, recall_counts
    from stages.file_names import file_name

    counts, failed = recall_counts(plan.grid), {cell for cell, _ in plan.failed}
    first = {run.cell.name: run for run in reversed(plan.runs)}
    made = [first[cell.name] for cell in plan.grid.cells if cell.name not in failed]
    shown = [run for run in made if ends_in_proposals(run)]
    if not counts or not shown:
        return []
    from rcnn_cli.looking.recall import measure_cache, plot

    path = plan.work / "ablations" / f"{file_name(name)}.png"
    plot([measure_cache(run.graph, run.evaluation, run.cell.name, counts) for run in shown], path)
    return [path]


split_option = click.option(
    "--split",
    metavar="NAME",
    default="val",
    show_default=True,
    shell_complete=complete_split,
    help="The recipe's dataset on which to choose them.",
)
"""--split, of what is chosen."""


@click.command(short_help="Choose settings on a validation split and write a new recipe.")
@recipe_argument
@execution_options
@dask_options
@adopt_option
@split_option
@click.option(
    "--evaluation",
    metavar="NAME",
    shell_complete=complete_table("evaluation"),
    help="The evaluation whose detector to tune  [default: the main detector's]",
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
    "--nms-iou",
    default="0.2,0.3,0.4,0.5",
    show_default=True,
    metavar="X,...",
    help="Values of detect.nms_iou to try, with suppression = 'nms'.",
)
@click.option(
    "--merge-threshold",
    default="0.3,0.5,0.7,0.9",
    show_default=True,
    metavar="X,...",
    help="Values of detect.merge_threshold to try, with suppression = 'merge'.",
)
@output_option("The recipe to write  [default: NAME-tuned.toml]")
@click.option("--force", is_flag=True, help="Overwrite the output recipe if it exists.")
@click.option("--dry-run", is_flag=True, help="Only report how many caches would be made and shared.")
@json_option
def tune(
    recipe: Path,
    changes: tuple[str, ...],
    work: Path | None,
    split: str,
    evaluation: str | None,
    negative_overlap: str,
    cost: str,
    nms_iou: str,
    merge_threshold: str,
    output: Path | None,
    force: bool,
    dry_run: bool,
    as_json_text: bool,
    **options: Any,
) -> None:
    """Search RECIPE's SVM and suppression settings on a validation split; write a recipe with the best ones.

    \b
    Examples:
      rcnn tune recipes/shapes.toml --split val -o shapes-tuned.toml
      rcnn tune recipes/shapes.toml --c 0.001 --nms-iou 0.3 --dry-run
    """
    from rcnn_cli.experiments.ablation import evaluation_of, make_plan
    from rcnn_cli.experiments.tuning import best_row, check_output, check_split, parse_values, tuning_grid, write_tuned
    from rcnn_cli.looking.evaluated import evaluation_node
    from rcnn_cli.recipes.detectors import choice_told, detector_of
    from rcnn_cli.recipes.packaged import place_of_derived

    values = {
        "negative_overlap": ("--negative-overlap", negative_overlap),
        "C": ("--c", cost),
        "nms_iou": ("--nms-iou", nms_iou),
        "merge_threshold": ("--merge-threshold", merge_threshold),
    }
    asked = click.get_current_context().get_parameter_source
    of_a_method = {name for name in ("nms_iou", "merge_threshold") if asked(name) is ParameterSource.DEFAULT}
    searched = {name: parse_values(option, text) for name, (option, text) in values.items()}
    output = output or place_of_derived(recipe, f"{recipe.stem}-tuned.toml")
    graph = load_graph(recipe, changes, work)
    check_output(recipe, output, force or dry_run)
    node = evaluation_of(graph, evaluation) if evaluation else evaluation_node(graph)
    if choice_told(graph, detector_of(node)) and not evaluation:
        logging.getLogger("rcnn").info("tuning [%s] by [%s]", detector_of(node).use.name, node.use.name)
    check_split(graph, node, split)
    plan = make_plan(tuning_grid(graph, node, split, searched, of_a_method), recipe, changes, graph.work, explain)
    rows = run_plan(plan, f"tune-{recipe.stem}", changes, dry_run, as_json_text, options)
    if plan.failed:
        logging.getLogger("rcnn").warning("no settings chosen and no recipe written: some combinations failed")
        raise SystemExit(INCOMPLETE)
    if rows:
        best = best_row(rows)
        write_tuned(graph, output, best, split, len(rows), changes, force)
        logging.getLogger("rcnn").info("best on '%s': %s; written: %s", split, ", ".join(best.cell.words()), output)


@click.command(short_help="Choose the lowest score that counts, class by class, on a validation split.")
@recipe_argument
@split_option
@click.option(
    "--precision",
    type=FiniteRange(0, 1),
    help="Choose the lowest score down to which the class has this precision  [default: that of the best F1]",
)
@click.option(
    "--evaluation",
    metavar="NAME",
    shell_complete=complete_table("evaluation"),
    help="The evaluation whose detector it is about  [default: the main detector's]",
)
@output_option("The file to write  [default: results/RECIPE/thresholds-SPLIT.toml in --work]")
@json_option
@execution_options
def thresholds(
    recipe: Path,
    changes: tuple[str, ...],
    work: Path | None,
    split: str,
    precision: float | None,
    evaluation: str | None,
    output: Path | None,
    as_json_text: bool,
    **options: Any,
) -> None:
    """Choose, for each class, the score from which its detections count; write them for `rcnn predict --thresholds`.

    The detector of RECIPE is evaluated on the split, if it has not been yet. The threshold of a class is that of its
    best F1, the harmonic mean of precision and recall, or the lowest with the precision that is asked for.

    \b
    Examples:
      rcnn thresholds recipes/shapes.toml --split val -o thresholds.toml
      rcnn thresholds recipes/shapes.toml --precision 0.9
    """
    import json

    from rcnn_cli.experiments.tuning import check_has, on_split, warn_of_choice
    from rcnn_cli.looking.evaluated import evaluation_node
    from rcnn_cli.looking.thresholds import choose_thresholds, format_table, output_of, rows_of, thresholds_text
    from rcnn_cli.running.runner import complete, run_nodes

    graph = load_graph(recipe, changes, work)
    reported = evaluation_node(graph, evaluation)
    check_has(graph, split)
    moved, node = on_split(graph, reported, split)
    folder, name = output_of(moved, node, output)
    moved.check([node])
    missing = [one for one in moved.needed(node) if moved.is_cached(one) and not complete(moved, one)]
    made = make_options(moved.makers(missing), **options)
    warn_of_choice(graph, reported, split)
    if missing:
        run_nodes(moved, [node], made)
    chosen, curves = choose_thresholds(moved, node, precision)
    rows = rows_of(chosen, curves)
    folder.write(name, thresholds_text(chosen))
    values = {"rule": chosen.rule, "score": chosen.scored, "detector": chosen.detector, "thresholds": rows}
    click.echo(json.dumps(values, indent=2, ensure_ascii=False) if as_json_text else format_table(chosen, rows))
    logging.getLogger("rcnn").info("written: %s", folder.path / name)


COMMANDS = (ablate, tune, thresholds)
