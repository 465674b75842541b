"""Detecting: candidates, the order of operations, suppression against a plain loop, and the stage on real caches."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import Column, Identity, Reader, Schema, Shard, Writer
from stages.boxes import Boxes, iou_matrix
from stages.contract.errors import BadSetting, StageError
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.contract.settings import identity_of
from stages.detect import STAGE, Settings, score_of, stage
from stages.detect.scoring import Head, Regressors, Scorer, class_probabilities, network_regression
from stages.detect.trace import detect_image
from stages.detections import Detections, read_detections
from stages.detections.candidates import Scored, best_candidates, best_rows
from stages.detections.suppression import METHODS, GreedyNms
from stages.extract import Settings as ExtractSettings
from stages.features.linear_models import NEVER_DETECTED, BoxRegressors, LinearSvms, read_regressors, read_svms
from stages.networks import NETWORKS, PlannedNetwork
from stages.networks.heads import Heads, RegionHead

CLASSES = ("cat", "dog", "owl")


def svms_of(*weights: tuple[float, ...], biases: tuple[float, ...] | None = None) -> LinearSvms:
    """SVMs on the layer "fc7"."""
    values = np.array(biases or [0.0] * len(weights), np.float32)
    return LinearSvms(CLASSES[: len(weights)], "fc7", np.array(weights, np.float32), values, 1.0)


def shifting(*shifts: float, dimension: int = 2) -> BoxRegressors:
    """Regressors on "pool5" that move the boxes of class k right by shifts[k] widths."""
    maps = np.zeros((len(shifts), dimension + 1, 4), np.float32)
    maps[:, -1, 0] = shifts
    return BoxRegressors(CLASSES[: len(shifts)], "pool5", maps, 1.0)


def detections(
    boxes: Boxes,
    features: dict[str, Any],
    size: tuple[int, int],
    scorer: Scorer,
    regressors: Regressors | None,
    chosen: Settings,
) -> Detections:
    """What is detected in an image of this (width, height)."""
    return detect_image(Head(scorer, regressors).scored(boxes, features, size), chosen).detections


def test_candidates_by_class_and_from_the_best_down() -> None:
    scores = np.array([[1, 9], [3, 9], [2, 8], [3, 7]], np.float32)
    best = best_rows(scores, 2)
    assert best.labels.tolist() == [0, 0, 1, 1]
    assert best.rows.tolist() == [1, 3, 0, 1]
    assert best.scores.tolist() == [3, 3, 9, 9]


def test_an_image_without_proposals() -> None:
    features = {"fc7": np.zeros((0, 2), np.float16), "pool5": np.zeros((0, 2), np.float16)}
    empty = np.zeros((0, 4), np.float32)
    found = detections(empty, features, (10, 10), svms_of((1, 0), (0, 1)), shifting(0, 0), Settings())
    assert found.boxes.shape == (0, 4)
    assert len(found) == 0


def test_a_class_that_learnt_nothing_has_no_candidates() -> None:
    svms = svms_of((1, 0), (0, 0), biases=(0, NEVER_DETECTED))
    best = best_candidates(
        Head(svms).scored(np.zeros((2, 4), np.float32), {"fc7": np.array([[1, 0], [2, 0]], np.float16)}, (9, 9)), 100
    )
    assert best.labels.tolist() == [0, 0]


def test_regression_comes_before_suppression_and_scores_stay() -> None:
    # Far apart as proposals, the two land on each other when each moves by its width of 10 - 1 pixels towards x = 0.
    boxes = np.array([[0, 0, 10, 10], [9, 0, 19, 10]], np.float32)
    features = {"fc7": np.array([[1], [2]], np.float16), "pool5": np.array([[0], [-1]], np.float16)}
    maps = np.zeros((1, 2, 4), np.float32)
    maps[0, 0, 0] = 1
    regressors = BoxRegressors(("cat",), "pool5", maps, 1.0)
    plain = detections(boxes, features, (40, 40), svms_of((1,)), None, Settings())
    assert plain.scores.tolist() == [2, 1]
    np.testing.assert_array_equal(plain.boxes, boxes[::-1])
    moved = detections(boxes, features, (40, 40), svms_of((1,)), regressors, Settings())
    assert moved.scores.tolist() == [2]
    np.testing.assert_allclose(moved.boxes, [[0, 0, 10, 10]], atol=1e-4)


def test_regression_moves_each_class_by_its_own_regressor_and_clips() -> None:
    boxes = np.array([[10, 10, 21, 21]], np.float32)
    features = {"fc7": np.ones((1, 2), np.float16), "pool5": np.ones((1, 2), np.float16)}
    found = detections(boxes, features, (24, 30), svms_of((1, 0), (0, 1)), shifting(0.5, -2), Settings())
    np.testing.assert_allclose(found.boxes, [[15, 10, 24, 21], [0, 10, 1, 21]], atol=1e-4)


def test_a_networks_own_deltas_move_each_class_by_its_four() -> None:
    """A box of 20 x 10 around (20, 15): cat by half its width; dog up by 0.2 of its height, twice as wide and half as
    high: 40 x 5 around (20, 13), and clipped."""
    boxes = np.array([[10, 10, 30, 20]], np.float32)
    layers = {
        "softmax": np.array([[0.5, 0.4, 0.1]], np.float32),
        "deltas": np.array([[0.5, 0, 0, 0, 0, -0.2, np.log(2), -np.log(2)]], np.float32),
    }
    names = (*CLASSES[:2], "background")
    chosen = Settings(score="softmax", regression="network")
    found = detections(boxes, layers, (36, 30), class_probabilities(names), network_regression(names, {}), chosen)
    np.testing.assert_allclose(found.boxes, np.array([[20, 10, 36, 20], [0, 10.5, 36, 15.5]]), rtol=1e-6)
    assert found.labels.tolist() == [0, 1]
    np.testing.assert_array_equal(found.scores, layers["softmax"][0, :2])


def test_only_the_best_of_a_class_are_kept() -> None:
    boxes = np.array([[20 * i, 0, 20 * i + 10, 10] for i in range(5)], np.float32)
    features = {"fc7": np.arange(10, dtype=np.float16).reshape(5, 2)}
    found = detections(boxes, features, (200, 20), svms_of((1, 0), (0, -1)), None, Settings(max_per_image=2))
    np.testing.assert_array_equal(found.boxes, boxes[[4, 3, 0, 1]])
    assert found.labels.tolist() == [0, 0, 1, 1]


def test_suppression_before_the_best_of_a_class_are_chosen() -> None:
    """Two near-equal boxes lead: before suppression they use up the two places, afterwards they take one."""
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]], np.float32)
    features = {"fc7": np.array([[9, 0], [8, 0], [7, 0], [6, 0], [-2, 0]], np.float16)}
    plain = detections(boxes, features, (90, 20), svms_of((1, 0), (0, -1)), None, Settings(max_per_image=2))
    np.testing.assert_array_equal(plain.boxes[plain.labels == 0], boxes[[0]])
    first = Settings(max_per_image=2, suppress_first=True)
    found = detections(boxes, features, (90, 20), svms_of((1, 0), (0, -1)), None, first)
    np.testing.assert_array_equal(found.boxes[found.labels == 0], boxes[[0, 2]])
    every = Settings(suppress_first=True)
    found = detections(boxes, features, (90, 20), svms_of((1, 0), (0, -1)), None, every)
    np.testing.assert_array_equal(found.boxes[found.labels == 0], boxes[[0, 2, 3]])  # -2 is not above -1.5
    lower = Settings(suppress_first=True, least_candidate_score=-2.5)
    found = detections(boxes, features, (90, 20), svms_of((1, 0), (0, -1)), None, lower)
    np.testing.assert_array_equal(found.boxes[found.labels == 0], boxes[[0, 2, 3, 4]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cap": "image", "max_per_class": 9}, "are for a cap over the whole set; set cap = 'set'"),
        ({"cap": "image", "suppress_first": True}, "are for a cap over the whole set; set cap = 'set'"),
        (
            {"suppression": "merge", "merge_scores": "best", "suppress_first": True},
            "suppress_first = true is for suppression = 'nms'",
        ),
    ],
)
def test_limits_that_do_not_go_together(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSetting, match=message):
        Settings(**changes)


def spaced(count: int) -> Boxes:
    """Boxes of 10 x 10 pixels that do not overlap."""
    return np.array([[20 * i, 0, 20 * i + 10, 10] for i in range(count)], np.float32)


def test_the_cap_of_an_image_is_over_all_classes() -> None:
    """What scores more than `least_score` competes, and the best of all classes are kept; what equals the last, too."""
    scores = np.array([[0.9, 0.05, 0.05], [0.3, 0.6, 0.1], [0.5, 0.5, 0.0], [0.06, 0.04, 0.9]], np.float32)
    scorer = class_probabilities((*CLASSES[:2], "background"))
    boxes = spaced(4)
    every = Settings(score="softmax", cap="image")
    found = detections(boxes, {"softmax": scores}, (90, 10), scorer, None, every)
    assert found.labels.tolist() == [0, 0, 0, 0, 1, 1]
    above = np.array([0.9, 0.5, 0.3, 0.06, 0.6, 0.5], np.float32)  # 0.05 is not more
    np.testing.assert_array_equal(found.scores, above)
    for at_most, kept in ((1, [0.9]), (2, [0.9, 0.6]), (3, [0.9, 0.5, 0.6, 0.5]), (5, [0.9, 0.5, 0.3, 0.6, 0.5])):
        capped = Settings(score="softmax", cap="image", all_classes_at_most=at_most)
        found = detections(boxes, {"softmax": scores}, (90, 10), scorer, None, capped)
        np.testing.assert_array_equal(found.scores, np.array(kept, np.float32))
    empty = detections(boxes[:0], {"softmax": scores[:0]}, (90, 10), scorer, None, every)
    assert len(empty) == 0


def test_the_cap_of_an_image_is_counted_after_suppression() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10]], np.float32)
    capped = Settings(cap="image", least_score=0, all_classes_at_most=2)
    found = detections(boxes, {"fc7": np.array([[3], [2], [1]], np.float32)}, (90, 10), svms_of((1,)), None, capped)
    assert found.scores.tolist() == [3, 1]


def test_boxes_may_be_each_classes_own() -> None:
    """A network that regresses by itself, as Fast R-CNN does: boxes [n, K, 4], scores [n, K]."""
    proposals = spaced(3)
    scores = np.array([[3, 1], [2, 2], [1, 3]], np.float32)
    own = np.stack(
        [proposals + np.array([5, 0, 5, 0], np.float32), proposals + np.array([0, 40, 0, 40], np.float32)], axis=1
    )
    scored = Scored(
        proposals,
        CLASSES[:2],
        np.ones(2, bool),
        lambda classes: scores[:, classes],
        lambda boxes, rows, label: own[rows, label],
        (48, 45),
    )
    trace = detect_image(scored, Settings(max_per_image=2))
    np.testing.assert_array_equal(trace.scored.scores, scores)
    assert trace.detections.labels.tolist() == [0, 0, 1, 1]
    assert trace.detections.boxes.tolist() == [[5, 0, 15, 10], [25, 0, 35, 10], [40, 40, 48, 45], [20, 40, 30, 45]]
    assert trace.after_regression(2, 0).tolist() == [45, 0, 48, 10]  # although it does not compete


def test_methods_of_suppression_are_the_setting_s_choices() -> None:
    choices = next(field for field in dataclasses.fields(Settings) if field.name == "suppression").metadata["choices"]
    assert tuple(METHODS) == choices


def test_an_iou_of_exactly_the_limit_stays() -> None:
    boxes = np.array([[0, 0, 6.5, 2], [3.5, 0, 10, 2]], np.float32)
    assert iou_matrix(boxes[:1], boxes[1:])[0, 0] == 0.3
    found = Detections(boxes, np.array([2, 1], np.float32), np.array([0, 0], np.int32))
    assert GreedyNms(0.3).survivors(found).tolist() == [0, 1]
    assert GreedyNms(0.29).survivors(found).tolist() == [0]


def plain_suppression(found: Detections, limit: float) -> list[int]:
    """The rule, one box at a time."""
    kept: list[int] = []
    for row in sorted(range(len(found)), key=lambda row: -found.scores[row]):
        rivals = [other for other in kept if found.labels[other] == found.labels[row]]
        if all(iou_matrix(found.boxes[[row]], found.boxes[[other]])[0, 0] <= limit for other in rivals):
            kept.append(row)
    return sorted(kept)


side = st.integers(1, 9)
box = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), st.integers(0, 9), st.integers(0, 9), side, side)


@settings(deadline=None)
@given(st.lists(st.tuples(box, st.integers(0, 9), st.integers(0, 2)), max_size=20))
def test_suppression_agrees_with_the_plain_loop(rows: list[tuple[tuple[int, ...], int, int]]) -> None:
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    found = Detections(
        boxes, np.array([row[1] for row in rows], np.float32), np.array([row[2] for row in rows], np.int32)
    )
    assert GreedyNms(0.31).survivors(found).tolist() == plain_suppression(found, 0.31)


# The stage

IMAGES = tuple(f"image{number}" for number in range(7))


def cache_of(folder: Path, name: str, schema: Schema, records: dict[str, dict[str, Any]], **manifest: Any) -> Reader:
    """A finished cache with these records."""
    writer = Writer(folder / name, Identity(name, 1, manifest), list(records), schema, part_size=3)
    for part in writer.claim():
        writer.write(part, [records[item] for item in part.item_ids])
    writer.finish({})
    writer.release()
    return Reader(folder / name)


def features_cache(folder: Path) -> Reader:
    """Features of seven images, the fourth without any box; the first rows are ground truth with huge features."""
    random = np.random.default_rng(3)
    records = {}
    for number, image in enumerate(IMAGES):
        rows = 0 if number == 3 else 30 + number
        corners = random.uniform(0, 60, (rows, 2))
        fc7 = random.normal(size=(rows, 4)).astype(np.float16)
        fc7[:2] = 1000
        records[image] = {
            "boxes": np.hstack([corners, corners + random.uniform(5, 60, (rows, 2))]).clip(0, 90).astype(np.float32),
            "is_object": np.arange(rows) < 2,
            "fc7": fc7,
            "pool5": random.normal(size=(rows, 2)).astype(np.float16),
            "image_size": np.array([100, 90 + number], np.int32),
        }
    columns = {"boxes": Column("float32", (4,)), "is_object": Column("bool"), "fc7": Column("float16", (4,))}
    rows_schema = {**columns, "pool5": Column("float16", (2,))}
    return cache_of(
        folder, "extract", Schema(rows=rows_schema, per_item={"image_size": Column("int32", (2,))}), records
    )


def svm_cache(folder: Path, svms: LinearSvms) -> Reader:
    """A train-svm cache from which these SVMs are read."""
    columns = {
        "weights": Column("float64", svms.weights.shape[1:]),
        "bias": Column("float64"),
        "scale": Column("float64"),
    }
    records = {
        name: {
            "weights": svms.weights[label].astype(np.float64),
            "bias": np.array(float(svms.biases[label])),
            "scale": np.array(1.0),
        }
        for label, name in enumerate(svms.classes)
    }
    return cache_of(folder, "train-svm", Schema(item="class", per_item=columns), records, layer=svms.layer)


def regressor_cache(folder: Path, regressors: BoxRegressors) -> Reader:
    """A train-bbox cache from which these regressors are read."""
    columns = {
        "coefficients": Column("float64", regressors.maps.shape[1:]),
        "unwhiten": Column("float64", (4, 4)),
        "mean": Column("float64", (4,)),
        "scale": Column("float64"),
    }
    records = {
        name: {"coefficients": affine, "unwhiten": np.eye(4), "mean": np.zeros(4), "scale": np.array(1.0)}
        for name, affine in zip(regressors.classes, regressors.maps.astype(np.float64), strict=True)
    }
    name = f"train-bbox-{len(list(folder.iterdir()))}"
    return cache_of(folder, name, Schema(item="class", per_item=columns), records, layer=regressors.layer)


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    weights = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    svms = LinearSvms(CLASSES, "fc7", weights, np.zeros(3, np.float32), 1.0)
    return {
        "features": features_cache(tmp_path),
        "svm": svm_cache(tmp_path, svms),
        "regressor": regressor_cache(tmp_path, shifting(0.1, 0.2, -0.1)),
    }


def detect(
    folder: Path,
    inputs: dict[str, Any],
    chosen: Settings | None = None,
    *,
    part_size: int = 4,
    shards: int = 1,
    jobs: int = 1,
) -> Reader:
    """Runs the stage, one shard after another, and finishes the cache."""
    chosen, given_inputs = chosen or Settings(), Inputs(inputs)
    for index in range(1, shards + 1):
        writer = Writer(
            folder,
            Identity("detect", 1),
            stage.items(chosen, given_inputs),
            stage.schema(chosen, given_inputs),
            part_size=part_size,
            shard=Shard(index, shards),
        )
        stage.run(chosen, given_inputs, writer, Execution(jobs=jobs))
        writer.release()
    writer.finish({}, lambda reader: stage.summarise(chosen, given_inputs, reader))
    return Reader(folder)


def test_the_stage_is_the_function_on_proposals_alone(tmp_path: Path, inputs: dict[str, Any]) -> None:
    reader = detect(tmp_path / "detect", inputs, Settings(max_per_image=20))
    assert reader.item_ids == IMAGES
    for image, record in inputs["features"].records():
        proposals = ~record["is_object"]
        features = {layer: record[layer][proposals] for layer in ("fc7", "pool5")}
        size = (int(record["image_size"][0]), int(record["image_size"][1]))
        svms, regressors = read_svms(inputs["svm"]), read_regressors(inputs["regressor"])
        chosen = Settings(max_per_image=20)
        found = detections(record["boxes"][proposals], features, size, svms, regressors, chosen)
        written = reader.read(image)
        np.testing.assert_array_equal(written["boxes"], found.boxes)
        np.testing.assert_array_equal(written["score"], found.scores)
        np.testing.assert_array_equal(written["label"], found.labels)
        assert len(written["candidates/score"]) == 3 * min(20, proposals.sum())
        assert np.all(written["candidates/score"] < 100)  # ground truth would score in the hundreds
        assert len(found) < len(written["candidates/score"]) or image == "image3"


@pytest.mark.parametrize("how", [{"part_size": 1}, {"part_size": 2, "shards": 3}, {"jobs": 3}])
def test_parts_shards_and_threads_change_nothing(tmp_path: Path, inputs: dict[str, Any], how: dict[str, Any]) -> None:
    expected = detect(tmp_path / "one", inputs)
    other = detect(tmp_path / "other", inputs, **how)
    for (_, first), (_, second) in zip(expected.records(), other.records(), strict=True):
        for name in first:
            assert first[name].tobytes() == second[name].tobytes()
    assert expected.manifest["summary"] == other.manifest["summary"]


def test_the_cap_counts_candidates_of_all_images(tmp_path: Path, inputs: dict[str, Any]) -> None:
    reader = detect(tmp_path / "detect", inputs, Settings(average_per_image=2))
    scores = [record["candidates/score"][record["candidates/label"] == 0] for _, record in reader.records()]
    fourteenth = np.sort(np.concatenate(scores))[-2 * len(IMAGES)]
    assert reader.manifest["summary"]["thresholds"][0] == fourteenth
    found = read_detections(reader)
    assert 0 < len(found.of_class("cat")) < sum(int(np.sum(r["label"] == 0)) for _, r in reader.records())
    assert found.of_class("cat").scores.min() >= fourteenth
    assert reader.manifest["summary"]["detections"] == len(found)


def test_the_cap_of_each_image_needs_no_candidates_and_cuts_nothing_later(
    tmp_path: Path, inputs: dict[str, Any]
) -> None:
    settings = Settings(cap="image", least_score=-1, all_classes_at_most=7)
    reader = detect(tmp_path / "detect", inputs, settings, part_size=2, shards=2)
    assert [len(record["score"]) for _, record in reader.records()] == [7, 7, 7, 0, 7, 7, 7]
    assert "candidates/score" not in reader.read("image0")
    assert reader.manifest["summary"]["thresholds"] == [None, None, None]
    assert len(read_detections(reader)) == reader.manifest["summary"]["detections"] == 42


def test_across_classes_the_cap_counts_what_suppression_leaves(tmp_path: Path, inputs: dict[str, Any]) -> None:
    """Before suppression it would count boxes that those of other classes suppress, below their own class's cut."""
    reader = detect(tmp_path / "detect", inputs, Settings(class_agnostic=True, average_per_image=2))
    of_each = detect(tmp_path / "each", inputs, Settings(average_per_image=2))
    for image, record in reader.records():
        ious = iou_matrix(record["boxes"], record["boxes"])
        assert (ious - np.eye(len(ious)) <= np.float32(0.3)).all()
        assert len(record["score"]) < len(of_each.read(image)["score"]) or image == "image3"
        np.testing.assert_array_equal(record["candidates/score"], record["score"])
        np.testing.assert_array_equal(record["candidates/label"], record["label"])
    cats = np.concatenate([record["score"][record["label"] == 0] for _, record in reader.records()])
    assert reader.manifest["summary"]["thresholds"][0] == np.sort(cats)[-2 * len(IMAGES)]
    assert len(read_detections(reader).of_class("cat")) == 2 * len(IMAGES)


def test_merging_across_classes_is_refused() -> None:
    with pytest.raises(BadSetting, match="class_agnostic = true is for suppression = 'nms'"):
        Settings(suppression="merge", merge_scores="best", class_agnostic=True)


def test_without_regression_boxes_are_the_proposals(
    tmp_path: Path, inputs: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "stages.detect")
    off = detect(tmp_path / "off", inputs, Settings(bbox_regression=False))
    assert not caplog.records
    missing = {role: value for role, value in inputs.items() if role != "regressor"}
    reader = detect(tmp_path / "missing", missing)
    assert "no box regressors; boxes stay as they are" in caplog.text
    for image, record in off.records():
        known = {tuple(row) for row in inputs["features"].read(image)["boxes"].tolist()}
        assert {tuple(row) for row in record["boxes"].tolist()} <= known
        np.testing.assert_array_equal(record["boxes"], reader.read(image)["boxes"])
    assert off.manifest["summary"]["bbox_regression"] is False
    assert reader.manifest["summary"]["bbox_regression"] is False


def test_a_layer_that_was_not_extracted_is_named(tmp_path: Path, inputs: dict[str, Any]) -> None:
    elsewhere = BoxRegressors(CLASSES, "conv5", np.zeros((3, 3, 4), np.float32), 1.0)
    inputs["regressor"] = regressor_cache(tmp_path, elsewhere)
    with pytest.raises(StageError, match="conv5"):
        detect(tmp_path / "detect", inputs)


def test_regressors_of_other_classes_are_refused(tmp_path: Path, inputs: dict[str, Any]) -> None:
    inputs["regressor"] = regressor_cache(tmp_path, shifting(0, 0))
    with pytest.raises(StageError, match="same dataset"):
        detect(tmp_path / "detect", inputs)


def test_background_is_never_detected_and_scores_are_the_probabilities() -> None:
    """The last of the K + 1 columns is the background: no candidate has its label, however sure the network is."""
    scorer = class_probabilities((*CLASSES, "background"))
    probabilities = np.array([[0.1, 0.2, 0.3, 0.4], [0, 0, 0.001, 0.999], [0.6, 0.3, 0.05, 0.05]], np.float32)
    assert scorer.classes == CLASSES
    np.testing.assert_array_equal(scorer.score(probabilities), probabilities[:, :3])
    boxes = np.array([[20 * i, 0, 20 * i + 10, 10] for i in range(3)], np.float32)
    found = detections(boxes, {"softmax": probabilities}, (60, 10), scorer, None, Settings(score="softmax"))
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    np.testing.assert_array_equal(found.scores, np.sort(probabilities[:, :3].T, axis=1)[:, ::-1].ravel())
    np.testing.assert_array_equal(found.boxes[:3], boxes[[2, 0, 1]])


@pytest.mark.parametrize("names", [(), ("cat", "dog"), ("background",)])
def test_softmax_of_a_network_without_background_is_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(StageError, match=r"add a \[finetune\] table"):
        class_probabilities(names)


def test_the_stage_detects_by_the_softmax_of_its_features(tmp_path: Path, inputs: dict[str, Any]) -> None:
    """Regression, suppression and the cap are those of SVMs; only the scores are others, and no SVM is read."""
    random = np.random.default_rng(5)
    records = {}
    for image, record in inputs["features"].records():
        odds = random.exponential(size=(len(record["boxes"]), 4)).astype(np.float32)
        records[image] = {**record, "softmax": odds / odds.sum(axis=1, keepdims=True)}
    old = inputs["features"].schema
    columns = Schema(rows={**old.rows, "softmax": Column("float32", (4,))}, per_item=old.per_item)
    features = cache_of(tmp_path, "more", columns, records)
    features.manifest["summary"] = {"class_names": [*CLASSES, "background"]}
    chosen = Settings(score="softmax", max_per_image=10)
    reader = detect(tmp_path / "out", {"features": features, "regressor": inputs["regressor"]}, chosen)
    assert reader.manifest["summary"]["classes"] == list(CLASSES)
    for image, record in records.items():
        proposals = ~record["is_object"]
        layers = {layer: record[layer][proposals] for layer in ("softmax", "pool5")}
        size = (int(record["image_size"][0]), int(record["image_size"][1]))
        scorer = class_probabilities((*CLASSES, "background"))
        found = detections(
            record["boxes"][proposals], layers, size, scorer, read_regressors(inputs["regressor"]), chosen
        )
        np.testing.assert_array_equal(reader.read(image)["score"], found.scores)
        np.testing.assert_array_equal(reader.read(image)["boxes"], found.boxes)
    features.manifest["summary"] = {}
    with pytest.raises(StageError, match="background"):
        detect(tmp_path / "no", {"features": features}, chosen)
    inputs["features"].manifest["summary"] = {"class_names": [*CLASSES, "background"]}
    with pytest.raises(StageError, match="lack layer 'softmax'"):
        detect(tmp_path / "none", inputs, chosen)


def test_the_stage_moves_boxes_by_the_deltas_of_its_features(tmp_path: Path, inputs: dict[str, Any]) -> None:
    """Those of the proposals alone; with SVMs as with the softmax, and without regressors."""
    random = np.random.default_rng(6)
    records = {
        image: {**record, "deltas": (0.2 * random.normal(size=(len(record["boxes"]), 12))).astype(np.float32)}
        for image, record in inputs["features"].records()
    }
    old = inputs["features"].schema
    columns = Schema(rows={**old.rows, "deltas": Column("float32", (12,))}, per_item=old.per_item)
    features = cache_of(tmp_path, "more", columns, records)
    features.manifest["summary"] = {"class_names": [*CLASSES, "background"]}
    chosen = Settings(regression="network", max_per_image=10)
    reader = detect(tmp_path / "out", {"features": features, "svm": inputs["svm"]}, chosen, jobs=2)
    assert reader.manifest["summary"]["bbox_regression"] is True
    record = records["image1"]
    proposals = ~record["is_object"]
    layers = {layer: record[layer][proposals] for layer in ("fc7", "deltas")}
    scored = Head(read_svms(inputs["svm"]), network_regression((*CLASSES, "background"), {})).scored(
        record["boxes"][proposals], layers, (100, 91)
    )
    trace = detect_image(scored, chosen)
    np.testing.assert_array_equal(reader.read("image1")["boxes"], trace.detections.boxes)
    row, label = trace.candidates.rows[0], trace.candidates.labels[0]
    box, moved = record["boxes"][proposals][row].astype(float), layers["deltas"][row, 4 * label : 4 * label + 4]
    sides = (box[2:] - box[:2]) * np.exp(moved[2:])
    centre = (box[:2] + box[2:]) / 2 + moved[:2] * (box[2:] - box[:2])
    expected = np.clip([*(centre - sides / 2), *(centre + sides / 2)], 0, [100, 91, 100, 91])
    np.testing.assert_allclose(trace.moved.boxes[0], expected, rtol=1e-5)
    assert not np.array_equal(trace.moved.boxes[0], record["boxes"][proposals][row])
    features.manifest["summary"] = {}
    with pytest.raises(StageError, match="predicts box deltas"):
        detect(tmp_path / "no", {"features": features, "svm": inputs["svm"]}, chosen)
    inputs["features"].manifest["summary"] = {"class_names": [*CLASSES, "background"]}
    with pytest.raises(StageError, match="lack layer 'deltas'"):
        detect(tmp_path / "none", inputs, chosen)


def test_deltas_of_other_classes_than_the_svms_are_refused(tmp_path: Path, inputs: dict[str, Any]) -> None:
    inputs["features"].manifest["summary"] = {"class_names": ["dog", "cat", "owl", "background"]}
    with pytest.raises(StageError, match="the classes of the box regression differ"):
        detect(tmp_path / "detect", inputs, Settings(regression="network"))


def test_a_network_that_predicts_deltas_is_needed_before_anything_runs() -> None:
    assert STAGE.check is not None
    chosen = Settings(score="softmax", regression="network")
    own = PlannedNetwork(NETWORKS["shapenet"], True)
    detector = PlannedNetwork(NETWORKS["shapenet"].with_heads(Heads(None, RegionHead("max", 4))), True)
    kept = ExtractSettings(layers=("softmax", "deltas"))
    with pytest.raises(BadSetting, match="'network' needs the features of a network that predicts box deltas"):
        STAGE.check(chosen, own, {"features": kept})
    with pytest.raises(BadSetting, match="'network': its layer 'deltas' is not among the extracted"):
        STAGE.check(chosen, detector, {"features": ExtractSettings(layers=("softmax",))})
    STAGE.check(chosen, detector, {"features": kept})
    with pytest.raises(BadSetting, match="refines boxes, which bbox_regression = false turns off"):
        Settings(regression="network", bbox_regression=False)


def test_the_scores_setting_came_later_and_leaves_older_keys_alone() -> None:
    older = {"max_per_image": 100, "average_per_image": 40, "nms_iou": 0.3, "bbox_regression": True}
    assert identity_of(Settings()) == older
    assert identity_of(Settings(score="softmax")) == {**older, "score": "softmax"}
    assert identity_of(Settings(regression="network")) == {**older, "regression": "network"}
    by_image = {"cap": "image", "least_score": 0.05, "all_classes_at_most": 100}
    assert identity_of(Settings(cap="image")) == {**older, **by_image}


def test_the_card() -> None:
    assert STAGE.follows_split
    assert [role.role for role in STAGE.inputs if role.optional] == ["regressor"]
    assert (Settings().max_per_image, Settings().average_per_image, Settings().nms_iou) == (100, 40, 0.3)


# Merging


def test_merged_boxes_are_counted(tmp_path: Path, inputs: dict[str, Any]) -> None:
    """The cap counts what is left by merging, by its own scores; and what is stored as candidates is just that."""
    chosen = Settings(suppression="merge", merge_threshold=1.2, merge_scores="best", average_per_image=2)
    reader = detect(tmp_path / "merge", inputs, chosen, part_size=2, shards=2)
    records = dict(reader.records())
    thresholds = reader.manifest["summary"]["thresholds"]
    for label in range(len(CLASSES)):
        scores = np.concatenate([record["score"][record["label"] == label] for record in records.values()])
        assert thresholds[label] == np.sort(scores)[-2 * len(IMAGES)]
    detector = stage.Detector(chosen, Inputs(inputs))
    for image, record in records.items():
        np.testing.assert_array_equal(record["candidates/score"], record["score"])
        np.testing.assert_array_equal(record["candidates/label"], record["label"])
        trace = detector.trace(image)
        assert trace.detections.boxes.tobytes() == record["boxes"].tobytes()
        assert trace.detections.scores.tobytes() == record["score"].tobytes()
        np.testing.assert_array_equal(trace.moved.scores[trace.outcome.leaders], record["score"])
        np.testing.assert_array_equal(best_candidates(trace.scored, 100).scores, trace.candidates.scores)
        assert len(record["score"]) < len(trace.moved) or not len(trace.moved)
    assert reader.manifest["summary"]["detections"] == len(read_detections(reader))


def test_what_the_scores_of_merged_boxes_are(inputs: dict[str, Any]) -> None:
    named = [
        (Settings(), "SVM margin"),
        (Settings(suppression="merge", merge_scores="best"), "SVM margin"),
        (Settings(suppression="merge", score="softmax", merge_scores="best"), "softmax probability"),
        (Settings(suppression="merge", score="softmax"), "summed softmax probability"),
    ]
    assert [score_of(chosen).name for chosen, _ in named] == [name for _, name in named]
    assert stage.attributes(named[1][0], Inputs(inputs))["score"] == "SVM margin"
    with pytest.raises(BadSetting, match=r"SVM margins, .*, cannot be added; set merge_scores = 'best', or score = "):
        Settings(suppression="merge")


def test_the_cap_of_an_image_counts_merged_boxes() -> None:
    """Two boxes of 0.3 and 0.4 in one place score more than one of 0.6; what scores least_score or less is left out."""
    boxes = spaced(3)[[0, 0, 1, 0]]
    scores = np.array([[0.3, 0.7], [0.4, 0.6], [0.6, 0.4], [0.25, 0.75]], np.float32)
    scorer = class_probabilities(("cat", "background"))
    chosen = Settings(score="softmax", suppression="merge", cap="image", least_score=0.25, all_classes_at_most=1)
    found = detections(boxes, {"softmax": scores}, (90, 10), scorer, None, chosen)
    np.testing.assert_array_equal(found.boxes, boxes[:1])
    np.testing.assert_allclose(found.scores, [0.7], rtol=1e-6)


def scored_windows(*rows: tuple[int, float, float, float]) -> Scored:
    """Windows that do not overlap: of each its scale and its scores for cat, dog and owl."""
    scores = np.array([row[1:] for row in rows], np.float32)
    levels = np.array([row[0] for row in rows], np.int32)
    trained = np.ones(3, bool)
    return Scored(spaced(len(rows)), CLASSES, trained, lambda block: scores[:, block], None, (200, 20), levels)


@pytest.mark.parametrize(
    ("classes", "cats", "dogs", "owls"),
    [
        (1, [0.5, 0.1], [], [0.7, 0.2]),
        (2, [0.5, 0.3, 0.2, 0.1], [0.4, 0.3], [0.7, 0.2]),
        (3, [0.5, 0.3, 0.2, 0.1], [0.4, 0.3, 0.3, 0.2], [0.7, 0.2, 0.2, 0.1]),
    ],
)
def test_only_the_best_classes_of_a_scale_compete(
    classes: int, cats: list[float], dogs: list[float], owls: list[float]
) -> None:
    """A class that scores high anywhere at a scale competes there with all its windows: at scale 2 first cat, then dog;
    at 5 first owl, then cat, which equals dog and comes before it. The best of a class are chosen after that."""
    windows = scored_windows((2, 0.5, 0.4, 0.1), (5, 0.3, 0.3, 0.2), (2, 0.1, 0.3, 0.2), (5, 0.2, 0.2, 0.7))
    merging: dict[str, Any] = {"suppression": "merge", "score": "softmax"}
    for at_most in (2, 100):
        chosen = Settings(**merging, classes_per_scale=classes, max_per_image=at_most)
        trace = detect_image(windows, chosen)
        expected = np.array([*cats[:at_most], *dogs[:at_most], *owls[:at_most]], np.float32)
        np.testing.assert_array_equal(trace.candidates.scores, expected)
        counts = [len(scores[:at_most]) for scores in (cats, dogs, owls)]
        assert trace.candidates.labels.tolist() == np.repeat(np.arange(3), counts).tolist()
    assert len(detect_image(windows, Settings(**merging)).candidates.scores) == 12


def test_scales_must_be_known(tmp_path: Path, inputs: dict[str, Any]) -> None:
    chosen = Settings(suppression="merge", merge_scores="best", classes_per_scale=2)
    with pytest.raises(StageError, match=r"^detect: classes_per_scale needs features that say at which scale"):
        detect(tmp_path / "detect", inputs, chosen)
    detector = PlannedNetwork(NETWORKS["alexnet"], trained=False)
    assert STAGE.check is not None
    with pytest.raises(BadSetting, match=r"set method = 'dense' for extract, or leave classes_per_scale out"):
        STAGE.check(chosen, detector, {"features": ExtractSettings()})
