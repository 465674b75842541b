"""The commands for many machines (submit, cancel, wait) and the entry point of a Dask worker's process."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from rcnn_cli.commands.completion import complete_cache, complete_toml
from rcnn_cli.commands.options import (
    FiniteRange,
    RecipePath,
    load_graph,
    log_to_option,
    recipe_argument,
    recipe_options,
)
from rcnn_cli.sentences import INCOMPLETE
from stages.contract.errors import StageError
from stages.plurals import number_of


@click.command(short_help="Submit a recipe to Slurm, one job per missing cache.")
@click.argument("recipe", required=False, type=RecipePath(), shell_complete=complete_toml)
@recipe_options
@click.option(
    "--cluster",
    type=click.Path(path_type=Path),
    default=Path("cluster.toml"),
    show_default=True,
    shell_complete=complete_toml,
    help="The file with each stage's Slurm resources.",
)
@click.option(
    "--init",
    is_flag=True,
    help="Write a first file of resources, with what sinfo shows of this cluster, for the stages of RECIPE or for all.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the scripts without submitting them, which does not need Slurm; with --init the file.",
)
@log_to_option
def submit(
    recipe: Path | None,
    changes: tuple[str, ...],
    work: Path | None,
    cluster: Path,
    init: bool,
    dry_run: bool,
    log_to: tuple[str, ...],
) -> None:
    """Submit RECIPE to Slurm: one job or job array per incomplete cache, each depending on the jobs of its inputs.

    \b
    Examples: rcnn submit recipes/shapes.toml --init
              rcnn submit recipes/shapes.toml --cluster cluster.toml --dry-run
    """
    if init:
        write_first(recipe, changes, cluster, dry_run)
        return
    if recipe is None:
        raise click.UsageError("Missing argument 'RECIPE'.")
    from rcnn_cli.clusters.cluster_file import load_cluster
    from rcnn_cli.clusters.jobs import Submitter, alone, scripts
    from rcnn_cli.clusters.slurm_scripts import Submission
    from rcnn_cli.running.splits import warn_of_shared_images

    graph = load_graph(recipe, changes, work)
    graph.check()
    resources = load_cluster(cluster, graph.recipe)
    submission = Submission(recipe, graph.recipe.name, changes, graph.work.absolute(), Path.cwd(), log_to)
    if dry_run:
        click.echo("\n".join(scripts(graph, resources, submission)), nl=False)
        return
    warn_of_shared_images(graph, graph.caches())
    with alone(graph.work, click.echo):
        count = Submitter(graph, resources, submission, click.echo).submit()
    click.echo(
        f"{number_of(count, 'job')} submitted; `rcnn status {recipe}` shows their state; "
        f"their output is in {submission.logs}/"
    )


def write_first(recipe: Path | None, changes: tuple[str, ...], cluster: Path, dry_run: bool) -> None:
    """Writes a first cluster.toml, or prints it."""
    from rcnn_cli.clusters.first_file import first_file, write_first_file
    from rcnn_cli.clusters.partitions import read_partitions
    from rcnn_cli.recipes.recipe import load_recipe

    loaded = None if recipe is None else load_recipe(recipe, changes)
    text = first_file(read_partitions(), loaded)
    if dry_run:
        click.echo(text, nl=False)
        return
    write_first_file(cluster, text)
    click.echo(f"{cluster} written; edit it, then see what `rcnn submit {recipe or 'RECIPE'} --dry-run` prints")


@click.command(short_help="Cancel a recipe's jobs; finished work is kept.")
@recipe_argument
def cancel(recipe: Path, changes: tuple[str, ...], work: Path | None) -> None:
    """Cancel RECIPE's queued and running jobs; finished work is kept.

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


@click.command(short_help="Wait until a stage's caches are complete.")
@recipe_argument
@click.argument("stage", shell_complete=complete_cache)
@click.option("--timeout", type=FiniteRange(0), metavar="SECONDS", help="Give up after this long  [default: never]")
def wait(recipe: Path, changes: tuple[str, ...], work: Path | None, stage: str, timeout: float | None) -> None:
    """Wait until RECIPE's caches of STAGE are complete, whichever process makes them. Exit status 1 on --timeout.

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
        raise StageError(f"{nodes[0].name}: {not_cached(graph, nodes[0])}; wait for that one")
    if not wait_for(graph, cached, timeout, logging.getLogger("rcnn").info):
        raise SystemExit(INCOMPLETE)


@click.command(hidden=True)
def task() -> None:
    """Make parts of a cache for a Dask worker: reads a task from standard input, writes messages to standard output."""
    from rcnn_cli.clusters.dask_task import work

    work()


COMMANDS = (submit, cancel, wait, task)
