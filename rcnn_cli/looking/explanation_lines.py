"""What `rcnn explain` tells of an image's objects and detections: sentences and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rcnn_cli.looking.evaluated import NAMES, similar_sets
from rcnn_cli.looking.explanation import Anchors, Explained, chosen_rows
from stages.boxes import iou_matrix, reaches
from stages.detect.misses import Miss, Reason, why_missed
from stages.detections.candidates import with_best_classes
from stages.detections.region_proposals import Step
from stages.matching.error_types import BACKGROUND, DIFFICULT, FOUND, LOCALISATION, OTHER, SIMILAR, similar_labels
from stages.plurals import number_of, plural
from stages.propose.anchor_trace import AnchorsOfObject

AROUND = 3
"""The proposals that are shown around an object."""


@dataclass(frozen=True)
class Line:
    """What is told of one object or detection: a `sentence`, perhaps a `detail`, the scored proposals `around` an
    object, and its `anchors`; where it happened, `proposal` and the detector's `label` (None without); the `box` of the
    object (None of a detection); all numbers, as JSON `values`. `merged`: the row of `trace.outcome.detections` that it
    is about, if boxes are merged.
    """

    name: str
    sentence: str
    verdict: str
    box: NDArray[np.float32] | None
    proposal: int | None
    label: int | None
    values: dict[str, Any]
    detail: str = ""
    around: str = ""
    anchors: str = ""
    merged: int | None = None


# What is told of an object


def tell_object(explained: Explained, index: int) -> Line:
    """What became of an object."""
    trace, label, box = explained.trace, explained.labels[index], explained.objects.boxes[index]
    name, row = explained.names[index], int(explained.judged.found_by[index])
    overlaps = iou_matrix(trace.scored.boxes, box[None])[:, 0]
    best = int(overlaps.argmax()) if len(overlaps) else None
    values: dict[str, Any] = {
        "object": index + 1,
        "name": name,
        "box": [float(corner) for corner in box],
        "difficult": bool(explained.objects.difficult[index]),
        "covering": int(np.sum(reaches(overlaps, explained.chosen.rules.iou))),
        "best_proposal": proposal_values(explained, best, label, box),
        **around_values(explained, box),
        **anchors_values(explained, box),
    }
    if explained.objects.difficult[index]:
        lying = [at for at in range(len(explained.kept)) if explained.judged.own[at] == index]
        ignored = sum(explained.is_shown(at) and explained.judged.verdicts[at] == DIFFICULT for at in lying)
        sentence = f"{name} is difficult: it need not be found, and {number_of(ignored, 'detection')} of it "
        sentence += "is ignored" if ignored == 1 else "are ignored"
        return Line(name, sentence, "difficult", box, best, label, values)
    if explained.is_shown(row):
        proposal = int(trace.candidates.rows[explained.leaders[row]])
        return Line(
            name,
            f"{name} was found: {found_words(explained, row, box)}",
            "found",
            box,
            proposal,
            label,
            {**values, "verdict": "found", "decided_at": proposal_values(explained, proposal, label, box)},
            merged=merged_row(explained, row),
        )
    miss = why_missed(trace, box, label, explained.least, explained.chosen.rules.iou)
    at = best if miss.proposal is None else miss.proposal
    values |= {
        "verdict": "missed",
        "reason": str(miss.reason),
        "decided_at": proposal_values(explained, at, label, box),
        **absorber_values(explained, miss),
    }
    sentence = f"{name} was missed: {miss_words(explained, miss, index)}"
    return Line(
        name,
        sentence,
        "missed",
        box,
        at,
        label,
        values,
        best_words(explained, values["best_proposal"]),
        around_words(explained, box),
        anchors_words(explained, box),
        None if miss.candidate is None or not trace.merges else int(trace.outcome.groups[miss.candidate]),
    )


def merged_row(explained: Explained, row: int) -> int | None:
    """What `Line.merged` is of a detection."""
    return int(explained.kept[row]) if explained.trace.merges else None


def proposals_around(explained: Explained, box: NDArray[np.float32]) -> list[int]:
    """The AROUND proposals that overlap the object `box` most, the most first; none if proposals have no scores."""
    if explained.proposal_scores is None:
        return []
    overlaps = iou_matrix(explained.trace.scored.boxes, box[None])[:, 0]
    return [int(row) for row in np.argsort(-overlaps, kind="stable")[:AROUND] if overlaps[row] > 0]


def around_values(explained: Explained, box: NDArray[np.float32]) -> dict[str, Any]:
    """The numbers of the proposals around an object: IoU, score and rank among the image's; nothing without scores."""
    scores = explained.proposal_scores
    if scores is None:
        return {}
    boxes = explained.trace.scored.boxes
    around = [
        {
            "proposal": row,
            "box": [float(corner) for corner in boxes[row]],
            "iou": overlap(boxes[row], box),
            "proposal_score": float(scores[row]),
            "proposal_rank": row + 1,
        }
        for row in proposals_around(explained, box)
    ]
    return {"proposals_around": around}


def around_words(explained: Explained, box: NDArray[np.float32]) -> str:
    """The proposals around a missed object in words; nothing without scores."""
    scores = explained.proposal_scores
    if scores is None:
        return ""
    boxes = explained.trace.scored.boxes
    told = [
        f"IoU {overlap(boxes[row], box):.2f}, score {scores[row]:.2f}, rank {row + 1:,}"
        for row in proposals_around(explained, box)
    ]
    return f"proposals around it, of {len(scores):,}: {'; '.join(told) or 'none'}"


def anchors_values(explained: Explained, box: NDArray[np.float32]) -> dict[str, Any]:
    """The numbers of the anchors around an object: how many training makes positive for it, the best of them by score,
    and those that overlap it most before and after they are moved; nothing where there are no anchors."""
    if explained.anchors is None:
        return {}
    around = explained.anchors.trace.around(box, explained.anchors.rules)
    told = {
        "positive": len(around.positive),
        "positives": [anchor_values(explained.anchors, around, int(row)) for row in around.positive[:AROUND]],
        "best": anchor_values(explained.anchors, around, around.best),
        "best_once_moved": anchor_values(explained.anchors, around, around.best_after),
    }
    return {"anchors": told}


def anchor_values(anchors: Anchors, around: AnchorsOfObject, anchor: int) -> dict[str, Any]:
    """An anchor's numbers for an object; boxes are in pixels of the image, and reach over its edge as anchors do."""
    trace = anchors.trace
    fate = trace.steps.fate(anchor)
    corners = trace.anchors[anchor].astype(np.float64) / trace.scale
    values: dict[str, Any] = {
        "anchor": anchor,
        "box": corners.tolist(),
        "iou": float(around.overlaps[anchor]),
        "box_once_moved": trace.in_image(trace.steps.moved[anchor][None])[0].tolist(),
        "iou_once_moved": float(around.after[anchor]),
        "anchor_score": float(trace.scores[anchor]),
        "positive": bool(np.isin(anchor, around.positive)),
        "became": str(fate.step),
        "rank": fate.rank,
    }
    if fate.by is not None:
        values["suppressed_by"] = {
            "anchor": fate.by,
            "rank": trace.steps.fate(fate.by).rank,
            "iou": overlap(trace.steps.moved[anchor], trace.steps.moved[fate.by]),
            "iou_with_object": float(around.after[fate.by]),
        }
    return values


def anchors_words(explained: Explained, box: NDArray[np.float32]) -> str:
    """What became of the anchors around a missed object, in words; nothing where there are none."""
    if explained.anchors is None:
        return ""
    anchors, trace = explained.anchors, explained.anchors.trace
    around = trace.around(box, anchors.rules)
    count = len(around.positive)
    told = f"anchors: {count or 'none'} positive for it by the rules of training"
    if around.overlaps[around.best] > 0:
        told += f"; the nearest {anchor_words(anchors, around, around.best)}"
    if around.best_after != around.best and around.after[around.best_after] > 0:
        told += f"; the nearest once moved {anchor_words(anchors, around, around.best_after)}"
    return told


def anchor_words(anchors: Anchors, around: AnchorsOfObject, anchor: int) -> str:
    """One anchor: its size and IoU, where it was moved, its score, and what became of it."""
    trace = anchors.trace
    width, height = (trace.anchors[anchor, 2:] - trace.anchors[anchor, :2]) / trace.scale
    moved = f"IoU {around.overlaps[anchor]:.2f}, moved to {around.after[anchor]:.2f}"
    return (
        f"({width:.0f} x {height:.0f}, {moved}, score {trace.scores[anchor]:.2f}) {fate_words(anchors, around, anchor)}"
    )


def fate_words(anchors: Anchors, around: AnchorsOfObject, anchor: int) -> str:
    """What became of an anchor."""
    steps, settings = anchors.trace.steps, anchors.proposals
    fate = steps.fate(anchor)
    if fate.step is Step.TOO_SMALL:
        width, height = (steps.moved[anchor, 2:] - steps.moved[anchor, :2]) / anchors.trace.scale
        return f"was too small, {width:.0f} x {height:.0f} once moved and clipped"
    if fate.step is Step.NOT_AMONG_BEST:
        return f"has rank {fate.rank:,}, and only the first {settings.before_suppression:,} went on to suppression"
    if fate.step is Step.BELOW_LIMIT:
        return f"has rank {fate.rank:,} after suppression, and only the first {settings.max_boxes:,} are proposed"
    if fate.step is Step.PROPOSED:
        return f"is proposal {fate.rank:,}"
    assert fate.by is not None
    by = steps.fate(fate.by)
    which = "proposal" if by.step is Step.PROPOSED else "the box with rank"
    shared = overlap(steps.moved[anchor], steps.moved[fate.by])
    return (
        f"was suppressed by {which} {by.rank:,}, which overlaps it by {shared:.2f} and the object by "
        f"{around.after[fate.by]:.2f}"
    )


def best_words(explained: Explained, best: Mapping[str, Any] | None) -> str:
    """The proposal that overlaps a missed object most, in words; nothing where no score can be told."""
    if best is None or "score" not in best:
        return ""
    other = f"; best other class there: {best['best_other']['class']}, {best['best_other']['score']:.2f}"
    regressed = explained.trace.scored.regress is not None
    after = f", {best['iou_after_regression']:.2f} after regression" if regressed else ""
    return (
        f"its nearest {explained.noun}: IoU {best['iou']:.2f}{after}; "
        f"score {best['score']:.2f}, rank {best['rank']:,}{other if 'best_other' in best else ''}"
    )


def found_words(explained: Explained, row: int, box: NDArray[np.float32]) -> str:
    """How a detection found the object `box`."""
    trace, candidate, detections = explained.trace, int(explained.leaders[row]), explained.detections.every
    proposal, label = int(trace.candidates.rows[candidate]), int(trace.moved.labels[candidate])
    before, after = (overlap(corners, box) for corners in (trace.scored.boxes[proposal], trace.moved.boxes[candidate]))
    moved = f", {after:.2f} after regression" if trace.scored.regress is not None else ""
    rank = f"rank {trace.rank(proposal, label):,} of {len(trace.scored.boxes):,}"
    score = f"score {detections.scores[row]:.2f}{precision_words(explained, row)}"
    if trace.merges:
        merged = f"IoU {overlap(detections.boxes[row], box):.2f}, {merged_words(explained, row)}"
        return f"{score}; {merged}; its best-scored {explained.noun}'s IoU is {before:.2f}{moved}; {rank}"
    return f"{score}; its {explained.noun}'s IoU is {before:.2f}{moved}; {rank}"


def miss_words(explained: Explained, miss: Miss, index: int) -> str:
    """Why an object was missed, as the end of a sentence."""
    trace, box, label = explained.trace, explained.objects.boxes[index], explained.labels[index]
    name = explained.classes[explained.objects.labels[index]]
    if miss.reason == Reason.UNKNOWN or label is None:
        known = "had no examples of" if name in trace.scored.classes else "does not know"
        return f"the detector {known} the class {name}"
    if miss.proposal is None:
        return f"the image has no {plural(explained.noun, 2)}"
    before = overlap(trace.scored.boxes[miss.proposal], box)
    if miss.reason == Reason.NO_PROPOSAL:
        return f"no {explained.noun} covers it; the best has an IoU of {before:.2f}"
    after = overlap(trace.after_regression(miss.proposal, label), box)
    score = trace.scored.scores[miss.proposal, label]
    if miss.reason == Reason.LOCALISATION:
        which = f"its {explained.noun} (IoU {before:.2f}, score {score:.2f})"
        return f"regression moved {which} away, to an IoU of {after:.2f}"
    if miss.reason == Reason.TAKEN:
        row = int(np.flatnonzero(explained.kept == miss.detection)[0])
        other, detections = int(explained.judged.own[row]), explained.detections.every
        own, more = (overlap(detections.boxes[row], corners) for corners in (box, explained.objects.boxes[other]))
        return (
            f"the detection on it (score {detections.scores[row]:.2f}, IoU {own:.2f}) overlaps "
            f"{explained.names[other]} more (IoU {more:.2f}) and counts for that one"
        )
    if miss.detection is not None:
        its_box, which = f"its box (IoU {after:.2f}, score {score:.2f})", what_it_is(explained, miss.detection)
        if miss.reason == Reason.MERGED:
            others = int(np.sum(trace.outcome.groups == miss.detection)) - 1
            return f"{its_box} was merged with {number_of(others, 'other box')} into {which}"
        shared = overlap(trace.moved.boxes[miss.candidate], trace.moved.boxes[miss.by])
        return f"{its_box} was suppressed, for an overlap of {shared:.2f}, by {which}"
    which = which_proposal(explained, miss, before, after)
    rank = f"rank {trace.rank(miss.proposal, label):,} of {len(trace.scored.boxes):,}"
    if trace.merges:
        return f"{which} {merged_score_words(explained, miss, label)}; {rank}"
    if miss.reason == Reason.WRONG_CLASS:
        assert miss.other is not None
        rival = trace.scored.scores[miss.proposal, miss.other]
        scored = f"scored {rival:.2f} as {trace.scored.classes[miss.other]} and {score:.2f} as {name}"
        return f"{which} {scored}, {limit(explained, label)}; {rank}"
    if score >= explained.least[label]:
        return f"{which} scored {score:.2f}, but {why_not_a_candidate(explained, miss.proposal, label)}; {rank}"
    return f"{which} scored {score:.2f}, {limit(explained, label)}; {rank}"


def merged_score_words(explained: Explained, miss: Miss, label: int) -> str:
    """Why a proposal was too low where the score that counts is that of the box it was merged into."""
    trace, proposal = explained.trace, miss.proposal
    assert proposal is not None
    own, deciding = trace.scored.scores[proposal, label], trace.deciding_scores(proposal)
    words = f"scored {own:.2f}"
    if miss.other is not None:
        rival = f"went into a box that scores {deciding[miss.other]:.2f} as {trace.scored.classes[miss.other]}"
        words = f"{rival}, and {words} as {trace.scored.classes[label]}"
    if miss.candidate is None:
        return f"{words}, but {why_not_a_candidate(explained, proposal, label)}"
    if deciding[label] != own:
        words += f" and went into a box that scores {deciding[label]:.2f}"
    return f"{words}, {limit(explained, label)}"


def which_proposal(explained: Explained, miss: Miss, before: float, after: float) -> str:
    """The proposal at which an object was missed."""
    if not miss.covering:
        return f"a {explained.noun} (IoU {before:.2f}) that regression moved onto it ({after:.2f})"
    of_several = f"the best-scored of its {number_of(miss.covering, explained.noun)}"
    which = f"its only {explained.noun}" if miss.covering == 1 else of_several
    return f"{which} (IoU {before:.2f})"


def limit(explained: Explained, label: int) -> str:
    """What a score was below."""
    cut, threshold = explained.cuts[label], explained.thresholds[label]
    if np.isinf(cut):
        name = explained.trace.scored.classes[label]
        return f"and no {name} is shown, as at no score are half of the {name} detections right"
    if threshold > cut:
        settings = explained.chosen.detector.settings
        if settings.cap == "image":
            return f"below the {threshold:.2f} that the cap of {settings.all_classes_at_most} per image leaves"
        if threshold == explained.trace.thresholds[label]:
            return f"below the {threshold:.2f} that the limit of {settings.max_per_image} per image leaves"
        if settings.max_per_class:
            return f"below the {threshold:.2f} that the cap of {settings.max_per_class:,} over all images leaves"
        return f"below the {threshold:.2f} that the cap of {settings.average_per_image} per image leaves"
    return f"below the cut of {cut:.2f}"


def why_not_a_candidate(explained: Explained, proposal: int, label: int) -> str:
    """Why a proposal does not compete for a class although its score would count."""
    trace, settings = explained.trace, explained.chosen.detector.settings
    if settings.classes_per_scale:
        competing = with_best_classes(trace.scored, settings.classes_per_scale).scores[proposal, label]
        if np.isneginf(competing):
            name = trace.scored.classes[label]
            return f"at its scale {name} is not among the {settings.classes_per_scale} classes that compete"
    if settings.cap == "image":
        return f"only scores above {settings.least_score:g} compete"
    if settings.suppress_first:
        return f"only scores above {settings.least_candidate_score:g} compete"
    return f"is not among the {settings.max_per_image} best that compete"


def what_it_is(explained: Explained, detection: int) -> str:
    """A row of `trace.outcome.detections` in words: "the detection that found ring 1 (score 1.20)"."""
    detections = explained.trace.outcome.detections
    score = f"(score {detections.scores[detection]:.2f})"
    if explained.chosen.detector.settings.class_agnostic:
        score = f"({explained.trace.scored.classes[detections.labels[detection]]}, {score[1:]}"
    rows = np.flatnonzero(explained.kept == detection)
    if not len(rows):
        return f"a better-scored box {score}"
    row = int(rows[0])
    verdict = explained.judged.verdicts[row]
    if verdict == FOUND:
        return f"the detection that found {explained.names[explained.judged.own[row]]} {score}"
    return (
        f"a false detection {score}, {type_words(explained, row)}"
        if verdict >= LOCALISATION
        else f"a detection {score}"
    )


def overlap(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """The IoU of two boxes, float32 [4] each."""
    return float(iou_matrix(first[None], second[None])[0, 0])


def proposal_values(
    explained: Explained, proposal: int | None, label: int | None, box: NDArray[np.float32]
) -> dict[str, Any] | None:
    """A proposal's numbers for an object: its box and IoU before and after regression, its scores and its rank."""
    trace = explained.trace
    if proposal is None:
        return None
    values: dict[str, Any] = {
        "proposal": proposal,
        "box": [float(corner) for corner in trace.scored.boxes[proposal]],
        "iou": overlap(trace.scored.boxes[proposal], box),
    }
    others = [
        rival
        for rival in np.argsort(-trace.scored.scores[proposal], kind="stable")
        if rival != label and trace.scored.trained[rival]
    ]
    if others:
        values["best_other"] = {
            "class": trace.scored.classes[others[0]],
            "score": float(trace.scored.scores[proposal, others[0]]),
        }
    if label is not None:
        after = trace.after_regression(proposal, label)
        values |= {
            "score": float(trace.scored.scores[proposal, label]),
            "rank": trace.rank(proposal, label),
            "competes": trace.candidate(proposal, label) is not None,
            "box_after_regression": [float(corner) for corner in after],
            "iou_after_regression": overlap(after, box),
        }
    return values


# What is told of a detection


def tell_detection(explained: Explained, row: int) -> Line:
    """What a detection is: true, ignored, or false of which type; in a photo only its score."""
    trace, candidate, detections = explained.trace, int(explained.leaders[row]), explained.detections.every
    label, proposal = int(detections.labels[row]), int(trace.candidates.rows[candidate])
    members = explained.members(row)
    name = trace.scored.classes[label]
    score = f"{name}, score {detections.scores[row]:.2f}{precision_words(explained, row)}"
    verdict = "" if explained.split is None else NAMES[int(explained.judged.verdicts[row])]
    words = type_words(explained, row) if explained.split is not None else ""
    values = {
        **candidate_values(explained, candidate),
        "precision": as_number(explained.precision[row]),
        "verdict": verdict or None,
    }
    if trace.merges:
        values |= {
            "score": float(detections.scores[row]),
            "box": [float(corner) for corner in detections.boxes[row]],
            "merged": [candidate_values(explained, int(member)) for member in members],
        }
        become = merged_words(explained, row)
    else:
        removed = members[members != candidate]
        values["removed"] = [candidate_values(explained, int(suppressed)) for suppressed in removed]
        become = removed_words(explained, removed)
    sentence = f"{score}{': ' if words else ''}{words}; {become}"
    return Line(name, sentence, verdict, None, proposal, label, values, merged=merged_row(explained, row))


def type_words(explained: Explained, row: int) -> str:
    """What a detection is, in words."""
    judged, objects = explained.judged, explained.objects
    box = explained.detections.every.boxes[row]
    verdict, own = int(judged.verdicts[row]), int(judged.own[row])
    if verdict == FOUND:
        return f"found {explained.names[own]} (IoU {judged.overlaps[row, 0]:.2f})"
    if verdict == DIFFICULT:
        return (
            f"ignored, on the difficult {explained.names[own]}"
            if own >= 0
            else "ignored, the dataset has no such class"
        )
    if verdict == BACKGROUND:
        return "BG, there is no object"
    if verdict == LOCALISATION:
        overlapped = f"{explained.names[own]} by {judged.overlaps[row, 0]:.2f}"
        near = reaches(judged.overlaps[row, 0], explained.chosen.rules.iou)
        return f"Loc, a duplicate: it overlaps {overlapped}" if near else f"Loc, it overlaps {overlapped} only"
    name = explained.trace.scored.classes[explained.detections.every.labels[row]]
    alike = similar_labels(explained.classes, similar_sets(explained.chosen.graph))
    group = np.isin(objects.labels, alike[name])
    among = group if verdict == SIMILAR else ~group & (objects.labels != explained.classes.index(name))
    overlaps = np.where(among, iou_matrix(box[None], objects.boxes)[0], -1.0)
    which = f"it overlaps {explained.names[int(overlaps.argmax())]} by {overlaps.max():.2f}"
    return f"{NAMES[verdict]}, {which}" if verdict in (SIMILAR, OTHER) else which


def precision_words(explained: Explained, row: int) -> str:
    """ " (precision 0.93)" where it is known."""
    value = explained.precision[row]
    return "" if np.isnan(value) else f" (precision {value:.2f})"


def removed_words(explained: Explained, removed: NDArray[np.int64]) -> str:
    """How many candidates a detection suppressed."""
    if not len(removed):
        return "suppressed nothing"
    moved, labels = explained.trace.moved, explained.trace.moved.labels[removed]
    above = int(np.sum(moved.scores[removed] >= explained.least[labels]))
    return f"suppressed {number_of(len(removed), 'box')}, {above} of them above the cut"


def merged_words(explained: Explained, row: int) -> str:
    """What a detection was merged from."""
    scores = explained.trace.moved.scores[explained.members(row)]
    if len(scores) == 1:
        return "merged with no other box"
    return f"merged from {len(scores):,} boxes, scored {scores[0]:.2f} to {scores[-1]:.2f}"


def absorber_values(explained: Explained, miss: Miss) -> dict[str, Any]:
    """The numbers of what suppressed the box that an object was missed at, or of what that was merged into."""
    trace = explained.trace
    if not trace.merges:
        return {"suppressed_by": None if miss.by is None else candidate_values(explained, miss.by)}
    if miss.candidate is None:
        return {"merged_into": None}
    detection = int(trace.outcome.groups[miss.candidate])
    detections = trace.outcome.detections
    merged = {
        "score": float(detections.scores[detection]),
        "box": [float(corner) for corner in detections.boxes[detection]],
        "candidates": int(np.sum(trace.outcome.groups == detection)),
    }
    return {"merged_into": merged}


def candidate_values(explained: Explained, candidate: int) -> dict[str, Any]:
    """A candidate's numbers."""
    trace = explained.trace
    proposal, by = int(trace.candidates.rows[candidate]), int(trace.absorbed_by[candidate])
    return {
        "candidate": candidate,
        "class": trace.scored.classes[trace.moved.labels[candidate]],
        "proposal": proposal,
        "score": float(trace.moved.scores[candidate]),
        "box_before_regression": [float(corner) for corner in trace.scored.boxes[proposal]],
        "box": [float(corner) for corner in trace.moved.boxes[candidate]],
        **({} if trace.merges else {"suppressed_by": None if by < 0 else by}),
    }


def as_number(value: float) -> float | None:
    """A number, or None for nan or infinity."""
    return float(value) if np.isfinite(value) else None


# Telling it


@dataclass(frozen=True)
class Lines:
    """What is told: of the chosen objects, and of the shown detections."""

    objects: list[Line]
    detections: list[Line]


def tell_lines(explained: Explained, number: int | None, class_name: str | None) -> Lines:
    """The lines that --object and --class ask for."""
    objects, shown = chosen_rows(explained, number, class_name)
    return Lines(
        [tell_object(explained, index) for index in objects], [tell_detection(explained, row) for row in shown]
    )
