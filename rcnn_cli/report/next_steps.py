"""What to do next about a detector: rules on the numbers of its evaluation, diagnosis, proposals and training data.

Each rule gives a step or nothing. A step states a number, what it means, and where on the page it comes from; `gain` is
at most what could be won, in points of AP or of recall, and ranks the steps. docs/report.md lists the rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rcnn_cli.looking.recall import Measured, scored_by
from rcnn_cli.recipes.graph import Node
from rcnn_cli.report.runs import Run
from rcnn_cli.report.tables import gains
from rcnn_cli.running.splits import training_splits
from stages.detect import RIDGE
from stages.diagnose.report import GAINS
from stages.eval.confusion import Confusion
from stages.eval.report import MEASURES
from stages.matching.proposals import recall_at
from stages.plurals import number_of

LEAST_LOST = 0.02
"""The least share of the objects that is worth a step: not covered by a proposal, or covered and never found."""
LEAST_GAIN = 0.01
"""The least gain in mean AP, in [0, 1], from fixing a type of error."""
FEW_OBJECTS = 20
"""A class with fewer objects in training is rare."""
LEAST_GAP = 0.1
"""The least difference of mAP on the training images and on the evaluated ones, in [0, 1]."""
MOST_STEPS = 6
MOST_NAMED = 5

REMEDIES, RECALL, CONFUSION, OBJECTS, RUNS = "remedies", "recall", "confusion", "objects", "runs"
"""The places of the page that steps refer to, as the template names them."""


@dataclass(frozen=True)
class Step:
    """`number` and `unit` are its gain in words ("+6.8", "recall"); `text` says what is and what helps;
    `places` are where its numbers come from, the gain's first: some of the places above."""

    gain: float
    unit: str
    text: str
    places: tuple[str, ...]

    @property
    def number(self) -> str:
        """The gain in points."""
        return f"+{100 * self.gain:.1f}"


@dataclass(frozen=True)
class Known:
    """What is known of a run; what is not is None or empty. `diagnosis`: its summary; `covered`: the share of the
    objects that the proposals cover; `missed`: the share that no detection finds at any score; `training`: objects of
    each class in the training set; `training_map`: the mAP of the same detector on the images it was trained on."""

    run: Run
    diagnosis: Mapping[str, Any] | None = None
    covered: float | None = None
    missed: float | None = None
    confusion: Confusion | None = None
    training: Mapping[str, int] | None = None
    training_map: float | None = None


def next_steps(known: Known) -> list[Step]:
    """The steps that apply, those that could win most first, at most MOST_STEPS."""
    steps = [step for rule in RULES for step in rule(known)]
    return sorted(steps, key=lambda step: -step.gain)[:MOST_STEPS]


def proposals_limit(known: Known) -> Iterable[Step]:
    """Objects that no proposal covers cannot be found."""
    if known.covered is None or 1 - known.covered < LEAST_LOST:
        return
    what = boxes_of(known.run)
    yield Step(
        1 - known.covered,
        "recall",
        f"The {what} limit recall to {100 * known.covered:.1f} % at an IoU of {known.run.summary['iou']:g}. "
        + ("Try more of them, or another method (`[propose]`)." if what == "proposals" else "Try more scales."),
        (RECALL,),
    )


def lost_after_proposals(known: Known) -> Iterable[Step]:
    """Objects that a proposal covers and that no detection matches, however low its score: suppression, caps, boxes
    moved away."""
    if known.covered is None or known.missed is None:
        return
    covered, found = as_printed(known.covered), as_printed(1 - known.missed)
    lost = as_printed(covered - found)
    if lost >= LEAST_LOST:
        yield Step(
            lost,
            "recall",
            f"The {boxes_of(known.run)} cover {100 * covered:.1f} % of the objects, but the detections find only "
            f"{100 * found:.1f} %, whatever their score: {100 * lost:.1f} % are lost in between. "
            "Look at what suppression and the caps remove (`detect.nms_iou`, `detect.max_per_image`): "
            "`rcnn explain` tells it image by image.",
            (RECALL,),
        )


def localisation_costs(known: Known) -> Iterable[Step]:
    """Poor localisations and duplicates, if they were right."""
    gain = gain_of(known, "Loc right")
    if gain >= LEAST_GAIN:
        regressed = has_regression(known.run.detector)
        advice = (
            "Proposals that fit better, or a regressor trained on more objects, would help."
            if regressed
            else "The boxes are not refined: add box regression (`[train-bbox]`, or `detect.regression = 'network'`)."
        )
        yield Step(gain, "AP", f"Poor localisation and duplicates cost {100 * gain:.1f} points. {advice}", (REMEDIES,))


def confusion_costs(known: Known) -> Iterable[Step]:
    """Detections on objects of other classes, similar or not."""
    gains_by_type = {kind: as_printed(gain_of(known, f"no {kind}")) for kind in ("Sim", "Oth")}
    costly = {kind: gain for kind, gain in gains_by_type.items() if gain > 0}
    gain = as_printed(sum(costly.values()))
    if gain < LEAST_GAIN:
        return
    pairs = known.confusion.frequent(1) if known.confusion else []
    most = "".join(
        f" Most often, {true} is taken for {other}: {count} of {of} objects." for true, other, count, of in pairs
    )
    parts = " and ".join(f"{kind} {100 * part:+.1f}" for kind, part in costly.items())
    together = f"{parts} together" if len(costly) > 1 else parts
    yield Step(
        gain,
        "AP",
        f"Confusion of classes costs {100 * gain:.1f} points ({together}).{most} More examples of the two, "
        "or fine-tuning, help to tell them apart.",
        (REMEDIES, CONFUSION) if pairs else (REMEDIES,),
    )


def background_costs(known: Known) -> Iterable[Step]:
    """False positives on the background."""
    gain = gain_of(known, "no BG")
    if gain >= LEAST_GAIN:
        yield Step(
            gain,
            "AP",
            f"False positives on the background cost {100 * gain:.1f} points. More training images give more hard "
            "negatives.",
            (REMEDIES,),
        )


def rare_classes(known: Known) -> Iterable[Step]:
    """Classes with few objects in training whose AP is below that of the others: the gain if they reached it."""
    if known.training is None:
        return
    measure = MEASURES[known.run.summary["metric"]]
    aps = {name: each[measure] for name, each in known.run.summary["classes"].items() if each[measure] is not None}
    rare = [name for name in aps if known.training.get(name, 0) < FEW_OBJECTS]
    others = [ap for name, ap in aps.items() if name not in rare]
    if not rare or not others:
        return
    below = {name: float(np.mean(others)) - aps[name] for name in rare if aps[name] < np.mean(others)}
    gain = sum(below.values()) / len(aps)
    if gain < LEAST_GAIN:
        return
    worst = sorted(below, key=lambda name: -below[name])
    named = [f"{name} has {number_of(known.training.get(name, 0), 'object')} in training (AP {100 * aps[name]:.1f} %)"
             for name in worst[:MOST_NAMED]]  # fmt: skip
    more = f", and {len(worst) - MOST_NAMED} more classes have fewer than {FEW_OBJECTS}" if worst[MOST_NAMED:] else ""
    yield Step(
        gain,
        "AP",
        f"{'; '.join(named)}{more}. The other classes have a mean AP of {100 * np.mean(others):.1f} %: annotate more.",
        (OBJECTS,),
    )


def overfitting(known: Known) -> Iterable[Step]:
    """A detector that is much better on the images that it was trained on."""
    here = known.run.summary["map"]
    if known.training_map is None or here is None or known.training_map - here < LEAST_GAP:
        return
    yield Step(
        known.training_map - here,
        "AP",
        f"On the training images mAP is {100 * known.training_map:.1f} %, here {100 * here:.1f} %: the detector has "
        "learnt them by heart. More images or augmentation help, a larger network does not.",
        (RUNS,),
    )


RULES = (
    proposals_limit,
    lost_after_proposals,
    localisation_costs,
    confusion_costs,
    background_costs,
    rare_classes,
    overfitting,
)


def gain_of(known: Known, heading: str) -> float:
    """The gain in mean AP of a remedy, by its heading (GAINS), in [0, 1]; 0 if unknown."""
    if known.diagnosis is None or known.diagnosis["ap"] is None or heading not in GAINS:
        return 0.0
    return gains(known.diagnosis).get(heading, 0.0)


def as_printed(share: float) -> float:
    """A share to a tenth of a percent, so that sums and differences agree with the numbers that the page shows."""
    return round(100 * share, 1) / 100


def boxes_of(run: Run) -> str:
    """What the detector scores: "proposals" or "windows"."""
    node = scored_by(run.detector)
    return "proposals" if node is None or node.use.stage.makes == "proposals" else "windows"


def has_regression(detector: Node) -> bool:
    """Whether the detector refines its boxes."""
    settings = detector.settings
    return bool(settings.bbox_regression) and (settings.regression != RIDGE or "regressor" in detector.sources)


def covered_share(run: Run, measured: Mapping[str, Measured]) -> float | None:
    """The share of the objects that the boxes the detector scores cover at the evaluation's IoU; None if unknown.

    `measured`: the recall of proposals, by their cache's key."""
    node = scored_by(run.detector)
    proposals = None if node is None else measured.get(run.graph.identity(node).key)
    if proposals is None or not len(proposals.coverage.overlaps):
        return None
    return float(recall_at(proposals.coverage.overlaps[:, -1], np.array([run.summary["iou"]]))[0])


def other_training_splits(run: Run) -> list[str]:
    """The datasets that the run's detector was trained on, without that which it is evaluated on."""
    return [name for name in training_splits(run.graph, run.node) if name != run.node.dataset]


def training_objects(run: Run) -> dict[str, int] | None:
    """Objects of each class in the set from which the run's detector learnt its classes, without difficult ones; of a
    set with several sources, in all of them. None where that set has no boxes, or is the one that is evaluated."""
    classifier = classifier_of(run.detector)
    if classifier is None or "dataset" not in classifier.use.stage.kinds or classifier.dataset == run.node.dataset:
        return None
    dataset = run.graph.dataset(classifier.dataset)
    labels = [record.labels[~record.difficult] for record in map(dataset.record, dataset.image_ids)]
    counts = np.bincount(np.concatenate([np.zeros(0, np.int64), *labels]), minlength=len(dataset.classes))
    return dict(zip(dataset.classes, counts.tolist(), strict=True))


def classifier_of(detector: Node) -> Node | None:
    """The training that a detector's classes come from: its SVMs', else that of the network whose probabilities it
    scores; None for a network that the recipe does not train."""
    features = detector.made_from("features")
    scorer = detector.sources.get("svm") or (features and features.sources.get("network"))
    return scorer if isinstance(scorer, Node) else None


def training_map_of(run: Run, runs: Sequence[Run]) -> float | None:
    """The mAP of the same detector on images that it was trained on, if one of `runs` is that; else None."""
    splits = other_training_splits(run)
    for other in runs:
        same = other.graph is run.graph and other.detector.use is run.detector.use
        if same and other.node.dataset in splits and other.summary["metric"] == run.summary["metric"]:
            return None if other.summary["map"] is None else float(other.summary["map"])
    return None
