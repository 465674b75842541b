"""Options shared by several commands, and what is made of their values."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from rcnn_cli.commands.completion import complete_setting, complete_split, complete_table, complete_toml
from rcnn_cli.sentences import explain
from rcnn_cli.tracking import TRACKERS, VARIABLE, check_installed, parse_trackers
from stages.contract.errors import StageError

GRIDS = "grids/"
"""How the names of the grids that come with rcnn begin; `rcnn ablate` does without."""


class OutputPath(click.Path):
    """A path to write to; an empty one, as of a variable that is not set, is not the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Fails for an empty path."""
        if not os.fspath(value):
            self.fail("is empty; name a folder or file, or . for the current folder", param, ctx)
        return super().convert(value, param, ctx)


class RecipePath(click.Path):
    """The path of a recipe or grid, or the name of one that comes with rcnn, which may leave out `prefix`."""

    def __init__(self, prefix: str = "") -> None:
        super().__init__(path_type=Path)
        self.prefix = prefix

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path of the file."""
        from rcnn_cli.recipes.packaged import find_recipe

        return find_recipe(Path(os.fsdecode(super().convert(value, param, ctx))), self.prefix)


class FiniteRange(click.FloatRange):
    """A number in a range, which "nan" would pass as well."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Fails for a number that is not finite."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


class Seconds(FiniteRange):
    """A number of seconds of an option that may have none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Fails for a word that was not meant as the number: click takes any that follows the option."""
        try:
            float(value)
        except ValueError:
            self.fail(
                f"{value!r} is not a number of seconds; write the option last, or its number after it", param, ctx
            )
        return super().convert(value, param, ctx)


def recipe_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """RECIPE, --set, --work, --check-content."""
    argument = click.argument("recipe", type=RecipePath(), shell_complete=complete_toml)
    return argument(recipe_options(command))


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--set, --work, --check-content."""
    command = click.option(
        "--check-content",
        is_flag=True,
        expose_value=False,
        callback=check_content,
        help="Read every dataset file instead of trusting the stored checksums of files that look unchanged "
        "(size, times, inode).",
    )(command)
    command = click.option(
        "--work",
        type=click.Path(path_type=Path),
        help="Folder for caches and results  [default: $RCNN_WORK, else work/]",
    )(command)
    return click.option(
        "--set",
        "changes",
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        shell_complete=complete_setting,
        help="Override a value of the recipe for this command, e.g. extract.padding=0; repeatable.",
    )(command)


def check_content(context: click.Context, option: click.Parameter, value: bool) -> None:
    """Makes this command and the processes it starts read every dataset file again."""
    if not value:
        return
    from stages.datasets.digests import CHECK_CONTENT

    before = os.environ.get(CHECK_CONTENT)
    os.environ[CHECK_CONTENT] = "1"

    def restore() -> None:
        if before is None:
            os.environ.pop(CHECK_CONTENT, None)
        else:
            os.environ[CHECK_CONTENT] = before

    context.call_on_close(restore)


def table_option(flag: str, makes: str, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option naming a table of the recipe whose stage makes `makes`, e.g. "detections"; `text` is its help."""
    return click.option(flag, metavar="NAME", shell_complete=complete_table(makes), help=text)


def recipes_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """RECIPES, --set, --work, --check-content."""
    argument = click.argument("recipes", nargs=-1, required=True, type=RecipePath(), shell_complete=complete_toml)
    return argument(recipe_options(command))


def split_option(text: str, default: str | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """--split, which names a dataset of the recipe; `text` is its help."""
    shown: dict[str, Any] = {"default": default, "show_default": True} if default else {}
    return click.option("--split", metavar="NAME", shell_complete=complete_split, help=text, **shown)


def output_option(text: str, **settings: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """-o, --output; `text` is its help."""
    return click.option("-o", "--output", type=OutputPath(path_type=Path), help=text, **settings)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--json."""
    return click.option("--json", "as_json_text", is_flag=True, help="Print JSON for other programs.")(command)


def execution_options(
    command: Callable[..., Any], batch_size: bool = True, many_images: bool = True, new_caches: bool = True
) -> Callable[..., Any]:
    """--device, --jobs, --batch-size (unless it is a setting of the stage), --skip-bad-images (for `many_images`),
    --compression and --part-size (of `new_caches`)."""
    if batch_size:
        command = click.option(
            "--batch-size",
            type=click.IntRange(1),
            metavar="N",
            help="Regions per forward pass of the network  [default: the stage's]",
        )(command)
    if new_caches:
        command = click.option(
            "--part-size",
            type=click.IntRange(1),
            metavar="N",
            help="Images (or classes) per part of a new cache  [default: the stage's]",
        )(command)
        command = click.option(
            "--compression",
            type=click.Choice(("none", "gzip", "zstd")),
            default="none",
            show_default=True,
            help="Compression of new caches; zstd needs the package hdf5plugin.",
        )(command)
    if many_images:
        command = click.option(
            "--skip-bad-images", is_flag=True, help="Skip images that cannot be read, and list them at the end."
        )(command)
    command = click.option(
        "--jobs", type=click.IntRange(1), metavar="N", help="Number of processes  [default: one per core]"
    )(command)
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda[:N]",
        help="Where networks run; auto: on a GPU if available.",
    )(command)


def dask_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--dask, --dask-wait."""
    command = click.option(
        "--dask-wait",
        type=FiniteRange(0),
        default=300.0,
        show_default=True,
        metavar="SECONDS",
        help="With --dask: give up after this long without a worker.",
    )(command)
    return click.option(
        "--dask",
        metavar="ADDRESS|local[/N]",
        help="Compute on the workers of this Dask scheduler, or on N local worker processes  "
        "[default: this process and its --jobs]",
    )(command)


def adopt_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--adopt, --no-adopt."""
    return click.option(
        "--adopt/--no-adopt",
        default=True,
        show_default=True,
        help="Copy records from finished caches of the same stage where the image's content, the settings and the "
        "inputs are the same.",
    )(command)


class TrackersType(click.ParamType):
    """Trackers of trainings, separated by commas; each once."""

    name = "trackers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Fails for an unknown one."""
        try:
            return value if isinstance(value, tuple) else parse_trackers(value)
        except StageError as error:
            self.fail(str(error), param, ctx)


def log_to_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--log-to."""
    return click.option(
        "--log-to",
        type=TrackersType(),
        envvar=VARIABLE,
        default="",
        metavar="NAME,...",
        help=f"Log trainings to {', '.join(TRACKERS)}, too: in logs/ in the work folder, or on the server that their "
        f"own variables name  [default: ${VARIABLE}, else none]",
    )(command)


def load_graph(recipe: Path, changes: Sequence[str], work: Path | None) -> Any:
    """The graph of a recipe, a file or the name of one that comes with rcnn, with `changes` (--set) applied.

    Raises StageError.
    """
    from rcnn_cli.recipes.graph import Graph
    from rcnn_cli.recipes.packaged import find_recipe
    from rcnn_cli.recipes.recipe import load_recipe
    from rcnn_cli.running.runner import work_folder

    return Graph(load_recipe(find_recipe(recipe), changes), work_folder(work))


def load_graphs(path: Path, work: Path) -> list[Any]:
    """The graph of a recipe, or of every cell of a grid. Raises StageError."""
    from rcnn_cli.experiments.grid import is_grid, load_grid

    if not is_grid(path):
        return [load_graph(path, (), work)]
    from rcnn_cli.experiments.ablation import base_recipe, make_plan

    grid = load_grid(path)
    plan = make_plan(grid, base_recipe(grid, None), (), work, explain)
    for name, seed in plan.failed:
        raise StageError(f"{path}: cell '{name}': {plan.failed[name, seed]}")
    return [run.graph for run in plan.runs]


def make_options(
    makers: Sequence[Any],
    device: str,
    jobs: int | None,
    skip_bad_images: bool = False,
    compression: str = "none",
    part_size: int | None = None,
    batch_size: int | None = None,
    shard: str | None = None,
    dask: str | None = None,
    dask_wait: float = 0.0,
    adopt: bool = True,
    log_to: tuple[str, ...] = (),
) -> Any:
    """The runner's options.

    `makers`: the nodes to be made, and those computed on the way. The device is looked up only if one of them runs a
    network; with --dask the workers look it up. Raises StageError.
    """
    from rcnn_cli.clusters.shards import parse_shard
    from rcnn_cli.progress import progress
    from rcnn_cli.running.device import cores, resolve_device, runs_network, torchrun_ranks
    from rcnn_cli.running.runner import Options
    from stages.contract.execution import Execution, silent
    from stages.contract.settings import check_device

    if dask:
        from rcnn_cli.clusters.dask_workers import Workers

        if shard:
            raise StageError("--shard: cannot be combined with --dask, whose workers divide the parts among themselves")
        requested = Execution(device, jobs or 0, batch_size, skip_bad_images, progress)
        workers = Workers(dask, dask_wait, requested, compression, adopt, log_to)
        click.get_current_context().call_on_close(workers.close)
        return Options(
            requested, compression=compression, part_size=part_size, make_parts=workers.make_parts, adopt=adopt
        )
    check_installed(log_to)
    needs_network = any(runs_network(node.use.stage, node.settings) for node in makers)
    rank, local_rank, ranks = torchrun_ranks(os.environ)
    execution = Execution(
        device=resolve_device(device, local_rank if ranks > 1 else None) if needs_network else "cpu",
        jobs=jobs or cores(),
        batch_size=batch_size,
        skip_bad_images=skip_bad_images,
        progress=progress if rank == 0 else silent,
        rank=rank,
        ranks=ranks,
    )
    for node in makers:
        check_device(node.settings, execution.device, f"[{node.use.name}] ")
    return Options(execution, parse_shard(shard, os.environ), compression, part_size, adopt=adopt, log_to=log_to)
