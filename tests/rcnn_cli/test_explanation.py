"""`rcnn explain`: every sentence by hand, on traces of a few boxes, and what is told of what is not there."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rcnn_cli.looking.explanation import (
    Anchors,
    Chosen,
    Explained,
    choose,
    chosen_rows,
    object_names,
    put_together,
    split_of,
)
from rcnn_cli.looking.explanation_lines import tell_detection, tell_lines, tell_object
from rcnn_cli.looking.explanation_results import as_values, format_text
from rcnn_cli.looking.explanation_sheet import WIDTH, explanation_sheet
from rcnn_cli.recipes.graph import Graph
from stages.contract.errors import StageError
from stages.detections.region_proposals import anchor_steps
from stages.extract import Settings as ExtractSettings
from stages.extract.pictures import View, seen_regions
from stages.matching.objects import Objects
from stages.networks import CAFFE, NetworkSource
from stages.pictures.marks import FAINTEST
from stages.pictures.palette import SCORES as SCORE_COLOURS
from stages.pictures.palette import rgb
from stages.propose import Settings as ProposeSettings
from stages.propose.anchor_trace import AnchorTrace
from stages.training.anchor_settings import AnchorTraining
from tests.rcnn_cli.evaluations import RECIPE, graph_of, run_tables, write_detections, write_scene
from tests.stages.test_trace import traced

CLASSES = ("dog", "cat", "owl")
"""The dataset's; the detector knows cat and dog."""
ALIKE = '[diagnose]\nsimilar = [["cat", "dog"]]\n'
HERE, THERE = (0, 0, 10, 10), (40, 0, 50, 10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("explanation")
    write_scene(made, {"image_a": [("cat", HERE, False)], "image_b": [("dog", HERE, False)]})
    return made


@pytest.fixture
def chosen(folder: Path) -> Chosen:
    graph = graph_of(folder, RECIPE + ALIKE)
    return Chosen(graph, graph.nodes["detect@test"], None)


def objects_of(*rows: tuple[tuple[int, ...], str] | tuple[tuple[int, ...], str, bool]) -> Objects:
    flags = np.zeros(len(rows), bool)
    return Objects(
        np.zeros(len(rows), np.int64),
        np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        np.array([CLASSES.index(row[1]) for row in rows], np.int32),
        np.array([len(row) > 2 for row in rows], bool),
        flags,
        flags,
        np.array([""] * len(rows)),
        flags,
    )


def explained_of(chosen: Chosen, trace: Any, objects: Objects, cuts: Any = (0, 0), cap: Any = (-9, -9)) -> Explained:
    """An annotated image of 100 x 100 pixels; `cuts` and `cap` are the scores for cat and dog."""
    pixels = np.full((100, 100, 3), 99, np.uint8)
    made = put_together(chosen, "a", "test", pixels, trace, np.array(cap, np.float32), objects, CLASSES)
    return dataclasses.replace(made, cuts=np.array(cuts, np.float32))


def sentence(*arguments: Any, **limits: Any) -> str:
    """What is told of the first object."""
    return tell_object(explained_of(*arguments, **limits), 0).sentence


CAT = objects_of((HERE, "cat"))


def test_found(chosen: Chosen) -> None:
    trace = traced([(0, 0, 10, 9), THERE], [(1.5, 0), (2, 0)])
    line = tell_object(explained_of(chosen, trace, CAT), 0)
    assert line.sentence == "cat 1 was found: score 1.50; its proposal's IoU is 0.90; rank 2 of 2"
    assert line.values["decided_at"]["score"] == 1.5
    moved = traced([(0, 0, 10, 9), (1, 0, 11, 10)], [(-1, 0), (2, 0)], shifts=(0, 0))
    words = "cat 1 was found: score 2.00; its proposal's IoU is 0.82, 0.82 after regression; rank 1 of 2"
    assert sentence(chosen, moved, CAT) == words


def test_no_proposal(chosen: Chosen) -> None:
    words = "cat 1 was missed: no proposal covers it; the best has an IoU of 0.40"
    assert sentence(chosen, traced([(0, 0, 10, 4)], [(1, 0)]), CAT) == words
    assert sentence(chosen, traced([], []), CAT) == "cat 1 was missed: the image has no proposals"


def test_a_low_score(chosen: Chosen) -> None:
    trace = traced([(0, 0, 10, 9), (0, 0, 10, 8), THERE], [(-2, -2), (-1, -2), (3, 0)])
    words = "cat 1 was missed: the best-scored of its 2 proposals (IoU 0.80) scored -1.00, {}; rank 2 of 3"
    assert sentence(chosen, trace, CAT) == words.format("below the cut of 0.00")
    capped = sentence(chosen, trace, CAT, cap=(0.5, 0))
    assert capped == words.format("below the 0.50 that the cap of 40 per image leaves")
    never = sentence(chosen, trace, CAT, cuts=(np.inf, 0))
    assert never == words.format("and no cat is shown, as at no score are half of the cat detections right")
    line = tell_object(explained_of(chosen, trace, CAT), 0)
    assert line.detail == ("its nearest proposal: IoU 0.90; score -2.00, rank 3; best other class there: dog, -2.00")
    assert line.values["best_proposal"]["proposal"] == 0
    assert line.values["decided_at"]["proposal"] == 1


def test_a_score_that_does_not_compete(folder: Path) -> None:
    graph = graph_of(folder, RECIPE.replace("[detect]", "[detect]\nmax_per_image = 1"), "one")
    trace = traced([(0, 0, 10, 9), THERE], [(1, 0), (2, 0)], max_per_image=1)
    found = sentence(Chosen(graph, graph.nodes["detect@test"], None), trace, CAT)
    words = "its only proposal (IoU 0.90) scored 1.00, but is not among the 1 best that compete; rank 2 of 2"
    assert found == f"cat 1 was missed: {words}"


def test_the_cap_of_an_image(folder: Path) -> None:
    """What better detections of any class push out is below the cap; what scores too little does not compete."""
    settings = 'cap = "image"\nall_classes_at_most = 1\nleast_score = 0.5'
    graph = graph_of(folder, RECIPE.replace("[detect]", f"[detect]\n{settings}"), "capped")
    chosen = Chosen(graph, graph.nodes["detect@test"], None)
    changed: dict[str, Any] = {"cap": "image", "all_classes_at_most": 1, "least_score": 0.5}
    trace = traced([(0, 0, 10, 9), THERE], [(1, -1), (-1, 2)], **changed)
    words = "its only proposal (IoU 0.90) scored 1.00, below the 2.00 that the cap of 1 per image leaves; rank 1 of 2"
    assert sentence(chosen, trace, CAT) == f"cat 1 was missed: {words}"
    low = traced([(0, 0, 10, 9)], [(0.5, -1)], **changed)
    words = "its only proposal (IoU 0.90) scored 0.50, but only scores above 0.5 compete; rank 1 of 1"
    assert sentence(chosen, low, CAT) == f"cat 1 was missed: {words}"


def test_scored_proposals_around_a_missed_object(chosen: Chosen) -> None:
    """Those that overlap it most, with the score and rank that the method gave them; nothing without scores."""
    boxes = [THERE, (0, 0, 10, 4), (0, 0, 10, 2), (0, 0, 10, 3), (2, 0, 12, 10)]
    trace = traced(boxes, [(1, 0), (-1, 0), (-1, 0), (-1, 0), (-1, 0)])
    record = {"boxes": np.array(boxes, np.float32), "scores": np.array([0.9, 0.8, 0.7, 0.6, 0.5], np.float32)}
    scored = dataclasses.replace(explained_of(chosen, trace, CAT), proposals=record)
    line = tell_object(scored, 0)
    assert line.around == (
        "proposals around it, of 5: IoU 0.67, score 0.50, rank 5; IoU 0.40, score 0.80, rank 2; "
        "IoU 0.30, score 0.60, rank 4"
    )
    assert [each["proposal"] for each in line.values["proposals_around"]] == [4, 1, 3]
    assert line.values["proposals_around"][0]["proposal_rank"] == 5
    assert f"    {line.around}\n" in format_text(scored, tell_lines(scored, None, None))
    coloured, plain = (
        explanation_sheet(each, tell_lines(each, None, None)) for each in (scored, explained_of(chosen, trace, CAT))
    )
    assert coloured.shape[1] == plain.shape[1]
    low, high = (np.array(rgb(colour)) for colour in (SCORE_COLOURS[0], SCORE_COLOURS[-1]))
    for colour, opacity in ((low, FAINTEST), (high, 1)):  # over the image's grey
        mixed = np.round(opacity * colour + (1 - opacity) * 99)
        assert (np.abs(coloured.astype(int) - mixed).max(axis=2) <= 2).any()
        assert not (np.abs(plain.astype(int) - mixed).max(axis=2) <= 2).any()
    others = dataclasses.replace(scored, proposals={**record, "boxes": record["boxes"] + 1})
    assert tell_object(others, 0).around == ""
    assert tell_object(explained_of(chosen, trace, CAT), 0).around == ""
    assert "proposals_around" not in tell_object(explained_of(chosen, trace, CAT), 0).values


def anchors_of(*anchors: tuple[float, ...], moved: float = 0, **limits: Any) -> Anchors:
    """Anchors of an image of 100 x 100 pixels with scores 0.5, 0.9, 0.8, ...; the last one is moved right by `moved` of
    its widths."""
    boxes = np.array(anchors, np.float32)
    deltas = np.zeros((len(boxes), 4))
    deltas[-1, 0] = moved
    scores = np.array([0.5, 0.9, 0.8][: len(boxes)], np.float32)
    steps = anchor_steps(boxes, deltas, scores, 100, 100, **{"least_side": 1, **limits})
    trace = AnchorTrace(boxes, 1, scores, steps, 1.0, (100, 100), (100, 100))
    settings = {name: limits[name] for name in ("before_suppression",) if name in limits}
    if "at_most" in limits:
        settings["max_boxes"] = limits["at_most"]
    return Anchors(trace, AnchorTraining(), ProposeSettings(method="rpn", **settings))


TWO = ((0, 0, 10, 10), (0, 0, 10, 9))
BY_RULES = "positive for it by the rules of training"
NEAREST = f"anchors: 2 {BY_RULES}; the nearest (10 x 10, IoU 1.00, moved to 1.00, score 0.50)"
LIMITED = "has rank 2 after suppression, and only the first 1 are proposed"


@pytest.mark.parametrize(
    ("anchors", "limits", "words"),
    [
        (TWO, {}, f"{NEAREST} was suppressed by proposal 1, which overlaps it by 0.90 and the object by 0.90"),
        (TWO, {"iou": 0.95}, f"{NEAREST} is proposal 2"),
        (TWO, {"least_side": 16}, f"{NEAREST} was too small, 10 x 10 once moved and clipped"),
        (TWO, {"before_suppression": 1}, f"{NEAREST} has rank 2, and only the first 1 went on to suppression"),
        (
            TWO,
            {"iou": None, "at_most": 1},
            f"{NEAREST} {LIMITED}",
        ),
        (
            (*TWO, (10, 0, 20, 10)),
            {"iou": 0.95, "moved": -1, "before_suppression": 2},
            f"{NEAREST} has rank 3, and only the first 2 went on to suppression; the nearest once moved (10 x 10, IoU "
            "0.00, moved to 1.00, score 0.80) is proposal 2",
        ),
        (((50, 50, 60, 60),), {}, f"anchors: none {BY_RULES}"),
    ],
)
def test_anchors_around_a_missed_object(
    anchors: tuple[tuple[float, ...], ...], limits: dict[str, Any], words: str, chosen: Chosen
) -> None:
    trace = traced([(0, 0, 10, 9)], [(-1, -1)])
    explained = dataclasses.replace(explained_of(chosen, trace, CAT), anchors=anchors_of(*anchors, **limits))
    line = tell_object(explained, 0)
    assert line.anchors == words
    assert f"    {words}\n" in format_text(explained, tell_lines(explained, None, None))
    told = line.values["anchors"]
    assert told["positive"] == len(told["positives"]) == (0 if len(anchors) == 1 else 2)
    assert told["best"]["box"] == list(anchors[0])
    assert tell_object(explained_of(chosen, trace, CAT), 0).anchors == ""
    assert "anchors" not in tell_object(explained_of(chosen, trace, CAT), 0).values
    sheet = explanation_sheet(explained, tell_lines(explained, None, None))
    assert sheet.shape[1] == WIDTH


def test_another_class(chosen: Chosen) -> None:
    words = "cat 1 was missed: its only proposal (IoU 0.90) scored 0.50 as dog and -1.00 as cat, below the cut of 0.00"
    assert sentence(chosen, traced([(0, 0, 10, 9)], [(-1, 0.5)]), CAT) == f"{words}; rank 1 of 1"


def test_poor_localisation(chosen: Chosen) -> None:
    trace = traced([(0, 0, 10, 9)], [(1, -1)], shifts=(1,))
    words = "cat 1 was missed: regression moved its proposal (IoU 0.90, score 1.00) away, to an IoU of 0.05"
    assert sentence(chosen, trace, CAT) == words
    onto = traced([(9, 0, 19, 10)], [(-1, -1)], shifts=(-1,))
    words = "a proposal (IoU 0.05) that regression moved onto it (1.00) scored -1.00, below the cut of 0.00"
    assert sentence(chosen, onto, CAT) == f"cat 1 was missed: {words}; rank 1 of 1"


def test_suppressed(chosen: Chosen) -> None:
    two = objects_of((HERE, "cat"), ((4, 0, 16, 10), "cat"))
    trace = traced([(0, 0, 10, 9), (4, 0, 16, 9)], [(1, -1), (2, -1)])
    words = "cat 1 was missed: its box (IoU 0.90, score 1.00) was suppressed, for an overlap of 0.38, by {}"
    by = "the detection that found cat 2 (score 2.00)"
    assert sentence(chosen, trace, two) == words.format(by)
    false = "a false detection (score 2.00), Loc, it overlaps cat 1 by 0.35 only"
    assert sentence(chosen, trace, CAT) == words.format(false)
    assert tell_object(explained_of(chosen, trace, CAT), 0).values["suppressed_by"]["score"] == 2


def test_taken(chosen: Chosen) -> None:
    two = objects_of((HERE, "cat"), ((0, 0, 10, 9), "cat"))
    words = "the detection on it (score 1.00, IoU 0.90) overlaps cat 2 more (IoU 1.00) and counts for that one"
    assert sentence(chosen, traced([(0, 0, 10, 9)], [(1, -1)]), two) == f"cat 1 was missed: {words}"


MERGING = RECIPE.replace("[detect]", '[detect]\nsuppression = "merge"\nmerge_scores = "best"')
"""The detector of the recipe only gives limits; the scores of the traces below are as they are."""


@pytest.fixture
def merging(folder: Path) -> Chosen:
    graph = graph_of(folder, MERGING + ALIKE, "merging")
    return Chosen(graph, graph.nodes["detect@test"], None)


def merge_traced(*arguments: Any, threshold: float = 0.5, **changed: Any) -> Any:
    return traced(*arguments, suppression="merge", score="softmax", merge_threshold=threshold, **changed)


def test_what_a_detection_was_merged_from(merging: Chosen) -> None:
    """Two boxes 1 apart (match score 0.1 + 1 - 0.9 / 1.1 = 0.28) become their mean; a third is left alone."""
    trace = merge_traced([(0, 0, 10, 10), (1, 0, 11, 10), THERE], [(0.5, -1), (1, -1), (0.25, -1)])
    found = explained_of(merging, trace, CAT)
    line = tell_object(found, 0)
    assert line.sentence == (
        "cat 1 was found: score 1.50; IoU 0.90, merged from 2 boxes, scored 1.00 to 0.50; "
        "its best-scored proposal's IoU is 0.82; rank 1 of 3"
    )
    told = [tell_detection(found, row) for row in found.shown]
    assert [line.sentence for line in told] == [
        "cat, score 1.50: found cat 1 (IoU 0.90); merged from 2 boxes, scored 1.00 to 0.50",
        "cat, score 0.25: BG, there is no object; merged with no other box",
    ]
    values = told[0].values
    assert (values["score"], values["box"]) == (1.5, [0.5, 0, 10.5, 10])
    assert (values["proposal"], "removed" in values, "suppressed_by" in values) == (1, False, False)
    assert [(member["proposal"], member["score"]) for member in values["merged"]] == [(1, 1.0), (0, 0.5)]
    assert values["merged"][0]["box"] == [1, 0, 11, 10]
    text = format_text(found, tell_lines(found, None, None))
    assert "3 proposals; 6 candidates in 2 classes; merging leaves 4, the cap 4\n" in text
    assert "above the cuts: 3 candidates, 2 detections after merging\n" in text
    assert as_values(found, tell_lines(found, None, None))["counts"]["left_by_suppression"] == 4
    for explained in (found, dataclasses.replace(found, split=None)):
        assert explanation_sheet(explained, tell_lines(explained, None, None)).shape[1] == WIDTH


def test_an_object_whose_box_was_merged_into_another(merging: Chosen) -> None:
    """A box 2 from the object, and three that are 2.5 further away (a match score of 0.25 + 1 - 0.6): their mean is
    3.875 from it."""
    thing = objects_of(((20, 0, 30, 10), "cat"))
    boxes = [(22, 0, 32, 10), *3 * [(24.5, 0, 34.5, 10)]]
    trace = merge_traced(boxes, [(0.5, -1), *3 * [(0.25, -1)]], threshold=0.7)
    line = tell_object(explained_of(merging, trace, thing), 0)
    assert line.sentence == (
        "cat 1 was missed: its box (IoU 0.67, score 0.50) was merged with 3 other boxes into a false detection (score "
        "1.25), Loc, it overlaps cat 1 by 0.44 only"
    )
    assert line.values["reason"] == "merged"
    assert line.values["merged_into"]["candidates"] == 4
    assert line.values["merged_into"]["score"] == 1.25
    np.testing.assert_allclose(line.values["merged_into"]["box"], [23.875, 0, 33.875, 10])
    sheet = explanation_sheet(
        explained_of(merging, trace, thing), tell_lines(explained_of(merging, trace, thing), 1, None)
    )
    assert sheet.shape[1] == WIDTH


def test_sums_that_are_too_low(folder: Path, merging: Chosen) -> None:
    trace = merge_traced([(0, 0, 10, 9), (0, 0, 10, 8), THERE], [(0.5, -1), (0.25, -1), (9, -1)])
    which = "cat 1 was missed: the best-scored of its 2 proposals (IoU 0.90)"
    words = f"{which} scored 0.50 and went into a box that scores 0.75, below the cut of 1.00; rank 2 of 3"
    assert sentence(merging, trace, CAT, cuts=(1, 1)) == words
    dog = merge_traced([(0, 0, 10, 9), (0, 0, 10, 8)], [(0.25, 0.75), (0.25, 0.75)])
    words = f"{which} went into a box that scores 1.50 as dog, and scored 0.25 as cat and went into a box that scores "
    assert sentence(merging, dog, CAT, cuts=(1, 1)) == f"{words}0.50, below the cut of 1.00; rank 1 of 2"
    negative = [(-1, -1), (-0.5, -1)]
    best = traced(
        [(0, 0, 10, 9), (0, 0, 10, 8)], negative, suppression="merge", merge_scores="best", merge_threshold=0.5
    )
    words = "scored -0.50, below the cut of 0.00; rank 1 of 2"
    assert sentence(merging, best, CAT) == f"{which.replace('0.90', '0.80')} {words}"
    two = merge_traced([(0, 0, 10, 9), THERE], [(0.5, -1), (9, -1)], max_per_image=1)
    graph = graph_of(folder, MERGING.replace("[detect]", "[detect]\nmax_per_image = 1"), "few")
    words = "its only proposal (IoU 0.90) scored 0.50, but is not among the 1 best that compete; rank 2 of 2"
    assert sentence(Chosen(graph, graph.nodes["detect@test"], None), two, CAT) == f"cat 1 was missed: {words}"


def test_a_merged_box_that_counts_for_another_object(merging: Chosen) -> None:
    two = objects_of((HERE, "cat"), ((0, 0, 10, 9), "cat"))
    trace = merge_traced([(0, 0, 10, 8), (0, 0, 10, 10)], [(1, -1), (0.5, -1)])
    words = "the detection on it (score 1.50, IoU 0.90) overlaps cat 2 more (IoU 1.00) and counts for that one"
    assert sentence(merging, trace, two) == f"cat 1 was missed: {words}"


def test_an_object_whose_box_one_of_another_class_suppressed(folder: Path) -> None:
    graph = graph_of(folder, RECIPE.replace("[detect]", "[detect]\nclass_agnostic = true"), "agnostic")
    chosen = Chosen(graph, graph.nodes["detect@test"], None)
    trace = traced([(0, 0, 10, 9), (0, 0, 10, 8)], [(1, -1), (-1, 2)], class_agnostic=True)
    assert sentence(chosen, trace, CAT).startswith(
        "cat 1 was missed: its box (IoU 0.90, score 1.00) was suppressed, for an overlap of 0.89, by a false detection "
        "(dog, score 2.00), "
    )
    capped = sentence(chosen, trace, CAT, cap=(0, 3))
    assert capped.endswith("by a better-scored box (dog, score 2.00)")


def test_an_unknown_class_and_a_difficult_object(chosen: Chosen) -> None:
    trace = traced([HERE], [(1, -1)])
    assert sentence(chosen, trace, objects_of((HERE, "owl"))) == (
        "owl 1 was missed: the detector does not know the class owl"
    )
    assert sentence(chosen, trace, objects_of((HERE, "cat", True))) == (
        "cat 1 is difficult: it need not be found, and 1 detection of it is ignored"
    )


def test_false_detections_by_type(chosen: Chosen) -> None:
    boxes = [HERE, (0, 0, 10, 4), (0, 20, 10, 30), (40, 0, 50, 9), (70, 0, 80, 9), (0, 40, 10, 50)]
    trace = traced(boxes, [(5, -1), (4, -1), (-1, 1), (3, -1), (2, -1), (1, -1)], nms_iou=0.45)
    things = objects_of((HERE, "cat"), (THERE, "dog"), ((70, 0, 80, 10), "owl"), ((0, 40, 10, 50), "cat", True))
    found = explained_of(chosen, trace, things)
    told = [tell_detection(found, row) for row in found.shown]
    assert [line.sentence for line in told] == [
        "cat, score 5.00: found cat 1 (IoU 1.00); suppressed nothing",
        "cat, score 4.00: Loc, it overlaps cat 1 by 0.40 only; suppressed nothing",
        "cat, score 3.00: Sim, it overlaps dog 1 by 0.90; suppressed nothing",
        "cat, score 2.00: Oth, it overlaps owl 1 by 0.90; suppressed nothing",
        "cat, score 1.00: ignored, on the difficult cat 2; suppressed nothing",
        "dog, score 1.00: BG, there is no object; suppressed nothing",
    ]
    duplicate = traced([HERE, (0, 0, 10, 6), (0, 0, 10, 5.5)], [(5, -1), (4, -1), (-1, -1)], nms_iou=0.6)
    lines = [tell_detection(explained_of(chosen, duplicate, CAT), row).sentence for row in range(2)]
    assert lines == [
        "cat, score 5.00: found cat 1 (IoU 1.00); suppressed nothing",
        "cat, score 4.00: Loc, a duplicate: it overlaps cat 1 by 0.60; suppressed 1 box, 0 of them above the cut",
    ]


def test_text_values_and_sheet(chosen: Chosen) -> None:
    trace = traced([(0, 0, 10, 9), (4, 0, 16, 9), THERE], [(1, -1), (2, -1), (-3, 0.5)])
    found = explained_of(chosen, trace, objects_of((HERE, "cat"), (THERE, "dog")))
    told = tell_lines(found, None, None)
    text = format_text(found, told)
    assert "3 proposals; 6 candidates in 2 classes; suppression leaves 4, the cap 4\n" in text
    assert "above the cuts: 3 candidates, 2 detections after suppression\n" in text
    assert "\n\ncat 1 was missed: its box" in text
    values = as_values(found, told)
    assert [one["verdict"] for one in values["objects"]] == ["missed", "found"]
    assert values["objects"][0]["reason"] == "suppressed"
    (cat,) = [one for one in values["detections"] if one["class"] == "cat"]
    assert [one["proposal"] for one in cat["removed"]] == [0]
    assert values["limits"]["cat"] == {"cut": 0, "cap": -9}
    sheet = explanation_sheet(found, told)
    assert sheet.shape[1] == WIDTH
    one = explanation_sheet(found, tell_lines(found, 1, None))
    assert one.shape[0] < sheet.shape[0]
    nothing = explained_of(chosen, traced([], []), objects_of())
    assert explanation_sheet(nothing, tell_lines(nothing, None, None)).shape[1] == WIDTH
    assert "no object is annotated" in format_text(nothing, tell_lines(nothing, None, None))


def test_what_object_and_class_choose(chosen: Chosen) -> None:
    trace = traced([HERE, THERE], [(1, -1), (-1, 1)])
    found = explained_of(chosen, trace, objects_of((HERE, "cat"), (THERE, "dog"), (THERE, "cat")))
    assert found.names == ("cat 1", "dog 1", "cat 2")
    assert chosen_rows(found, None, None) == ([0, 1, 2], [0, 2])
    assert chosen_rows(found, 2, None) == ([1], [2])
    assert chosen_rows(found, None, "cat") == ([0, 2], [0])
    assert chosen_rows(found, None, "owl") == ([], [])
    assert "no object of that class is annotated" in format_text(found, tell_lines(found, None, "owl"))
    with pytest.raises(StageError, match=r"--object 4: a has 3 objects: 1 is cat 1, 2 is dog 1, 3 is cat 2"):
        chosen_rows(found, 4, None)
    with pytest.raises(StageError, match=r"--class cut: no such class, did you mean 'cat'?"):
        chosen_rows(found, None, "cut")
    with pytest.raises(StageError, match="give only one; an object already has a class"):
        chosen_rows(found, 1, "cat")
    assert object_names([]) == ()


def test_a_crop_is_what_the_network_sees() -> None:
    """The pixels of a region that needs no resizing, in any order of channels; outside the image the mean colour."""
    image = np.random.default_rng(0).integers(0, 256, (240, 240, 3)).astype(np.uint8)
    source = NetworkSource("tnet", "random", CAFFE, 1000)
    view = View.of(source, ExtractSettings(layers=("fc7",), padding=0))
    boxes = np.array([[3, 5, 230, 232], [-113, 0, 114, 227]], np.float32)
    found = np.stack(seen_regions(image, boxes, view))
    np.testing.assert_array_equal(found[0], image[5:232, 3:230])
    assert found[1, 100, 10].tolist() == [123, 117, 104]
    np.testing.assert_array_equal(found[1, :, 113:], image[:227, :114])


def test_which_detector_and_evaluation(folder: Path) -> None:
    two = RECIPE + '[detect-b]\nstage = "detect"\nnms_iou = 0.5\n[eval-b]\nstage = "eval"\n'
    graph = graph_of(folder, two + 'inputs = {{ detections = "detect-b" }}\n', "choose")
    with pytest.raises(StageError, match="give only one; an evaluation already names its detector"):
        choose(graph, "eval", "detect")
    with pytest.raises(StageError, match=r"has no evaluation 'evil'; it has eval, eval-b"):
        choose(graph, "evil", None)
    with pytest.raises(StageError, match=r"has no detector 'detect-c', did you mean 'detect-b'?"):
        choose(graph, None, "detect-c")
    with pytest.raises(Exception, match=r"detect@test is not complete; run `rcnn run .*choose.toml` first"):
        choose(graph, None, None)
    changed = Graph(dataclasses.replace(graph.recipe, changes=("name=a b",)), graph.work)
    with pytest.raises(Exception, match=r"run `rcnn run .*choose.toml --set 'name=a b'` first"):
        choose(changed, None, None)
    assert choose(graph, None, "detect-b").evaluation is None
    write_detections(graph, ("cat", "dog"), {"image_a": [("cat", HERE, 1.0)]}, "detect-b")
    run_tables(graph, "eval-b")
    found = choose(graph, None, "detect-b")
    assert found.evaluation is not None
    assert (found.detector.use.name, found.evaluation.use.name) == ("detect-b", "eval-b")
    assert choose(graph, "eval-b", None).detector.use.name == "detect-b"


def test_which_image(chosen: Chosen, folder: Path) -> None:
    assert split_of(chosen, "image_b", None) == "test"
    assert split_of(chosen, "image_b", "train") == "train"
    photo = folder / "voc/JPEGImages/image_a.png"
    assert split_of(chosen, str(photo), None) is None
    with pytest.raises(
        StageError, match=r"imag_a: is neither a photo nor an image of the .* test, train; did you mean 'image_a'"
    ):
        split_of(chosen, "imag_a", None)
    with pytest.raises(StageError, match=r"000012: is not an image of the dataset test; the first is 'image_a'"):
        split_of(chosen, "000012", "test")
    with pytest.raises(StageError, match=r"--split tset: is not a dataset of .*, did you mean 'test'?"):
        split_of(chosen, "image_a", "tset")
