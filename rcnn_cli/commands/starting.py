"""The command that writes a first recipe: init."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rcnn_cli.commands.options import FiniteRange, make_options, output_option
from rcnn_cli.sentences import INCOMPLETE

SYSTEMS = ("rcnn", "fast", "faster", "overfeat")


@click.command(short_help="Look at a folder of images; divide it and write a recipe that runs.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--system",
    type=click.Choice(SYSTEMS),
    default="fast",
    show_default=True,
    help="R-CNN, Fast R-CNN, Faster R-CNN (trained jointly) or OverFeat.",
)
@click.option(
    "--classes",
    metavar="A,B,C",
    help="Only these classes; where nothing names the classes of YOLO labels, their names in order  [default: all]",
)
@click.option(
    "--unannotated",
    type=click.Choice(("leave-out", "background")),
    default="leave-out",
    show_default=True,
    help="Images without an annotation file are left out, or are images without objects.",
)
@click.option(
    "--fractions",
    metavar="TRAIN,VAL,TEST",
    help="The shares of the images for training, for choosing settings and for measuring, where the folder does not "
    "divide them itself; VAL may be 0  [default: 0.6,0.2,0.2]",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="Seed of the division; the same images and seed give the same lists.",
)
@click.option(
    "--minutes",
    type=FiniteRange(0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="N",
    help="About how long a run may take on this machine: what sizes and iterations are chosen for.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Measure again and replace a recipe that rcnn init wrote, and its lists; one that was edited stays.",
)
@output_option("The folder for the recipe and its lists.", default=Path(), show_default="the current one")
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    help="Folder for caches and results  [default: $RCNN_WORK, else work/]",
)
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Number of processes  [default: one per core]")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:N]",
    help="Where networks run; auto: on a GPU if available.",
)
def init(
    folder: Path,
    system: str,
    classes: str | None,
    unannotated: str,
    fractions: str | None,
    seed: int,
    minutes: float,
    force: bool,
    output: Path,
    work: Path | None,
    jobs: int | None,
    device: str,
) -> None:
    """Look at FOLDER, say what is in it and what is wrong with it, divide its images into train, val and test if it
    does not itself, and write a recipe that runs. FOLDER is not changed. Exit status 1 if it has no annotations.

    Read are YOLO labels (with a data.yaml or without), COCO's format, and Pascal VOC's XML, in VOC's layout or beside
    the images. Copies and near-duplicates stay together in the division. A recipe that is there already stays.

    \b
    Examples: rcnn init photos/
              rcnn init photos/ --system faster --classes cat,dog --minutes 30
    """
    from rcnn_cli.running.runner import work_folder
    from rcnn_cli.starting.start import Wish, start

    names = None if classes is None else tuple(name.strip() for name in classes.split(","))
    shares = None if fractions is None else parsed(fractions)
    wish = Wish(system, names, shares, seed, minutes, unannotated == "background", force)

    def options_for(nodes: Any) -> Any:
        return make_options(nodes, device, jobs)

    if not start(folder, output, work_folder(work), wish, options_for, click.echo):
        raise SystemExit(INCOMPLETE)


def parsed(fractions: str) -> tuple[float, float, float]:
    """The three shares. Raises UsageError unless they are numbers that add up to 1, of which only that of val may be
    0."""
    try:
        train, val, test = (float(share) for share in fractions.split(","))
    except ValueError:
        raise click.UsageError(f"--fractions {fractions}: write three numbers, as in 0.6,0.2,0.2") from None
    if not (train > 0 and val >= 0 and test > 0 and abs(train + val + test - 1) < 1e-6):
        raise click.UsageError(f"--fractions {fractions}: must add up to 1, and leave something for train and test")
    return train, val, test


COMMANDS = (init,)
