"""The commands for data, weights and caches."""

from __future__ import annotations

from pathlib import Path

import click

from rcnn_cli.commands.completion import complete_source, complete_source_option, complete_toml
from rcnn_cli.commands.options import (
    FiniteRange,
    RecipePath,
    json_option,
    load_graph,
    load_graphs,
    make_options,
    output_option,
)
from rcnn_cli.sentences import INCOMPLETE
from stages.contract.errors import StageError
from stages.networks import DROPOUTS, NETWORKS, PREPROCESSINGS


@click.group(name="cache")
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
    help="Folder for caches and results  [default: $RCNN_WORK, else work/]",
)
def cache_list(work: Path | None) -> None:
    """List all caches: state, time finished or last written to (UTC), age, folder, size.

    \b
    Example: rcnn cache ls
    """
    import time

    from rcnn_cli.running.caches import list_caches
    from rcnn_cli.running.runner import work_folder

    click.echo(list_caches(work_folder(work), time.time()))


@cache_group.command(name="verify", short_help="Read every byte; set damaged parts aside.")
@click.argument("recipe", required=False, type=RecipePath(), shell_complete=complete_toml)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    help="Folder for caches and results  [default: $RCNN_WORK, else work/]",
)
def cache_verify(recipe: Path | None, work: Path | None) -> None:
    """Read every byte of all caches (or of RECIPE's); set damaged files aside. Exit status 1 if there are any.

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
@click.argument("recipes", nargs=-1, type=RecipePath(), shell_complete=complete_toml)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    help="Folder for caches and results  [default: $RCNN_WORK, else work/]",
)
@click.option("--yes", is_flag=True, help="Delete without asking.")
def cache_gc(recipes: tuple[Path, ...], work: Path | None, yes: bool) -> None:
    """List the caches that none of RECIPES (default: recipes/*.toml) refers to, then delete them.

    RECIPES may include grids of `rcnn ablate` that name their recipes.

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
    """Asks a yes/no question. Raises StageError if there is no answer."""
    try:
        return click.confirm(question)
    except click.Abort:
        raise StageError("no answer, so nothing was deleted; pass --yes to skip the question") from None


@click.group()
def data() -> None:
    """Check, split, draw and download datasets.

    \b
    Examples: rcnn data check voc:my-folder:train
              rcnn data split voc:my-folder:val -o splits/
              rcnn data shapes shapes/
    """


@data.command(name="check", short_help="Read every image and annotation of a dataset.")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True, shell_complete=complete_source)
@click.option(
    "--classes",
    metavar="A,B",
    help="The classes, or a subset of a COCO or YOLO file's  [default: those named in the data]",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=complete_source_option,
    help="A dataset option, as in a recipe's table of the dataset, e.g. exif=stored; repeatable.",
)
@click.option(
    "--against",
    metavar="SOURCE",
    shell_complete=complete_source,
    help="Also name the images that are copies or near-duplicates of images of this dataset, such as the training "
    "set  [default: none]",
)
def data_check(sources: tuple[str, ...], classes: str | None, changes: tuple[str, ...], against: str | None) -> None:
    """Read every image and annotation of SOURCE, written as in a recipe. Exit status 1 if there is a problem.

    SOURCE is voc:DIR:SPLIT, coco:ANNOTATIONS.json:IMAGES, yolo:DATA.yaml:SPLIT or another form listed in
    docs/recipes.md; several sources are checked as one dataset.

    \b
    Examples: rcnn data check voc:VOCdevkit/VOC2007:trainval
              rcnn data check coco:annotations/instances_val2017.json:val2017 --classes cat,dog
              rcnn data check voc:my-folder:train --set exif=stored
              rcnn data check voc:my-folder:test --against voc:my-folder:train
    """
    from rcnn_cli.running.data import check_source
    from rcnn_cli.running.runner import work_folder

    if not check_source(sources, work_folder(None), click.echo, changes, classes, against):
        raise SystemExit(INCOMPLETE)


@data.command(name="split", short_help="Split a dataset into halves with equal counts of every class.")
@click.argument("source", shell_complete=complete_source)
@click.option(
    "-o", "--output", "directory", required=True, type=click.Path(path_type=Path), help="Folder for the two lists."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed for the split.")
@click.option("--trials", type=click.IntRange(min=1), default=8, show_default=True, help="Splits to try.")
@click.option("--classes", metavar="A,B", help="The classes to balance  [default: those named in the data]")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=complete_source_option,
    help="A dataset option, as in a recipe's table of the dataset; repeatable.",
)
def data_split(
    source: str, directory: Path, seed: int, trials: int, classes: str | None, changes: tuple[str, ...]
) -> None:
    """Write two lists of SOURCE's image ids, SPLIT1.txt and SPLIT2.txt, between which the objects of every class are
    divided as equally as can be found (R-CNN section 4.1: val1 and val2).

    SOURCE is ilsvrc:DIR:SPLIT or voc:DIR:SPLIT. The same source, seed and number of trials give the same lists.

    \b
    Example: rcnn data split ilsvrc:ILSVRC:val -o splits/ --seed 1
    """
    from rcnn_cli.running.data import split_source
    from rcnn_cli.running.runner import work_folder

    split_source(source, directory, seed, trials, work_folder(None), click.echo, changes, classes)


@data.command(name="shapes", short_help="Draw the demo's dataset in the PASCAL VOC layout.")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change the seed or the number of scenes in train, val and test; repeatable.",
)
def data_shapes(directory: Path, changes: tuple[str, ...]) -> None:
    """Draw the project's own detection dataset into DIRECTORY in the PASCAL VOC layout.

    \b
    Example: rcnn data shapes shapes/ --set seed=7
    """
    from rcnn_cli.running.data import draw_dataset

    click.echo(draw_dataset(directory, changes))


@data.command(name="fetch", short_help="Download PASCAL VOC 2007 or 2012.")
@click.argument("name", type=click.Choice(("voc2007", "voc2012")))
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--mirror", metavar="URL", help="Base URL to download the archives from  [default: the official one]")
def data_fetch(name: str, directory: Path, mirror: str | None) -> None:
    """Download PASCAL VOC into DIRECTORY; checksums are verified, and an interrupted download resumes.

    \b
    Example: rcnn data fetch voc2007 data/
    """
    from rcnn_cli.running.data import fetch_dataset

    click.echo(fetch_dataset(name, directory, mirror))


@click.command(short_help="Find images of a dataset that are also in another: copies and near-duplicates.")
@click.argument("a", metavar="A", shell_complete=complete_source)
@click.argument("b", metavar="[B]", required=False, shell_complete=complete_source)
@click.option(
    "--threshold",
    type=FiniteRange(0, 1.5, min_open=True),
    default=0.25,
    show_default=True,
    metavar="DISTANCE",
    help="Images nearer than this are near-duplicates: the distance of their GIST descriptors, scaled to length 1.",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    help="Folder for caches and results  [default: $RCNN_WORK, else work/]",
)
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Number of processes  [default: one per core]")
@click.option("--skip-bad-images", is_flag=True, help="Skip images that cannot be read, and list them at the end.")
@output_option("The folder to write to  [default: results/duplicates/ in --work]")
@json_option
def duplicates(
    a: str,
    b: str | None,
    threshold: float,
    work: Path | None,
    jobs: int | None,
    skip_bad_images: bool,
    output: Path | None,
    as_json_text: bool,
) -> None:
    """Find the images of B that are also in A, or of A among themselves. Exit status 1 if there are any.

    A and B are datasets, written as for `rcnn data check`, or RECIPE.toml:NAME. Two images are one photograph if their
    files or their numbers on flickr are the same; they probably are if their GIST descriptors are close (R-CNN Appendix
    F). Writes duplicates.json, neighbours.csv and pairs.png, a sheet to look at.

    \b
    Examples: rcnn duplicates voc:VOCdevkit/VOC2007:trainval voc:VOCdevkit/VOC2007:test
              rcnn duplicates recipes/shapes.toml:train recipes/shapes.toml:test
    """
    from rcnn_cli.looking.duplicates import FILES, compare, tell
    from rcnn_cli.outputs import OutputFolder
    from rcnn_cli.running.runner import work_folder

    if output is not None:
        OutputFolder(output).check(FILES)
    options = make_options((), "cpu", jobs, skip_bad_images)
    compared = compare([a] if b is None else [a, b], threshold, work_folder(work), options)
    click.echo(tell(compared, output, as_json_text))
    if compared.found.pairs:
        raise SystemExit(INCOMPLETE)


@click.group()
def weights() -> None:
    """Import network weights; show the content of a weights file.

    \b
    Examples: rcnn weights import torchvision:vgg16 --network onet -o onet.safetensors
              rcnn weights show onet.safetensors
    """


@weights.command(name="import", short_help="Import weights from Caffe, OverFeat, torchvision or a state dict.")
@click.argument("source")
@click.option(
    "--network", required=True, type=click.Choice(tuple(NETWORKS)), help="The network that the weights are for."
)
@output_option("The .safetensors file to write.", required=True)
@click.option(
    "--preprocessing",
    type=click.Choice(tuple(PREPROCESSINGS)),
    help="The preprocessing they were trained with  [default: the usual one, except for a state dict]",
)
@click.option(
    "--mean",
    metavar="A,B,C",
    help="The mean colour they were trained with, in the preprocessing's channel order and scale  "
    "[default: the preprocessing's]",
)
@click.option(
    "--scores",
    metavar="LAYER",
    help="The .caffemodel's layer of class scores  [default: fc8, or the only other candidate]",
)
@click.option(
    "--classes",
    metavar="A,B,C",
    help="The classes of a .caffemodel of a detector, in its order, without the background  "
    "[default: VOC's if it has 20, COCO's if it has 80]",
)
@click.option(
    "--dropout",
    type=click.Choice(DROPOUTS),
    help="How a .caffemodel that does not record it was trained. scaled: outputs kept by dropout were scaled up; "
    "unscaled: they were not, as in the authors' ZF, so fc6 and fc7 are halved  [default: scaled, but zf has none]",
)
def weights_import(
    source: str,
    network: str,
    output: Path,
    preprocessing: str | None,
    mean: str | None,
    scores: str | None,
    classes: str | None,
    dropout: str | None,
) -> None:
    """Import SOURCE (a .caffemodel, OverFeat's net_weight_0 or net_weight_1, a state dict or torchvision:MODEL) as a
    file that a recipe's [network] can name.

    \b
    Examples: rcnn weights import bvlc_reference_caffenet.caffemodel --network tnet -o tnet.safetensors
              rcnn weights import torchvision:vgg16 --network onet -o onet.safetensors
              rcnn weights import ZF_faster_rcnn_final.caffemodel --network zf -o zf-faster.safetensors
              rcnn weights import net_weight_0 --network overfeat-fast -o overfeat-fast.safetensors
    """
    from rcnn_cli.running.weights import import_file

    click.echo(import_file(source, network, output, preprocessing, mean, scores, classes, dropout))


@weights.command(name="show", short_help="Show the content of a weights file.")
@click.argument("file", type=click.Path(path_type=Path))
def weights_show(file: Path) -> None:
    """Show the content of a weights FILE, imported or not: source, preprocessing, tensors; checksums are verified.

    \b
    Example: rcnn weights show tnet.safetensors
    """
    from rcnn_cli.running.weights import show_file

    click.echo(show_file(file))


COMMANDS = (data, duplicates, weights, cache_group)
