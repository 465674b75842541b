"""Near-duplicates between datasets (R-CNN Appendix F): descriptors from the stage `gist`, cached as ever, and pairs."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cache import Reader
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.recipes.recipe import Recipe, RecipeError, Use, load_recipe, sources_of, with_recipe_folder
from rcnn_cli.running.device import cores
from rcnn_cli.running.runner import Options, run_nodes
from rcnn_cli.running.splits import pairs_of_datasets
from stages.contract.catalogue import catalogue
from stages.contract.settings import nearest
from stages.datasets.image_set import ImageSet
from stages.datasets.records import some_of
from stages.file_names import file_name
from stages.gist.duplicates import Described, Duplicates, Pair, find_duplicates
from stages.gist.neighbours import THRESHOLD
from stages.plurals import number_of

log = logging.getLogger("rcnn")

STAGE = "gist"
COLUMN = "gist"


@dataclass(frozen=True)
class Side:
    """One of the sets that are compared: its `name` in messages, its images, the cache of their descriptors."""

    name: str
    images: ImageSet
    reader: Reader

    @cached_property
    def described(self) -> Described:
        """The descriptors, and what tells equal images without them."""
        images = self.images
        flickr_ids = [images.flickr_id(image_id) for image_id in images.image_ids]
        return Described(images.image_ids, images.pixel_digests, flickr_ids, Parts(self.reader))


@dataclass(frozen=True)
class Parts:
    """The descriptors in a cache, part by part, as often as they are asked for."""

    reader: Reader

    def __iter__(self) -> Any:
        return self.reader.per_item(COLUMN)


def table_of(text: str) -> dict[str, Any]:
    """The table of a dataset that is given as a source, or as RECIPE.toml:NAME. Raises StageError."""
    path, _, name = text.rpartition(":")
    if not path.endswith(".toml"):
        return {"source": text}
    recipe = load_recipe(Path(path))
    if name not in recipe.datasets:
        raise RecipeError(f"{path}: has no dataset [datasets.{name}]{nearest(name, recipe.datasets)}")
    return absolute(recipe, name)


def absolute(recipe: Recipe, name: str) -> dict[str, Any]:
    """The table of a recipe's dataset, for another recipe: without the recipe's folder."""
    table = with_recipe_folder(recipe.datasets[name], str(recipe.path.parent))
    return {**table, "source": sources_of(table)}


def compared(tables: Sequence[dict[str, Any]], work: Path, options: Options) -> list[Side]:
    """Each dataset's images and descriptors, made now where they are not there. Raises StageError, BadImage."""
    opened: dict[str, Any] = {}
    plain = Recipe(Path("duplicates"), "duplicates", "", dict(enumerated(tables)), {}, {STAGE: default_use()})
    graph = Graph(plain, work, opened)
    labels = [file_name(graph.dataset(name).name) for name in plain.datasets]
    names = [label if label not in labels[:place] else f"{label}-{place + 1}" for place, label in enumerate(labels)]
    return described(replace(plain, datasets=dict(zip(names, tables, strict=True))), names, work, options, opened)


def enumerated(tables: Sequence[dict[str, Any]]) -> Iterable[tuple[str, dict[str, Any]]]:
    """The tables, each with a name."""
    return ((f"set-{number}", table) for number, table in enumerate(tables, 1))


def default_use() -> Use:
    """The stage with its defaults."""
    stage = catalogue()[STAGE]
    return Use(STAGE, stage, stage.settings())


def described(
    recipe: Recipe, names: Sequence[str], work: Path, options: Options, opened: dict[str, Any] | None = None
) -> list[Side]:
    """The images and descriptors of a recipe's datasets, by the settings of its table of `gist`, if it has one."""
    own = next((use for use in recipe.uses.values() if use.stage.name == STAGE), None)
    use = default_use() if own is None else Use(own.name, own.stage, own.settings)
    graph = Graph(replace(recipe, uses={use.name: use}), work, opened)
    nodes = [graph.add(use, name, ()) for name in names]
    run_nodes(graph, nodes, options)
    return [
        Side(name, graph.dataset(name), Reader(graph.folder(node))) for name, node in zip(names, nodes, strict=True)
    ]


def find(a: Side, b: Side | None, threshold: float, others: int = 0) -> Duplicates:
    """The duplicates in A of B's images, or of A's own."""
    return find_duplicates(a.described, None if b is None else b.described, threshold, others)


def warn_of_near_duplicates(graph: Graph, nodes: Iterable[Node], options: Options) -> None:
    """As `warn_of_shared_images`, for images that look like one of another dataset upstream, by GIST or by their number
    on flickr; those with the same content are left to it. The descriptors are made first, by this process and its jobs.

    Raises BadImage, StageError.
    """
    pairs = pairs_of_datasets(graph, nodes)
    if not pairs:
        log.warning(
            "%s: no evaluation reads what was trained on another dataset, so there are no near-duplicates to look for",
            graph.recipe.path,
        )
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    execution = replace(options.execution, device="cpu", jobs=options.execution.jobs or cores())
    here = Options(execution, compression=options.compression, adopt=options.adopt)
    sides = dict(zip(names, described(graph.recipe, names, graph.work, here, graph.open_datasets), strict=True))
    for trained, evaluated in pairs:
        path = graph.recipe.path
        if shown := near_duplicates_in_words(sides[trained], sides[evaluated], files=False):
            log.warning(
                "%s: [datasets.%s] is used for evaluation, but %s in [datasets.%s]: %s; look at them with "
                "`rcnn duplicates %s:%s %s:%s`",
                path, evaluated, shown[0], trained, shown[1], path, trained, path, evaluated,
            )  # fmt: skip
        else:
            log.info("%s: [datasets.%s] has no near-duplicates in [datasets.%s]", path, evaluated, trained)


def near_duplicates_in_words(a: Side, b: Side, *, files: bool) -> tuple[str, str] | None:
    """("3 of its 500 images are near-duplicates of images", and some of them), or None if there are none. With `files`
    those with the same content count, too."""
    best: dict[int, Pair] = {}
    for pair in find(a, b, THRESHOLD).pairs:
        if files or not pair.same_file:
            best.setdefault(pair.b, pair)
    if not best:
        return None
    every = number_of(len(b.images.image_ids), "image")
    kind = "copies or near-duplicates" if files else "near-duplicates"
    shown = [
        f"{b.images.image_ids[pair.b]} (there {a.images.image_ids[pair.a]}, {distance_in_words(pair.distance)})"
        for pair in best.values()
    ]
    return f"{len(best)} of its {every} {'is' if len(best) == 1 else 'are'} {kind} of images", some_of(shown)


def distance_in_words(distance: float) -> str:
    """A distance with three digits."""
    return "no texture to compare" if math.isnan(distance) else f"distance {distance:.3f}"
