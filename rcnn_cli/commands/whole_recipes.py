"""The commands for whole recipes: run, status, plan, predict."""

from __future__ import annotations

import logging
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from rcnn_cli.commands.completion import complete_cache
from rcnn_cli.commands.options import (
    FiniteRange,
    Seconds,
    adopt_option,
    dask_options,
    execution_options,
    json_option,
    load_graph,
    log_to_option,
    make_options,
    output_option,
    recipe_argument,
    table_option,
)
from rcnn_cli.sentences import INCOMPLETE
from stages.contract.errors import StageError
from stages.contract.kinds import MEASURED

WATCH_SECONDS = 10.0


@click.command(short_help="Run all stages of a recipe; complete caches are skipped.")
@recipe_argument
@execution_options
@dask_options
@adopt_option
@log_to_option
@click.option(
    "--only",
    metavar="CACHE",
    shell_complete=complete_cache,
    help="Only this cache, named as in `rcnn status`; its inputs must be complete  [default: all]",
)
@click.option(
    "--near-duplicates",
    is_flag=True,
    help="First look for images that are used for evaluation and, nearly the same, for training, and warn of them.",
)
@click.option(
    "--shard", metavar="I/N", help="With --only: make only every N-th part, starting with the I-th  [default: all]"
)
def run(
    recipe: Path,
    changes: tuple[str, ...],
    work: Path | None,
    only: str | None,
    near_duplicates: bool,
    shard: str | None,
    **options: Any,
) -> None:
    """Run all stages of RECIPE in order; complete caches are skipped.

    \b
    Example: rcnn run recipes/shapes.toml --jobs 2
    """
    from rcnn_cli.looking.results import show_results
    from rcnn_cli.running.runner import mended, run_alone, run_nodes, run_until_shown
    from rcnn_cli.running.splits import warn_of_shared_images

    if shard and not only:
        raise StageError("--shard: divides one cache; name it with --only, or use the stage's own command")
    if only and near_duplicates:
        raise StageError("--near-duplicates: is a check of whole recipes; leave out --only")
    graph = load_graph(recipe, changes, work)
    nodes = graph.caches()
    if only:
        chosen = graph.select(only)
        graph.check(chosen)
        made = make_options(graph.makers(chosen), shard=shard, **options)
        finished = [run_alone(graph, node, made) for node in chosen]
        if all(finished) and made.execution.rank == 0:
            evaluations = graph.making(*MEASURED)
            show_results(graph, nodes if any(node in evaluations for node in chosen) else chosen)
        return
    graph.check()
    graph.open_own_data()
    seen = {node.name: state for node in nodes if (state := mended(graph, node)).complete}
    missing = [node for node in nodes if node.name not in seen]
    made = make_options(graph.makers(missing), **options)
    if made.execution.rank:
        run_nodes(graph, nodes, made, seen)
        return
    warn_of_shared_images(graph, nodes)
    if near_duplicates:
        from rcnn_cli.running.near_duplicates import warn_of_near_duplicates

        warn_of_near_duplicates(graph, nodes, made)
    if not missing:
        click.echo(f"{recipe}: everything is complete; nothing to do.")
    run_until_shown(graph, nodes, made, lambda: show_results(graph, nodes), seen)


@click.command(short_help="Show what is complete, what is not, and why.")
@recipe_argument
@json_option
@click.option(
    "--watch",
    type=Seconds(0.1),
    is_flag=False,
    flag_value=WATCH_SECONDS,
    metavar="[SECONDS]",
    help="Look again every so many seconds until all caches are complete or Ctrl-C is pressed; in a pipe or a file, "
    f"print only what has changed.  [default: look once; {WATCH_SECONDS:g} seconds if no number is given]",
)
def status(recipe: Path, changes: tuple[str, ...], work: Path | None, as_json_text: bool, watch: float | None) -> None:
    """Show which caches of RECIPE are complete, partial, missing or damaged, and why. Exit status 1 unless all are
    complete.

    \b
    Examples: rcnn status recipes/shapes.toml --json
              rcnn status recipes/shapes.toml --watch 30
    """
    if watch is not None and as_json_text:
        raise click.UsageError("--watch: is for people to read; leave out --json")
    from rcnn_cli.clusters.jobs import with_jobs
    from rcnn_cli.running.splits import warn_of_shared_images
    from rcnn_cli.running.status import describe, format_status

    graph = load_graph(recipe, changes, work)
    graph.check()
    warn_of_shared_images(graph, graph.caches())
    if watch is not None:
        from rcnn_cli.running.watching import watch as watch_states

        finished = watch_states(lambda: with_jobs(graph, describe(graph)), watch, sys.stdout.isatty())
    else:
        states = with_jobs(graph, describe(graph))
        click.echo(format_status(states, as_json_text))
        finished = all(state.finished for state in states)
    if not finished:
        raise SystemExit(INCOMPLETE)


@click.command(short_help="Estimate what a recipe needs: images, boxes, disk, time.")
@recipe_argument
@execution_options
@click.option(
    "--sample", type=click.IntRange(1), metavar="N", help="Images per split to measure  [default: 4, or 2 per job]"
)
@json_option
def plan(
    recipe: Path,
    changes: tuple[str, ...],
    work: Path | None,
    sample: int | None,
    as_json_text: bool,
    **options: Any,
) -> None:
    """Estimate what each cache of RECIPE needs, before anything runs. Exit status 1 if the disk is too small.

    A few images of each split are put through the real stages in a temporary folder (in $TMPDIR). Synthetic datasets
    are drawn, as by `rcnn run`.

    \b
    Example: rcnn plan recipes/shapes.toml --sample 8
    """
    from rcnn_cli.running.planning import format_plan, make_plan
    from rcnn_cli.running.runner import size
    from rcnn_cli.running.splits import warn_of_shared_images
    from rcnn_cli.running.status import describe

    graph = load_graph(recipe, changes, work)
    graph.check()
    graph.open_own_data()
    states = {state.name: state for state in describe(graph)}
    missing = [node for node in graph.caches() if states[node.name].state != "complete"]
    runs = make_options(graph.makers(missing), **options)
    warn_of_shared_images(graph, graph.caches())
    made = make_plan(graph, states, runs, sample, logging.getLogger("rcnn").info)
    click.echo(format_plan(made, graph.work, as_json_text))
    if not made.fits:
        logging.getLogger("rcnn").warning(
            "%s: THE DISK IS TOO SMALL: %s free, %s to be written; free some space, choose another --work, or use "
            "`cache = false` or --compression", graph.work, size(made.bytes_free), size(made.bytes_left)
        )  # fmt: skip
        raise SystemExit(INCOMPLETE)


@click.command(short_help="Detect objects in photos, videos and of cameras; write pictures with boxes, JSON and more.")
@recipe_argument
@click.argument("photos", nargs=-1, required=True, type=click.Path())
@output_option("The folder to write to.", default=Path("out"), show_default=True)
@table_option("--detector", "detections", "The detect table to use  [default: detect, else the recipe's first]")
@click.option(
    "--precision",
    type=FiniteRange(0, 1),
    help="Draw detections above the score at which the evaluation has this precision  [default: 0.5, if evaluated]",
)
@click.option(
    "--threshold",
    type=float,
    metavar="SCORE",
    help="Draw detections with at least this score  "
    "[default: from --precision; without an evaluation 0, or 0.5 for softmax scores]",
)
@click.option(
    "--thresholds",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw detections with at least their class's score in this file of `rcnn thresholds`  [default: --precision]",
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    metavar="json|coco|voc|yolo|csv",
    help="What to write besides pictures; repeatable, or with commas. json: all detections of each photo, or frame by "
    "frame of a video; the others: the detections that are good enough to be drawn  [default: json]",
)
@click.option("--no-pictures", is_flag=True, help="Write no PNGs and no videos with boxes.")
@click.option("--no-images", is_flag=True, help="Do not copy the images into the folders of coco, voc and yolo.")
@click.option(
    "--every",
    type=click.IntRange(1),
    default=30,
    show_default=True,
    metavar="N",
    help="Use only every N-th frame of a video or camera.",
)
@click.option(
    "--seconds",
    type=FiniteRange(0, min_open=True),
    help="Use only the first seconds of a video or camera  [default: all; a camera until Ctrl-C]",
)
@click.option(
    "--frames", is_flag=True, help="Write a picture and a JSON file of each frame of a video, rather than one."
)
@click.option(
    "--tiles",
    type=click.IntRange(16),
    metavar="SIDE",
    help="Cut larger images into tiles of SIDE pixels, and look at each of them and at the whole image  "
    "[default: the whole image alone]",
)
@click.option(
    "--tile-overlap",
    type=click.IntRange(0),
    metavar="PIXELS",
    help="How much tiles overlap at least: the size of the largest object that must not be cut  [default: SIDE / 5]",
)
@click.option("--no-whole-image", is_flag=True, help="With --tiles: look at the tiles alone.")
@partial(execution_options, new_caches=False)
def predict(
    recipe: Path,
    changes: tuple[str, ...],
    work: Path | None,
    photos: tuple[str, ...],
    output: Path,
    detector: str | None,
    precision: float | None,
    threshold: float | None,
    thresholds: Path | None,
    formats: tuple[str, ...],
    no_pictures: bool,
    no_images: bool,
    every: int,
    seconds: float | None,
    frames: bool,
    tiles: int | None,
    tile_overlap: int | None,
    no_whole_image: bool,
    **options: Any,
) -> None:
    """Detect objects in PHOTOS with RECIPE's trained detector; writes a PNG with boxes and a JSON file for each.

    PHOTOS are images, videos, folders of them, quoted patterns such as 'photos/**/*.jpg', or cameras (camera:0). Of a
    video, a video with boxes (MP4) and a file of JSON Lines are written. In place of RECIPE, a file that `rcnn export`
    wrote is complete in itself.

    \b
    Examples: rcnn predict recipes/shapes.toml photo.jpg -o out/
              rcnn predict shapes.safetensors photo.jpg
              rcnn predict recipes/shapes.toml photos/ clip.mp4 --every 10
              rcnn predict recipes/shapes.toml photos/ --format voc --no-pictures
              rcnn predict recipes/shapes.toml aerial.tif --tiles 800 --tile-overlap 150
    """
    from rcnn_cli.looking.photos import find_photos

    if tiles is None and (tile_overlap is not None or no_whole_image):
        given = "--no-whole-image" if tile_overlap is None else "--tile-overlap"
        raise click.UsageError(f"{given} is for --tiles; leave it out, or add --tiles SIDE")
    candidates = find_photos(photos, every, seconds)
    from rcnn_cli.exporting.model_file import is_model_file, read_card
    from rcnn_cli.looking.prediction import Outputs, Wish, predict_photos, prepare, wished_detector
    from rcnn_cli.looking.prediction_formats import JSON, format_names
    from rcnn_cli.looking.tiles import tiling_of
    from rcnn_cli.recipes.detectors import detector_node

    tiling = None if tiles is None else tiling_of(tiles, tile_overlap, whole=not no_whole_image)
    wish = Wish(detector, threshold, precision, thresholds)
    outputs = Outputs(format_names(formats or (JSON,)), not no_pictures, not no_images, frames)
    readable, writing = prepare(candidates, output, outputs, options["skip_bad_images"])
    if is_model_file(recipe):
        from rcnn_cli.exporting.prediction import check_of_recipes, wished_model

        check_of_recipes(recipe, **{"--set": changes, "--work": work, "--detector": detector})
        made = make_options(read_card(recipe).nodes, **options)
        used = wished_model(recipe, made.execution, wish)
    else:
        graph = load_graph(recipe, changes, work)
        made = make_options(list(detector_node(graph, detector).image_path()), **options)
        used = wished_detector(graph, made.execution, wish)
    for line in predict_photos(used, readable, writing, tiling, made.execution.skip_bad_images):
        click.echo(line)


COMMANDS = (run, status, plan, predict)
