"""`rcnn explain`: the way of one image's detections through the stages, and why its objects were missed."""

from __future__ import annotations

import difflib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cache import Reader, Record
from rcnn_cli.looking.evaluated import complete_evaluation, error_settings, precisions
from rcnn_cli.looking.photos import readable
from rcnn_cli.looking.showing import evaluation_for
from rcnn_cli.recipes.detectors import choice_told, detector_node, detector_of, evaluations_of
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.recipes.recipe import NETWORK
from rcnn_cli.running.runner import Computed, complete, on_demand, open_input
from stages.contract.errors import StageError
from stages.contract.execution import Execution
from stages.contract.settings import nearest
from stages.datasets.photos import Photos
from stages.detect import score_of
from stages.detect.trace import Trace
from stages.detections import DetectionSet, best_first, detections_from_arrays, read_thresholds
from stages.eval import Settings as EvalSettings
from stages.eval.report import read_curves, score_cuts
from stages.images.reading import Pixels, read_image
from stages.masks import COLUMNS, Mask, read_mask
from stages.matching.average_precision import Curve
from stages.matching.ground_truth import listed
from stages.matching.judgement import Judged, judge
from stages.matching.objects import Objects, counted_objects, read_objects
from stages.plurals import number_of
from stages.propose import Settings as ProposeSettings
from stages.propose.anchor_trace import AnchorTrace
from stages.propose.methods import METHODS
from stages.training.anchor_settings import AnchorTraining

if TYPE_CHECKING:
    from stages.extract.pictures import View

log = logging.getLogger("rcnn")

SCORES_OF_PROPOSALS = "scores"
"""The column of a method that ranks its proposals."""


@dataclass(frozen=True)
class Chosen:
    """A detector, and the evaluation (None: there is none) whose curves give the cuts and whose rules hold."""

    graph: Graph
    detector: Node
    evaluation: Node | None

    @cached_property
    def curves(self) -> Mapping[str, Curve]:
        """The evaluation's curves by class."""
        return read_curves(Reader(self.graph.folder(self.evaluation))) if self.evaluation else {}

    @property
    def least(self) -> float:
        """The score from which detections are shown where there is no evaluation."""
        return score_of(self.detector.settings).least

    @property
    def rules(self) -> EvalSettings:
        """What counts as found."""
        rules: EvalSettings = self.evaluation.settings if self.evaluation else EvalSettings()
        return rules


@dataclass(frozen=True)
class Anchors:
    """What becomes of an image's anchors (`trace`), the `rules` by which training labels them, and the settings of the
    `proposals`."""

    trace: AnchorTrace
    rules: AnchorTraining
    proposals: ProposeSettings


@dataclass(frozen=True)
class Explained:
    """One image explained. K classes of the detector, d detections, m objects.

    `name` is the image's id (`split` its dataset) or a photo's file name (`split` is None, and there are no objects).
    `cuts` and `thresholds` float32 [K]: the scores from which a class's detections are shown, and from which the caps
    keep them. `kept` int64 [d]: the rows of `trace.outcome.detections` that are kept; `detections` holds these
    detections, in the same order, `precision` float64 [d] as in `Evaluated`. `labels` are the objects' classes in the
    detector's numbers, None for one that it does not know; `names` what objects are called, "ring 2". `proposals` is
    what `proposals_of` the image are, `anchors` what `anchors_of` it are.
    """

    chosen: Chosen
    name: str
    split: str | None
    pixels: Pixels
    trace: Trace
    view: View
    cuts: NDArray[np.float32]
    thresholds: NDArray[np.float32]
    kept: NDArray[np.int64]
    detections: DetectionSet
    judged: Judged
    precision: NDArray[np.float64]
    objects: Objects
    classes: tuple[str, ...]
    labels: tuple[int | None, ...]
    names: tuple[str, ...]
    proposals: Record | None = None
    anchors: Anchors | None = None

    @property
    def noun(self) -> str:
        """What the scored boxes are: proposals, or the windows of a network that is read densely."""
        return "proposal" if self.trace.scored.levels is None else "window"

    @property
    def least(self) -> NDArray[np.float32]:
        """The score from which a detection counts: shown and kept, float32 [K]."""
        return np.maximum(self.cuts, self.thresholds)

    @cached_property
    def above(self) -> NDArray[np.int64]:
        """The candidates above the cuts, by their own scores or those of the boxes they were merged into: rows of
        `trace.moved`, int64 [k], ascending."""
        return np.flatnonzero(self.trace.outcome.scores >= self.least[self.trace.moved.labels])

    @property
    def leaders(self) -> NDArray[np.int64]:
        """The candidate that each detection is, or the highest-scored of those merged into it, int64 [d]: a row of
        `trace.moved`."""
        return self.trace.outcome.leaders[self.kept]

    def members(self, row: int) -> NDArray[np.int64]:
        """The candidates that became a detection, went into it or were suppressed by it: rows of `trace.moved`, int64
        [k], ascending."""
        return np.flatnonzero(self.trace.outcome.groups == self.kept[row])

    @cached_property
    def shown(self) -> NDArray[np.int64]:
        """The detections from the cut on, the best precision and score first."""
        every = self.detections.every
        rows = np.flatnonzero(every.scores >= self.cuts[every.labels])
        return rows[best_first(every.scores[rows], self.precision[rows])]

    def is_shown(self, row: int) -> bool:
        """Whether a detection (-1: none) is."""
        return row >= 0 and bool(self.detections.every.scores[row] >= self.cuts[self.detections.every.labels[row]])

    def region(self, proposal: int) -> Mask | None:
        """A proposal's region, bool [H, W]; None where it has no mask."""
        if not self.has_regions:
            return None
        assert self.proposals is not None
        rows = np.flatnonzero((self.proposals["boxes"] == self.trace.scored.boxes[proposal]).all(axis=1))
        return read_mask(self.proposals, int(rows[0])) if len(rows) else None

    @property
    def has_regions(self) -> bool:
        """Whether the proposals have masks."""
        return self.proposals is not None and set(COLUMNS) <= set(self.proposals)

    @cached_property
    def proposal_scores(self) -> NDArray[np.float32] | None:
        """The scores that the proposals have from the method that found them, float32 [n], highest first; None if it
        does not rank them, or if the features are those of other proposals."""
        if self.proposals is None or SCORES_OF_PROPOSALS not in self.proposals:
            return None
        if not np.array_equal(self.proposals["boxes"], self.trace.scored.boxes):
            return None
        scores: NDArray[np.float32] = self.proposals[SCORES_OF_PROPOSALS]
        return scores


def choose(graph: Graph, evaluation: str | None, detector: str | None) -> Chosen:
    """The detector and evaluation that the options name; by default the recipe's evaluation and what it evaluates.

    Raises StageError where there is none, IncompleteCache, naming the command to run, where the evaluation is not
    complete.
    """
    if evaluation and detector:
        raise StageError("--evaluation and --detector: give only one; an evaluation already names its detector")
    if detector or not evaluations_of(graph):
        node = detector_node(graph, detector)
        tell_choice(graph, node, detector)
        reading = evaluation_for(graph, node)
        chosen = Chosen(graph, node, reading)
        if reading is None:
            log.warning(
                "%s has no complete evaluation: detections with a score of %g or more are shown",
                node.name,
                chosen.least,
            )
        return chosen
    node = complete_evaluation(graph, evaluation)
    tell_choice(graph, detector_of(node), evaluation)
    return Chosen(graph, detector_of(node), node)


def tell_choice(graph: Graph, node: Node, named: str | None) -> None:
    """Says which of several detectors is taken where no option (`named`) said it."""
    if named is None and choice_told(graph, node):
        log.info(choice_told(graph, node))


def computed(chosen: Chosen, split: str | None) -> list[Node]:
    """The stages that explaining an image runs: for a photo (`split` None) with detect, else those before it."""
    if split is None:
        return list(chosen.detector.image_path())
    return chosen.graph.uncached_sources(detector_on(chosen, split))


def detector_on(chosen: Chosen, split: str) -> Node:
    """The chosen detector on a split."""
    same = chosen.detector.dataset == split
    return chosen.detector if same else chosen.graph.add(chosen.detector.use, split, ())


def explain_image(chosen: Chosen, image: str, split: str | None, execution: Execution) -> Explained:
    """An image of the recipe's dataset `split`, by its id, or (None) a photo, by its path, explained.

    Raises StageError for one that was skipped as unreadable, IncompleteCache where something that is needed is not
    there.
    """
    if split is None:
        return explain_photo(chosen, Path(image), execution)
    graph, node = chosen.graph, detector_on(chosen, split)
    computed: Computed = {}
    trace = trace_of(graph, node, image, execution, computed=computed)
    thresholds = np.full(len(trace.scored.classes), -np.inf, np.float32)
    if complete(graph, node):
        cached = Reader(graph.folder(node))
        thresholds = read_thresholds(cached)
        check_against(cached, image, trace)
    elif graph.readers(node) or node is chosen.detector:
        log.warning(
            "%s is not complete: the cap over all its images is unknown and left out; complete it with `rcnn run %s`",
            *(node.name, graph.recipe.arguments),
        )
    else:
        log.info("The recipe does not detect on all of '%s', so the cap over its images is left out.", split)
    dataset = graph.dataset(split, "dataset")
    objects = counted_objects(read_objects(dataset, [image]), chosen.rules.use_difficult)
    pixels, proposals = dataset.read_image(image), proposals_of(graph, node, image, execution, computed=computed)
    explained = put_together(
        chosen, image, split, pixels, trace, thresholds, objects, tuple(dataset.classes), proposals
    )
    return replace(explained, anchors=anchors_of(graph, node, image, execution, computed))


def explain_photo(chosen: Chosen, path: Path, execution: Execution) -> Explained:
    """A photo: proposals and features are computed now."""
    pixels, name, photos = read_image(path), Path(readable(path)), Photos()
    photos.show(name.stem, pixels, path)
    computed: Computed = {}
    trace = trace_of(chosen.graph, chosen.detector, name.stem, execution, photos, computed)
    nothing = read_objects(None, [])
    unlimited = np.full(len(trace.scored.classes), -np.inf, np.float32)
    proposals = proposals_of(chosen.graph, chosen.detector, name.stem, execution, photos, computed)
    return put_together(chosen, name.name, None, pixels, trace, unlimited, nothing, (), proposals)


def split_of(chosen: Chosen, image: str, split: str | None) -> str | None:
    """The dataset that has the image: `split`, or the first of the detector's and of the others that there are features
    of. None for a photo. Raises StageError for what is neither."""
    graph, detector = chosen.graph, chosen.detector
    if split is not None and split not in graph.recipe.datasets:
        raise StageError(
            f"--split {split}: is not a dataset of {graph.recipe.path}{nearest(split, graph.recipe.datasets)}"
        )
    features = detector.made_from("features")
    assert features is not None
    others = [node.dataset for node in graph.nodes.values() if node.use is features.use]
    splits = [split] if split else list(dict.fromkeys((detector.dataset, *others)))
    ids = {name: graph.dataset(name, "dataset").image_ids for name in splits}
    containing = next((name for name in splits if image in ids[name]), None)
    if containing is not None:
        return containing
    if split is None and Path(image).is_file():
        return None
    close = difflib.get_close_matches(
        image, [image_id for of_split in ids.values() for image_id in of_split], n=1, cutoff=0.5
    )
    advice = f"did you mean '{close[0]}'?" if close else f"the first is '{next(iter(ids.values()))[0]}'"
    kinds = "neither a photo nor an image of" if split is None else "not an image of"
    raise StageError(
        f"{image}: is {kinds} the {'dataset' if len(splits) == 1 else 'datasets'} {listed(splits)}; {advice}"
    )


def trace_of(
    graph: Graph,
    node: Node,
    image: str,
    execution: Execution,
    photos: Photos | None = None,
    computed: Computed | None = None,
) -> Trace:
    """The trace of an image of the detector's split, or of the `photos`, from cached features where there are some.

    `computed`: the readers on demand that there are, to which those that are made here are added.
    """
    detector = on_demand(graph, node, execution.in_worker, photos, computed)
    trace: Trace = detector.trace(image)
    reason = detector.manifest["skipped"].get(image)
    if reason:
        raise StageError(f"{image}: was skipped because it is unreadable (it {reason}); there is nothing to explain")
    return trace


def proposals_of(
    graph: Graph,
    node: Node,
    image: str,
    execution: Execution,
    photos: Photos | None = None,
    computed: Computed | None = None,
) -> Record | None:
    """The boxes of an image's proposals with their masks and scores, as for `trace_of`; None where they have neither,
    or are not kept."""
    proposals = node.made_from("proposals")
    if proposals is None or not (proposals.settings.masks or METHODS[proposals.settings.method].ranks):
        return None
    if photos is None and complete(graph, proposals):
        source = Reader(graph.folder(proposals))
    elif photos is not None or not graph.is_cached(proposals):
        source = on_demand(graph, proposals, execution.in_worker, photos, computed)
    else:
        return None
    known = [name for name in ("boxes", SCORES_OF_PROPOSALS, *COLUMNS) if name in source.schema.columns()]
    record: Record = source.read(image, known)
    return record


def anchors_of(graph: Graph, node: Node, image: str, execution: Execution, computed: Computed) -> Anchors | None:
    """What becomes of the anchors of an image of the detector's split, computed now; None where proposals do not come
    from a region proposal network."""
    proposals = node.made_from("proposals")
    if proposals is None or not METHODS[proposals.settings.method].reads_maps:
        return None
    missing = next((source for source in graph.reads(proposals) if not complete(graph, source)), None)
    if missing is not None:
        log.info("%s is not complete: what becomes of the anchors is left out", missing.name)
        return None
    trace = on_demand(graph, proposals, execution.in_worker, computed=computed).trace(image)
    return None if trace is None else Anchors(trace, anchor_rules(proposals), proposals.settings)


def anchor_rules(proposals: Node) -> AnchorTraining:
    """The settings by which the region proposal network was trained; the paper's where the recipe does not train it."""
    node: Node | None = proposals
    while node is not None and not isinstance(node.settings, AnchorTraining):
        node = next((source for source in node.upstream() if source.use.stage.makes == NETWORK), None)
    return AnchorTraining() if node is None else node.settings


def check_against(cached: Reader, image: str, trace: Trace) -> None:
    """Warns if the cached detections of the image are not those of the trace."""
    record = cached.read(image, ("boxes", "score", "label"))
    detections = trace.detections
    pairs = (
        (record["boxes"], detections.boxes),
        (record["score"], detections.scores),
        (record["label"], detections.labels),
    )
    if not all(np.array_equal(*pair) for pair in pairs):
        log.warning(
            "%s: the cached detections differ: they were made on another device or with another batch size", image
        )


def put_together(
    chosen: Chosen,
    name: str,
    split: str | None,
    pixels: Pixels,
    trace: Trace,
    thresholds: NDArray[np.float32],
    objects: Objects,
    classes: tuple[str, ...],
    proposals: Record | None = None,
) -> Explained:
    """All that is known of the image."""
    from stages.extract.pictures import View  # imports PyTorch

    graph, detector, errors = chosen.graph, chosen.detector, error_settings(chosen.graph)
    thresholds = np.maximum(thresholds, trace.thresholds)
    known_classes, size = trace.scored.classes, trace.scored.image_size
    detections = detections_from_arrays(known_classes, [(name, trace.detections.above(thresholds))], {name: size})
    cuts = score_cuts(chosen.curves, known_classes)
    features = detector.made_from("features")
    assert features is not None
    network = open_input(graph, features, "network", Execution())
    known = {class_name: label for label, class_name in enumerate(known_classes)}
    return Explained(
        chosen,
        name,
        split,
        pixels,
        trace,
        View.of(network, features.settings),
        cuts if chosen.evaluation else np.full(len(known_classes), chosen.least, np.float32),
        thresholds,
        trace.kept(thresholds),
        detections,
        judge(detections, objects, classes, chosen.rules.iou, errors.similar, errors.poor_iou),
        precisions(detections, chosen.curves),
        objects,
        classes,
        tuple(known.get(classes[label]) for label in objects.labels),
        object_names([classes[label] for label in objects.labels]),
        proposals,
    )


def object_names(classes: Sequence[str]) -> tuple[str, ...]:
    """ "ring 1", "ring 2", "star 1" for objects of these classes."""
    seen: Counter[str] = Counter()
    names = []
    for name in classes:
        seen[name] += 1
        names.append(f"{name} {seen[name]}")
    return tuple(names)


def chosen_rows(explained: Explained, number: int | None, class_name: str | None) -> tuple[list[int], list[int]]:
    """The objects and the shown detections that --object and --class ask for. Raises StageError for unknown ones."""
    if number is not None and class_name is not None:
        raise StageError("--object and --class: give only one; an object already has a class")
    objects, shown = list(range(len(explained.objects))), [int(row) for row in explained.shown]
    labels = explained.detections.every.labels
    if number is not None and not 1 <= number <= len(objects):
        numbered = ", ".join(f"{place} is {name}" for place, name in enumerate(explained.names, 1))
        raise StageError(
            f"--object {number}: {explained.name} has {number_of(len(objects), 'object')}"
            f"{': ' * bool(numbered)}{numbered}"
        )
    if number is not None:
        return [number - 1], [row for row in shown if labels[row] == explained.labels[number - 1]]
    if class_name is not None:
        every = list(dict.fromkeys([*explained.classes, *explained.trace.scored.classes]))
        if class_name not in every:
            raise StageError(f"--class {class_name}: no such class{nearest(class_name, every)}")
        objects = [row for row in objects if explained.classes[explained.objects.labels[row]] == class_name]
        shown = [row for row in shown if explained.trace.scored.classes[labels[row]] == class_name]
    return objects, shown
