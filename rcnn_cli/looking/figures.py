"""`rcnn figures`: the figures of the R-CNN paper, drawn from a recipe's caches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache import CacheError, Reader
from rcnn_cli.looking.evaluated import open_evaluation
from rcnn_cli.looking.ilsvrc2013 import FIGURE_3, is_ilsvrc2013, published_aps
from rcnn_cli.looking.recall import covering
from rcnn_cli.looking.units import features_nodes
from rcnn_cli.outputs import OutputFolder
from rcnn_cli.recipes.detectors import detector_node, evaluations_of
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.running.runner import check_readable, complete, on_demand, open_input
from stages.contract.errors import StageError
from stages.contract.execution import Execution
from stages.contract.settings import nearest
from stages.eval.pictures import (
    DetectionSheet,
    detection_marks,
    detection_sheet,
    plot_box_plots,
    plot_precision_recall,
    rows_to_show,
)
from stages.eval.report import MEASURES, headline, read_curves
from stages.extract import DENSE
from stages.file_names import file_name
from stages.images.reading import Pixels
from stages.matching.objects import Objects, read_objects
from stages.networks import NetworkSource
from stages.pictures.drawing import save_image
from stages.pictures.marks import Mark
from stages.pictures.palette import TRUTH
from stages.plurals import number_of, plural
from stages.propose.methods import METHODS

A_SHEET = 12
A_SHEET_OF_STEPS = 4
REGIONS = 6
MOST_REGIONS = 12
AMONG = 10
SAMPLES = 8
MOST_CLASSES = 20


@dataclass(frozen=True)
class Wish:
    """What was requested: detections with at least `precision`; `count` random images, or those with the ids `images`;
    the seed of all random choices; the folder."""

    precision: float
    images: tuple[str, ...]
    count: int
    seed: int
    folder: OutputFolder

    def random(self) -> np.random.Generator:
        """A generator with the same state for every figure, so that a figure drawn alone is the same."""
        return np.random.default_rng(self.seed)


@dataclass(frozen=True)
class Drawn:
    """The outcome of a figure: its files and a remark on them, or the reason why it was not drawn."""

    name: str
    paths: Sequence[Path] = ()
    reason: str = ""
    remark: str = ""

    def __str__(self) -> str:
        if not self.paths:
            return f"{self.name}: not drawn: {self.reason}"
        return f"{self.name}: {', '.join(map(str, self.paths))}" + (f" ({self.remark})" if self.remark else "")


Pictures = tuple[Mapping[str, Pixels], str]
"""Pictures by the suffix of the file's name ("" for a single one), and a remark."""


def figure_names(text: str | None) -> list[str]:
    """The figures named by --only, or all without it. Raises StageError for one that does not exist."""
    every = [*OF_RECIPE, *OF_ALL]
    if text is None:
        return every
    requested = [word.strip() for word in text.split(",")]
    for name in requested:
        if name not in every:
            named = f"--only {name}: is not a figure" if name else "--only: names no figure"
            raise StageError(f"{named}{nearest(name, every)}")
    return [name for name in every if name in requested]


def draw_figures(graphs: Sequence[Graph], names: Sequence[str], wish: Wish) -> Iterator[Drawn]:
    """Draws the figures `names`, first those of single recipes, then those of all together; yields their outcomes.

    Raises StageError if two recipes have the same name.
    """
    recipes = [graph.recipe.name for graph in graphs]
    duplicate = next((name for name in recipes if recipes.count(name) > 1), None)
    if duplicate:
        raise StageError(
            f"{duplicate}: two of the recipes have this name, and so would their figures; rename one, or give it once"
        )
    of_recipes = [figure_file(graph, name, end) for graph in graphs for name in OF_RECIPE for end in ("", "-1", "-2")]
    wish.folder.check([*of_recipes, *(f"{name}.png" for name in OF_ALL)])
    for graph in graphs:
        for name in names:
            if name in OF_RECIPE:
                yield draw_one(graph, name, wish)
    for name in names:
        if name in OF_ALL:
            try:
                with wish.folder.file(f"{name}.png") as path:
                    remark = OF_ALL[name](graphs, path)
                yield Drawn(name, [wish.folder.path / f"{name}.png"], remark=remark)
            except (StageError, CacheError) as error:
                yield Drawn(name, reason=str(error))


def draw_one(graph: Graph, name: str, wish: Wish) -> Drawn:
    """Draws one figure of one recipe."""
    label = f"{graph.recipe.name}-{name}"
    try:
        pictures, remark = OF_RECIPE[name](graph, wish)
    except (StageError, CacheError) as error:
        return Drawn(label, reason=str(error))
    paths = []
    for suffix, picture in pictures.items():
        file = figure_file(graph, name, suffix)
        with wish.folder.file(file) as path:
            save_image(picture, path)
        paths.append(wish.folder.path / file)
    return Drawn(label, paths, remark=remark)


def figure_file(graph: Graph, name: str, suffix: str) -> str:
    """The file name of a recipe's figure: "shapes-detections-2.png"."""
    return f"{file_name(f'{graph.recipe.name}-{name}')}{suffix}.png"


# Figures of one recipe


def detections(graph: Graph, wish: Wish) -> Pictures:
    """Figures 8 to 11: detections with their precision, on chosen or random images, good and bad alike."""
    evaluated = open_evaluation(graph)
    sizes = zip(evaluated.detections.image_ids, evaluated.detections.image_sizes, strict=True)
    readable = [image_id for image_id, size in sizes if size.all()]
    ids = chosen_images(wish, readable, evaluated.node.dataset)
    sheets = [
        detection_sheet(
            evaluated.dataset, evaluated.detections, evaluated.precision, wish.precision, ids[first : first + A_SHEET]
        )
        for first in range(0, len(ids), A_SHEET)
    ]
    pictures = {f"-{number}" if len(sheets) > 1 else "": sheet.pixels for number, sheet in enumerate(sheets, start=1)}
    how = "chosen" if wish.images else f"random (seed {wish.seed})"
    by = f" by {evaluated.detector.name}" if len(evaluations_of(graph)) > 1 else ""
    what = f"{len(ids)} {how} {plural('image', len(ids))} of '{evaluated.node.dataset}'{by}"
    return pictures, "; ".join([f"{what}, precision {wish.precision:g} or more", *bare_images(sheets)])


def bare_images(sheets: Sequence[DetectionSheet]) -> list[str]:
    """A remark on images without a detection of that precision; [] if there are none."""
    bare, images = sum(sheet.bare for sheet in sheets), sum(sheet.images for sheet in sheets)
    have = "has" if bare == 1 else "have"
    return [f"{bare} of the {images} {have} none; the best ones are shown, whatever the score"] if bare else []


def chosen_images(wish: Wish, image_ids: Sequence[str], split: str) -> list[str]:
    """The requested images, or random ones. Raises StageError for an id that is not in `image_ids`."""
    for image_id in wish.images:
        if image_id not in image_ids:
            raise StageError(f"--image {image_id}: is not an image of '{split}'; the first is '{image_ids[0]}'")
    if wish.images:
        return list(dict.fromkeys(wish.images))
    picks = wish.random().permutation(len(image_ids))[: wish.count]
    return [image_ids[pick] for pick in picks]


def proposals(graph: Graph, wish: Wish) -> Pictures:
    """The proposals of the main detector, coloured by score if they have any, on chosen or random images."""
    from stages.propose.pictures import proposal_sheet

    node = proposals_node(graph)
    check_readable(graph, node, "to draw its proposals")
    reader = Reader(graph.folder(node))
    skipped = reader.manifest.get("skipped", {})
    ids = chosen_images(wish, [image_id for image_id in reader.item_ids if image_id not in skipped], node.dataset)
    columns = [name for name in ("boxes", "scores") if name in reader.schema.rows]
    dataset = graph.dataset(node.dataset, "dataset")
    sheets = [
        proposal_sheet(dataset, {image_id: reader.read(image_id, columns) for image_id in ids[first : first + A_SHEET]})
        for first in range(0, len(ids), A_SHEET)
    ]
    pictures = {f"-{number}" if len(sheets) > 1 else "": sheet for number, sheet in enumerate(sheets, start=1)}
    how = "chosen" if wish.images else f"random (seed {wish.seed})"
    return pictures, f"{node.name}, {len(ids)} {how} {plural('image', len(ids))}"


def anchors(graph: Graph, wish: Wish) -> Pictures:
    """Faster R-CNN's Table 1: the average size of each anchor's proposals, on chosen or random images."""
    from stages.propose.anchor_trace import proposal_sizes
    from stages.propose.pictures import size_sheet, size_words

    node = proposals_node(graph)
    if not METHODS[node.settings.method].reads_maps:
        raise StageError(f"{node.name}: method = '{node.settings.method}' has no anchors")
    computed = on_demand(graph, node, Execution(skip_bad_images=True).in_worker)
    ids = chosen_images(wish, computed.item_ids, node.dataset)
    traces = [trace for trace in map(computed.trace, ids) if trace is not None]
    if not traces:
        raise StageError(f"none of the {number_of(len(ids), 'image')} of '{node.dataset}' can be read")
    sizes = proposal_sizes(traces)
    how = "chosen" if wish.images else f"random (seed {wish.seed})"
    images = f"{node.name}, {len(traces)} {how} {plural('image', len(traces))}"
    columns = len(open_input(graph, node, "rpn", Execution()).card.heads.proposals.scales)
    words = "; ".join(size_words(sizes))
    return {"": size_sheet(sizes, columns)}, f"{images}; in pixels of the network's input, {words}"


def proposals_node(graph: Graph) -> Node:
    """The proposals that the main detector scores, else the recipe's first. Raises StageError if there are none."""
    made = detector_node(graph).made_from("proposals") if graph.making("detections") else None
    nodes = [made] if made is not None else graph.making("proposals")
    if not nodes and (windows := covering(graph)):
        raise StageError(
            f"{graph.recipe.path}: has no proposals to draw: [{windows[0].use.name}] takes every window of the "
            "network, which --only windows shows"
        )
    if not nodes:
        raise StageError(f"{graph.recipe.path}: has no proposals; add a table [propose]")
    return nodes[0]


def windows(graph: Graph, wish: Wish) -> Pictures:
    """OverFeat's Figures 6, 7 and 11: from the scores of dense windows to detections, on chosen or random images."""
    from stages.detect.pictures import Steps, window_sheet

    evaluated = open_evaluation(graph)
    features = evaluated.detector.made_from("features")
    if features is None or features.settings.method != DENSE:
        method = "none" if features is None else f"method = '{features.settings.method}'"
        raise StageError(f"{evaluated.detector.name}: has no dense windows; its features have {method}")
    detections, dataset = evaluated.detections, evaluated.dataset
    sizes = zip(detections.image_ids, detections.image_sizes, strict=True)
    ids = chosen_images(wish, [image_id for image_id, size in sizes if size.all()], evaluated.node.dataset)
    detector = on_demand(graph, evaluated.detector, Execution(skip_bad_images=True).in_worker)
    steps = {}
    for image_id in ids:
        place = detections.image_index[image_id]
        rows = np.arange(detections.offsets[place], detections.offsets[place + 1])
        best, enough = rows_to_show(evaluated.precision[rows], detections.every.scores[rows], wish.precision, 1)
        marks = detection_marks(detections, evaluated.precision, rows[best], enough) if enough else []
        marks += [Mark(box, TRUTH, dashed=True) for box in dataset.record(image_id).boxes]
        steps[image_id] = Steps(dataset.read_image(image_id), detector.trace(image_id), marks)
    least = f"with a precision of {wish.precision:g} or more"
    sheets = [
        window_sheet({image_id: steps[image_id] for image_id in ids[first : first + A_SHEET_OF_STEPS]}, least)
        for first in range(0, len(ids), A_SHEET_OF_STEPS)
    ]
    pictures = {f"-{number}" if len(sheets) > 1 else "": sheet for number, sheet in enumerate(sheets, start=1)}
    how = "chosen" if wish.images else f"random (seed {wish.seed})"
    return pictures, f"{evaluated.detector.name}, {len(ids)} {how} {plural('image', len(ids))}"


def segmentations(graph: Graph, wish: Wish) -> Pictures:
    """Images, their truths and their segmentations, chosen or random ones, by every evaluation of a segmentation."""
    from rcnn_cli.looking.segmented import segmentation_of, segmented_images
    from stages.eval_segmentation.pictures import segmentation_sheet

    evaluations = graph.making("accuracy")
    if not evaluations:
        raise StageError(f"{graph.recipe.path}: evaluates no segmentation; add a table [eval-segmentation]")
    sheets, names = [], []
    for node in evaluations:
        check_readable(graph, node, "to draw what was segmented")
        skipped = Reader(graph.folder(segmentation_of(node))).manifest["skipped"]
        dataset = graph.dataset(node.dataset)
        ids = chosen_images(wish, [one for one in dataset.image_ids if one not in skipped], node.dataset)
        for first in range(0, len(ids), A_SHEET):
            images = list(segmented_images(graph, node, ids[first : first + A_SHEET]))
            sheets.append(segmentation_sheet(images, dataset.classes))
            names.append(node.use.name)
    pictures = {f"-{number}" if len(sheets) > 1 else "": sheet for number, sheet in enumerate(sheets, start=1)}
    how = "chosen" if wish.images else f"random (seed {wish.seed})"
    return pictures, f"{how} images, by {', '.join(names)}"


def filters(graph: Graph, wish: Wish) -> Pictures:
    """The filters of the network's first layer, and those of its second if they are larger than a cell (OverFeat's
    Figure 2)."""
    from stages.pictures.filters import filter_sheet, first_filters, second_filters

    source = network_of(graph, features_nodes(graph)[0])
    network = source.load()
    kernels = first_filters(network.module, network.preprocessing)
    pictures = {"": filter_sheet(kernels)}
    words = [source.name, f"{len(kernels)} filters of {kernels.shape[2]} x {kernels.shape[1]} pixels"]
    second = second_filters(network.module)
    if second is not None:
        pictures["-2"] = filter_sheet(second)
        words.append(f"in the second layer {len(second)} of {second.shape[2]} x {second.shape[1]} cells")
    return pictures, ", ".join(words)


def transformations(graph: Graph, wish: Wish) -> Pictures:
    """Figure 7: ways to make a region square, without padding and with the padding of the features, for the objects of
    chosen images or for elongated objects of different classes."""
    from stages.extract.pictures import Region, View, transformation_sheet

    nodes = features_nodes(graph)
    node = next((node for node in nodes if node.dataset == "test"), nodes[0])
    graph.check([node])
    source, dataset = network_of(graph, node), graph.dataset(node.dataset, "dataset")
    padding = View.of(source, node.settings).padding
    ids = chosen_images(wish, dataset.image_ids, node.dataset) if wish.images else dataset.image_ids
    objects = read_objects(dataset, ids)
    rows = np.arange(len(objects))[:MOST_REGIONS] if wish.images else elongated(objects, REGIONS, wish)
    if not len(rows):
        raise StageError(f"'{node.dataset}' has no objects whose boxes could be transformed")
    regions = [
        Region(
            dataset.classes[objects.labels[row]],
            dataset.read_image(ids[objects.images[row]]),
            objects.boxes[row],
        )
        for row in rows
    ]
    sheet = transformation_sheet(regions, source.card.input_size, padding, source.preprocessing)
    first = f"the first {len(rows)} of " if wish.images and len(rows) < len(objects) else ""
    count = len(objects) if first else len(rows)
    return {"": sheet}, f"{first}{count} {plural('object', count)} of '{node.dataset}'"


def elongated(objects: Objects, count: int, wish: Wish) -> np.ndarray:
    """The rows of up to `count` objects of different classes, int64 [k]: of AMONG random objects of a class the most
    elongated, for which the transformations differ most."""
    random = wish.random()
    sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
    stretch = np.abs(np.log(np.maximum(sides[:, 0], 1) / np.maximum(sides[:, 1], 1)))
    most = []
    for label in random.permutation(np.unique(objects.labels))[:count]:
        some = random.permutation(np.flatnonzero(objects.labels == label))[:AMONG]
        most.append(some[stretch[some].argmax()])
    return np.array(most, np.int64)


def training_samples(graph: Graph, wish: Wish) -> Pictures:
    """Figure 2: random objects of each class in the training set, as the network sees them."""
    from stages.extract.pictures import View, sample_sheet, seen_regions

    node = training_node(graph)
    graph.check([node])
    view = View.of(network_of(graph, node), node.settings)
    dataset = graph.dataset(node.dataset, "dataset")
    objects = read_objects(dataset, dataset.image_ids)
    counts = np.bincount(objects.labels, minlength=len(dataset.classes))
    most = np.sort(np.argsort(-counts, kind="stable")[:MOST_CLASSES])
    random = wish.random()
    shown = []
    for label in most[counts[most] > 0]:
        rows = random.permutation(np.flatnonzero(objects.labels == label))[:SAMPLES]
        samples = [
            seen_regions(dataset.read_image(dataset.image_ids[objects.images[row]]), objects.boxes[row, None], view)[0]
            for row in rows
        ]
        shown.append((dataset.classes[label], samples))
    if not shown:
        raise StageError(f"'{node.dataset}' has no objects to show")
    left_out = f", of {len(dataset.classes)}" if len(shown) < len(dataset.classes) else ""
    return {"": sample_sheet(shown)}, f"{number_of(len(shown), 'class')}{left_out}, objects of '{node.dataset}'"


def training_node(graph: Graph) -> Node:
    """The features on which the main detector's SVMs, or else the recipe's first SVMs, are trained. Raises StageError
    if there are none."""
    own = detector_node(graph).sources.get("svm") if graph.making("detections") else None
    for node in (own, *graph.making("svm")):
        features = node.made_from("features") if isinstance(node, Node) else None
        if features is not None:
            return features
    raise StageError(f"{graph.recipe.path} trains no SVMs; add a table [train-svm]")


def network_of(graph: Graph, node: Node) -> NetworkSource:
    """The network that computes a node's features. Raises IncompleteCache if it is not trained yet."""
    source = open_input(graph, node, "network", Execution())
    assert isinstance(source, NetworkSource)
    return source


# Figures of all recipes together


def box_plots(graphs: Sequence[Graph], path: Path) -> str:
    """Figure 3: a box plot of the APs of each evaluation's classes; returns a remark."""
    readers, remark = complete_evaluations(graphs)
    summaries = {name: reader.manifest["summary"] for name, reader in readers.items()}
    measures = {headline(summary) for summary in summaries.values()}
    aps = {}
    for name, summary in summaries.items():
        measure = MEASURES[summary["metric"]]
        known = {label: each[measure] for label, each in summary["classes"].items() if each[measure] is not None}
        if known:
            aps[f"{name}, {headline(summary)}" if len(measures) > 1 else name] = known
    if not aps:
        raise StageError("the evaluated images have no objects to find")
    classes = next(iter(summaries.values()))["classes"]
    if is_ilsvrc2013(classes):
        aps["R-CNN BB on test, the paper's Table 8"] = published_aps(classes)
        plot_box_plots(aps, path, [bar for bar in FIGURE_3 if bar[0] != "R-CNN BB"])
    else:
        plot_box_plots(aps, path)
    return remark


def precision_recall(graphs: Sequence[Graph], path: Path) -> str:
    """The precision-recall curves of all evaluations, one plot per class; returns a remark."""
    readers, remark = complete_evaluations(graphs)
    plot_precision_recall({name: read_curves(reader) for name, reader in readers.items()}, path)
    return remark


def complete_evaluations(graphs: Sequence[Graph]) -> tuple[dict[str, Reader], str]:
    """The recipes' complete evaluations by name, and a remark on incomplete ones. Raises StageError if all are."""
    readers: dict[str, Reader] = {}
    missing = []
    for graph in graphs:
        for node in evaluations_of(graph):
            name = f"{graph.recipe.name} {node.use.name}" if len(graphs) > 1 else node.use.name
            if complete(graph, node):
                readers[name] = Reader(graph.folder(node))
            else:
                missing.append(name)
    if not readers:
        recipes = " and ".join(str(graph.recipe.path) for graph in graphs)
        raise StageError(f"no evaluation of {recipes} is complete; run `rcnn run {graphs[0].recipe.arguments}` first")
    return (
        readers,
        f"without {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not complete" if missing else "",
    )


OF_RECIPE: dict[str, Callable[[Graph, Wish], Pictures]] = {
    "detections": detections,
    "proposals": proposals,
    "anchors": anchors,
    "windows": windows,
    "segmentations": segmentations,
    "filters": filters,
    "transformations": transformations,
    "training-samples": training_samples,
}
OF_ALL: dict[str, Callable[[Sequence[Graph], Path], str]] = {
    "box-plots": box_plots,
    "precision-recall": precision_recall,
}
