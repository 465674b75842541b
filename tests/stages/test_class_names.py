"""Classes under the names of another dataset: which are chosen, and what becomes of the others' scores and deltas."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.contract.errors import BadSetting, StageError
from stages.contract.settings import build_settings, identity_of
from stages.datasets import VOC_CLASSES
from stages.detect import Settings
from stages.detect.scoring import ClassProbabilities, Head, class_probabilities, network_regression
from stages.detect.trace import detect_image
from stages.detections.class_names import COCO_NAMES, chosen_classes
from stages.features.linear_models import BoxRegressors, LinearSvms

COCO = """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag,
tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard,
tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard,
cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier,
toothbrush"""
COCO_CLASSES = tuple(name.strip() for name in COCO.replace("\n", " ").split(","))


def test_vocs_twenty_are_among_cocos_eighty() -> None:
    assert len(COCO_CLASSES) == 80
    chosen = chosen_classes(VOC_CLASSES, COCO_CLASSES)
    assert [name for _, name in chosen] == list(VOC_CLASSES)
    assert {name: COCO_CLASSES[row] for row, name in chosen if COCO_CLASSES[row] != name} == COCO_NAMES
    by_hand = [f"{COCO_NAMES[name]}:{name}" if name in COCO_NAMES else name for name in VOC_CLASSES]
    assert chosen_classes(by_hand, COCO_CLASSES) == chosen


def test_the_other_way_round_and_names_with_colons() -> None:
    assert chosen_classes(["tv", "airplane"], ("aeroplane", "dog", "tvmonitor")) == [(2, "tv"), (0, "airplane")]
    assert chosen_classes(["a:b", "c:d:e"], ("a:b", "a", "c")) == [(0, "a:b"), (2, "d:e")]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["dog", "sheep"], "classes has 'sheep', but the detector has no class 'sheep'"),
        (["dgo:hound"], "classes has 'dgo:hound', but the detector has no class 'dgo', did you mean 'dog'?"),
        (["airplane", "aeroplane"], "names the detector's class 'airplane' twice"),
        (["dog:animal", "cat:animal"], "calls both 'dog' and 'cat' 'animal'; two classes cannot become one"),
    ],
)
def test_what_cannot_be_chosen_is_refused(entries: list[str], message: str) -> None:
    with pytest.raises(StageError, match=re.escape(message)):
        chosen_classes(entries, ("dog", "cat", "airplane"))


@pytest.mark.parametrize("entry", ["", ":dog", "dog:"])
def test_an_entry_without_a_name_is_refused(entry: str) -> None:
    with pytest.raises(BadSetting, match="must be the name of a class, or two names"):
        Settings(classes=(entry,))


def test_the_setting_is_part_of_the_key_where_it_is_given() -> None:
    assert "classes" not in identity_of(Settings())
    assert identity_of(Settings(classes=("dog", "airplane:aeroplane")))["classes"] == ["dog", "airplane:aeroplane"]
    with pytest.raises(BadSetting, match="more than once"):
        build_settings(Settings, {"classes": ["dog", "dog"]})


def test_the_softmax_is_over_the_chosen_classes_and_the_background() -> None:
    """Of three classes two are kept: 0.2 and 0.1 beside a background of 0.1 are 0.5, 0.25."""
    scorer = class_probabilities(("dog", "pizza", "couch", "background")).chosen([2, 0], ("sofa", "dog"))
    probabilities = np.array([[0.1, 0.6, 0.2, 0.1], [0, 1, 0, 0], [0.25, 0, 0.25, 0.5]], np.float32)
    np.testing.assert_allclose(scorer.score(probabilities), np.array([[0.5, 0.25], [0, 0], [0.25, 0.25]]))
    np.testing.assert_allclose(scorer.score(probabilities, slice(1, 2)), np.array([[0.25], [0], [0.25]]))
    assert scorer.classes == ("sofa", "dog")
    assert scorer.trained.tolist() == [True, True]


@given(st.lists(st.floats(-20, 20), min_size=5, max_size=5), st.permutations(range(4)), st.integers(1, 4))
def test_it_is_the_softmax_of_the_scores_that_are_left(logits: list[float], order: list[int], count: int) -> None:
    chosen = order[:count]
    odds = np.exp(np.array(logits))
    probabilities = (odds / odds.sum())[None].astype(np.float32)
    names = tuple(map(str, chosen))
    scores = ClassProbabilities(("a", "b", "c", "d")).chosen(chosen, names).score(probabilities)
    np.testing.assert_allclose(scores[0], odds[chosen] / (odds[chosen].sum() + odds[4]), rtol=1e-4)


def heads() -> dict[str, Head]:
    """Detectors of dog, pizza, couch by each kind of scores and of regression, on the same layers."""
    names = ("dog", "pizza", "couch")
    svms = LinearSvms(names, "fc7", np.eye(3, dtype=np.float32), np.array([0, 1, 0.5], np.float32), 1.0)
    maps = np.zeros((3, 4, 4), np.float32)
    maps[:, -1, 0] = (0.1, 0.2, 0.3)
    softmax = class_probabilities((*names, "background"))
    deltas = network_regression((*names, "background"), {})
    return {
        "svm and ridge": Head(svms, BoxRegressors(names, "fc7", maps, 1.0)),
        "svm and deltas": Head(svms, deltas),
        "softmax and deltas": Head(softmax, deltas),
        "softmax": Head(softmax),
    }


@pytest.mark.parametrize("kind", heads())
def test_a_chosen_class_has_the_boxes_it_had_and_takes_part_in_the_cap_alone(kind: str) -> None:
    """Pizza scores highest everywhere: with a cap of four detections per image it takes all; dropped, none."""
    random = np.random.default_rng(3)
    boxes = np.array([[40 * row, 10, 40 * row + 30, 40] for row in range(4)], np.float32)
    logits = random.normal(size=(4, 4)) + np.array([0, 9, 0, 0])
    layers = {
        "fc7": logits[:, :3].astype(np.float32),
        "softmax": (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32),
        "deltas": np.tile(np.array([0.1, 0, 0, 0, 0.2, 0, 0, 0, 0.3, 0, 0, 0], np.float32), (4, 1)),
    }
    capped = Settings(cap="image", least_score=-9, all_classes_at_most=4)
    whole = heads()[kind]
    every = detect_image(whole.scored(boxes, layers, (200, 50)), capped)
    assert {every.scored.classes[label] for label in every.detections.labels} == {"pizza"}
    head = whole.chosen(["sofa", "dog:hound"])
    trace = detect_image(head.scored(boxes, layers, (200, 50)), capped)
    assert head.scorer.classes == trace.scored.classes == ("sofa", "hound")
    assert len(trace.detections) == 4
    assert set(trace.detections.labels.tolist()) <= {0, 1}
    rows, labels = np.repeat(np.arange(4), 2), np.tile(np.array([0, 1], np.int32), 4)
    own = np.array([2, 0], np.int32)[labels]
    np.testing.assert_array_equal(trace.scored.boxes_of(rows, labels), every.scored.boxes_of(rows, own))
    if "svm" in kind:
        np.testing.assert_array_equal(trace.scored.scores, every.scored.scores[:, [2, 0]])
    assert whole.chosen([]) is whole
