"""The commands for looking at results: report, figures, recall, units, compare, explain, inspect."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from rcnn_cli.commands.completion import complete_image, complete_toml
from rcnn_cli.commands.options import (
    FiniteRange,
    RecipePath,
    execution_options,
    json_option,
    load_graph,
    make_options,
    output_option,
    recipe_argument,
    recipe_options,
    recipes_argument,
    split_option,
    table_option,
)
from rcnn_cli.sentences import INCOMPLETE


@click.command(short_help="Measure how well proposals cover the objects: recall by IoU.")
@recipes_argument
@split_option("The recipes' dataset on which to measure.", "test")
@click.option(
    "--counts",
    metavar="N,...",
    help="Numbers of proposals per image at which to measure recall.  [default: 300,1000,2000; with --masks 150]",
)
@click.option("--masks", is_flag=True, help="Measure how well regions cover the masks of objects, rather than boxes.")
@click.option(
    "--min-pixels",
    type=click.IntRange(0),
    metavar="N",
    help="With --masks: leave out objects of fewer pixels  [default: 0]",
)
@output_option("The folder to write to  [default: results/recall in --work]")
@json_option
def recall(
    recipes: tuple[Path, ...],
    changes: tuple[str, ...],
    work: Path | None,
    split: str,
    counts: str | None,
    masks: bool,
    min_pixels: int | None,
    output: Path | None,
    as_json_text: bool,
) -> None:
    """Measure how well the proposals of RECIPES cover the objects: recall by IoU, average recall, by size and class.

    All their proposals are drawn in one figure, recall.png; recall.csv and recall.json have the numbers. The first N
    proposals are taken in the cache's order; a note below the table says whether that order is a ranking.

    With --masks, proposals with masks are measured on a dataset with masks: mean best IoU and covering of the first N
    regions (not of all), with bootstrap intervals over images; regions.json has the numbers.

    \b
    Examples: rcnn recall recipes/shapes.toml
              rcnn recall quality.toml fast.toml --split val --counts 100,1000 -o recall/
    """
    from rcnn_cli.looking.recall import FILES, measure, parse_counts, tell
    from rcnn_cli.outputs import OutputFolder

    if masks:
        from rcnn_cli.looking.region_recall import FILES as REGION_FILES
        from rcnn_cli.looking.region_recall import measure_regions, tell_regions

        if output is not None:
            OutputFolder(output).check(REGION_FILES)
        graphs = [load_graph(recipe, changes, work) for recipe in recipes]
        of_regions = measure_regions(graphs, split, parse_counts(counts or "150")[:-1], min_pixels or 0)
        folder = output or graphs[0].work / "results" / "recall"
        click.echo(tell_regions(of_regions, folder, output is not None, as_json_text))
        return
    if min_pixels is not None:
        raise click.UsageError("--min-pixels is for --masks; leave it out, or add --masks")
    numbers = parse_counts(counts or "300,1000,2000")
    if output is not None:
        OutputFolder(output).check(FILES)
    measured = measure([load_graph(recipe, changes, work) for recipe in recipes], split, numbers)
    click.echo(tell(measured, output, as_json_text))


@click.command(short_help="Show the regions that activate units of a convolutional layer most.")
@recipe_argument
@click.option(
    "--unit",
    "units",
    multiple=True,
    metavar="ROW,COLUMN,CHANNEL",
    help="A unit of the layer, counting from 1; repeatable.",
)
@click.option(
    "--montage",
    type=click.IntRange(1),
    metavar="N",
    help="Show the N most class-selective units  [default: 12 without --unit]",
)
@click.option("--layer", metavar="LAYER", help="A cached convolutional layer  [default: the deepest]")
@split_option("The recipe's dataset whose regions to search.", "test")
@table_option("--features", "features", "The recipe's extract table to use  [default: the main detector's]")
@click.option(
    "--top", type=click.IntRange(1), default=16, show_default=True, metavar="N", help="Regions to show per unit."
)
@click.option(
    "--overlap",
    type=FiniteRange(0, 1),
    default=0.1,
    show_default=True,
    metavar="IOU",
    help="Leave out regions whose IoU with a stronger one in the same image is higher; the authors' tool uses 0.1.",
)
@output_option("The folder to write to  [default: results/RECIPE/units in --work]")
@json_option
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
    """Show the regions of a split that activate units of a convolutional layer most: R-CNN's figures 4 and 12.

    Reads RECIPE's cache of features. Each region is drawn as the network saw it, with the unit's receptive field in
    white and its activation as a fraction of its channel's maximum.

    \b
    Examples: rcnn units recipes/shapes.toml
              rcnn units recipes/voc2007-alexnet.toml --layer pool5 --unit 3,4,80 --unit 4,5,110 --top 96
    """
    from rcnn_cli.looking.units import show_units

    graph = load_graph(recipe, changes, work)
    click.echo(show_units(graph, split, layer, features, units, montage, top, overlap, output, as_json_text))


@click.command(short_help="Draw the paper's figures: detections, proposals, filters, box plots, transformations.")
@recipes_argument
@click.option(
    "--only",
    metavar="NAME,...",
    help="Only these: detections, proposals, anchors, windows, segmentations, filters, transformations, "
    "training-samples, box-plots, precision-recall  [default: all]",
)
@click.option(
    "--precision",
    type=FiniteRange(0, 1),
    default=0.5,
    show_default=True,
    help="Draw detections above the score at which precision on the whole split is this; in an image without any, "
    "draw the best ones in thin lines.",
)
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="ID",
    help="An image to use for detections, proposals, anchors, windows, segmentations and transformations; repeatable.",
)
@click.option(
    "--images",
    "count",
    type=click.IntRange(1),
    default=12,
    show_default=True,
    metavar="N",
    help="Number of random images if --image is not given.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Seed of all random choices."
)
@output_option("The folder to write to  [default: results/figures in --work]")
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
    """Draw R-CNN's figures from RECIPES' caches as PNGs. Exit status 1 if one named by --only, or all of them, failed.

    A figure that cannot be drawn, because a cache is incomplete or a recipe lacks a table, is reported on one line.

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
    for figure in draw_figures(graphs, names, Wish(precision, images, count, seed, folder)):
        click.echo(figure)
        drawn.append(bool(figure.paths))
    if not all(drawn) if only else not any(drawn):
        raise SystemExit(INCOMPLETE)


@click.command(short_help="Make an HTML page of results: tables, curves, errors, a gallery of detections.")
@recipes_argument
@output_option("The folder to write to  [default: results/RECIPE/report in --work]")
def report(recipes: tuple[Path, ...], changes: tuple[str, ...], work: Path | None, output: Path | None) -> None:
    """Make one HTML page, index.html, of the results of RECIPES; it works offline.

    It shows all their evaluations side by side: settings and caches, AP, precision-recall curves, error analysis,
    recall of the proposals, training, a gallery of detections with filters, best and worst images.

    \b
    Examples: rcnn report recipes/shapes.toml
              rcnn report recipes/shapes.toml recipes/shapes-finetuned.toml -o report/
    """
    from rcnn_cli.report.page import make_report
    from rcnn_cli.report.runs import load_recipes

    page, reused = make_report(load_recipes(recipes, changes, work), changes, output)
    click.echo(f"Report{' (reused: its caches have not changed)' if reused else ''}: {page}")


@click.command(short_help="Compare two runs: settings, AP with confidence intervals, errors, images.")
@click.argument("a", type=RecipePath(), shell_complete=complete_toml)
@click.argument("b", type=RecipePath(), shell_complete=complete_toml)
@recipe_options
@table_option("--evaluation", "evaluation", "The evaluation to compare  [default: the main detector's]")
@table_option("--evaluation-b", "evaluation", "The evaluation of B  [default: as --evaluation]")
@click.option(
    "--resamples",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    metavar="N",
    help="Bootstrap resamples of the images for the confidence intervals.",
)
@output_option("The folder to write to  [default: in results/ of --work]")
@json_option
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
    """Compare recipes A and B: settings, AP per class with confidence intervals, types of errors, single images.

    A and B may be the same recipe with two evaluations. Writes compare.json, compare.csv, images.csv, better.png and
    worse.png.

    \b
    Examples: rcnn compare recipes/shapes.toml recipes/shapes-finetuned.toml
              rcnn compare r.toml r.toml --evaluation eval-without-bbox --evaluation-b eval
    """
    from rcnn_cli.looking.comparison import compare as compare_sides
    from rcnn_cli.looking.comparison import open_sides
    from rcnn_cli.looking.comparison_results import FILES, tell
    from rcnn_cli.outputs import OutputFolder

    if output is not None:
        OutputFolder(output).check(FILES)
    first, second = load_graph(a, changes, work), load_graph(b, changes, work)
    sides = open_sides(first, second, evaluation, evaluation_b)
    click.echo(tell(*sides, compare_sides(*sides, resamples), output, as_json_text))


@click.command(short_help="Describe a file: a cache, part, recipe, grid, exported detector, results or image.")
@click.argument("file", type=RecipePath())
def inspect(file: Path) -> None:
    """Describe FILE: a cache's folder, part, view or manifest; a recipe or grid; an exported detector; JSON; an image.

    \b
    Examples: rcnn inspect work/caches/extract/shapes-train.3fa9c1d2be04
              rcnn inspect work/results/shapes/eval/results.json
              rcnn inspect shapes.safetensors
    """
    from rcnn_cli.exporting.model_file import is_model_file

    if is_model_file(file):
        from rcnn_cli.exporting.description import describe_model

        click.echo(describe_model(file))
        return
    from rcnn_cli.looking.inspection import inspect_file

    click.echo(inspect_file(file))


@click.command(name="explain", short_help="Explain an image's detections, and why objects were missed.")
@recipe_argument
@click.argument("image", shell_complete=complete_image)
@table_option("--evaluation", "evaluation", "The evaluation whose detector to explain  [default: the main detector's]")
@table_option(
    "--detector", "detections", "The detect table to explain, instead of an evaluation's  [default: the evaluation's]"
)
@split_option("The image's dataset  [default: the first that has it]")
@click.option(
    "--object", "number", type=int, metavar="N", help="Only the image's N-th object, counting from 1  [default: all]"
)
@click.option("--class", "class_name", metavar="NAME", help="Only objects and detections of this class  [default: all]")
@output_option("The folder to write to  [default: in results/ of --work]")
@json_option
@partial(execution_options, many_images=False, new_caches=False)
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
    """Explain, step by step, how the detections in IMAGE arise and why objects were missed.

    IMAGE is the id of an image in RECIPE's datasets, or the path of a photo. Writes IMAGE.png and IMAGE.json.

    \b
    Examples: rcnn explain recipes/shapes.toml test_00016
              rcnn explain recipes/shapes.toml test_00016 --object 2 -o out/
              rcnn explain recipes/shapes.toml photo.jpg
    """
    from rcnn_cli.looking.explanation import choose, computed, explain_image, split_of
    from rcnn_cli.looking.explanation_lines import tell_lines
    from rcnn_cli.looking.explanation_results import output_of, tell

    graph = load_graph(recipe, changes, work)
    chosen = choose(graph, evaluation, detector)
    dataset = split_of(chosen, image, split)
    folder, name = output_of(graph, image, dataset, output)
    made = make_options(computed(chosen, dataset), **options)
    explained = explain_image(chosen, image, dataset, made.execution)
    click.echo(tell(explained, tell_lines(explained, number, class_name), folder, name, as_json_text))


COMMANDS = (recall, units, figures, report, compare, explain_command, inspect)
