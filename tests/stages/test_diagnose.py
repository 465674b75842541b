"""The diagnosis after Hoiem et al.: types, remedies, normalised AP and subsets on cases worked out by hand."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cache import Identity, Reader, Writer
from stages.contract.errors import StageError
from stages.contract.inputs import Inputs
from stages.datasets import ImageRecord
from stages.detect import Settings as DetectSettings
from stages.detect.stage import schema as detections_schema
from stages.detections import ClassDetections
from stages.diagnose import STAGE, Settings
from stages.diagnose.characteristics import (
    BINS,
    Normalised,
    bins_of,
    mean_sensitivity,
    normalised_ap,
    normalised_ap_of_bins,
    percentile_bins,
    sensitivity_of,
)
from stages.diagnose.false_positives import average_precision, effects, precision_at_objects, top_false_positives, trend
from stages.diagnose.pictures import draw_diagnosis
from stages.diagnose.report import format_tables, write_diagnosis
from stages.matching.average_precision import precision_recall_curve
from stages.matching.detections import by_rank, match_hoiem
from stages.matching.error_types import (
    BACKGROUND,
    DIFFICULT,
    FALSE,
    FOUND,
    IGNORED,
    LOCALISATION,
    OTHER,
    SIMILAR,
    TRUE,
    largest_overlaps,
    similar_labels,
    types_of,
)
from stages.matching.objects import ClassObjects, Objects
from tests.stages.given_datasets import GivenDataset

CLASSES = ("cat", "dog", "car")
CAT, DOG, CAR = range(3)
SQUARE = (0, 0, 10, 10)


def objects_of(*rows: tuple[int, tuple[float, ...], int], difficult: Any = (), **flags: Any) -> Objects:
    """Objects from (image, box, label), images ascending; further columns false or unspecified unless given."""
    hard = np.zeros(len(rows), bool)
    hard[list(difficult)] = True
    columns = {name: np.zeros(len(rows), bool) for name in ("truncated", "occluded", "crowds")}
    return Objects(
        images=np.array([row[0] for row in rows], np.int64),
        boxes=np.array([row[1] for row in rows], np.float32).reshape(-1, 4),
        labels=np.array([row[2] for row in rows], np.int32),
        difficult=hard,
        poses=np.array(flags.pop("poses", ["Unspecified"] * len(rows)), np.str_),
        **{**columns, **{name: np.array(value, bool) for name, value in flags.items()}},
    )


def detections_of(*rows: tuple[int, tuple[float, ...], float]) -> ClassDetections:
    """A class's detections from (image, box, score), images ascending."""
    return ClassDetections(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[2] for row in rows], np.float32),
    )


def types(detections: ClassDetections, objects: Objects, similar: tuple[int, ...] = (DOG,)) -> list[int]:
    """The types of the cats' detections, in their own order."""
    own = objects.where(objects.labels == CAT)
    return types_of(
        match_hoiem(detections, own, 0.5).verdicts, largest_overlaps(detections, objects, CAT, similar), 0.1
    ).tolist()


# Types of false positives

SCENE = objects_of((0, SQUARE, CAT), (0, (20, 0, 30, 10), DOG), (0, (40, 0, 50, 10), CAR))


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        (SQUARE, FOUND),
        ((0, 0, 10, 5), FOUND),  # an IoU of exactly 0.5
        ((0, 0, 7, 7), LOCALISATION),  # 0.49
        ((0, 0, 10, 1), LOCALISATION),  # exactly 0.1
        ((0, 0, 9, 1), BACKGROUND),  # 0.09
        ((20, 0, 30, 10), SIMILAR),
        ((20, 0, 30, 1), SIMILAR),  # exactly 0.1
        ((20, 0, 29, 1), BACKGROUND),
        ((40, 0, 50, 10), OTHER),
        ((40, 0, 50, 1), OTHER),
        ((60, 0, 70, 10), BACKGROUND),
        ((0, 0, 30, 10), LOCALISATION),  # a third of the cat and of the dog: Loc goes before Sim
        ((20, 0, 50, 10), SIMILAR),  # a third of the dog and of the car: Sim goes before Oth
        ((18, 0, 50, 10), SIMILAR),
        ((22, 0, 50, 10), SIMILAR),  # 0.27 of the dog, 0.36 of the car: Sim still
        ((3, 0, 50, 10), LOCALISATION),
    ],
)
def test_the_type_of_one_detection(box: tuple[float, ...], kind: int) -> None:
    assert types(detections_of((0, box, 0.5)), SCENE) == [kind]


def test_without_similar_classes_the_dog_is_another_class() -> None:
    assert types(detections_of((0, (20, 0, 30, 10), 0.5)), SCENE, similar=()) == [OTHER]


def test_objects_of_other_images_do_not_matter() -> None:
    assert types(detections_of((1, SQUARE, 0.5)), SCENE) == [BACKGROUND]


def test_of_two_detections_of_an_object_the_better_scored_is_right_and_the_other_a_duplicate() -> None:
    twice = detections_of((0, (0, 0, 10, 8), 0.3), (0, (0, 0, 10, 6), 0.9))
    assert types(twice, SCENE) == [LOCALISATION, FOUND]
    equal = detections_of((0, (0, 0, 10, 8), 0.5), (0, (0, 0, 10, 6), 0.5))
    assert types(equal, SCENE) == [FOUND, LOCALISATION]


def test_a_difficult_object_excuses_one_detection_and_is_near_for_the_others() -> None:
    objects = objects_of((0, SQUARE, CAT), (1, SQUARE, DOG), difficult=(0, 1))
    found = detections_of((0, SQUARE, 0.9), (0, SQUARE, 0.8), (0, (0, 0, 10, 2), 0.7), (1, SQUARE, 0.6))
    assert types(found, objects) == [DIFFICULT, LOCALISATION, LOCALISATION, SIMILAR]


def test_a_detection_whose_best_object_is_taken_finds_the_next() -> None:
    objects = objects_of((0, SQUARE, CAT), (0, (0, 2, 10, 12), CAT))  # the second overlaps the first by 2/3
    matches = match_hoiem(detections_of((0, SQUARE, 0.9), (0, SQUARE, 0.8), (0, SQUARE, 0.7)), objects, 0.5)
    assert matches.verdicts.tolist() == [TRUE, TRUE, FALSE]
    assert matches.objects.tolist() == [0, 1, -1]


def test_similar_classes_share_a_set() -> None:
    alike = similar_labels(("cat", "dog", "car", "bus"), (("dog", "cat", "owl"), ("bus", "car"), ("cat", "bus")))
    assert alike == {"cat": [1, 3], "dog": [0], "car": [3], "bus": [0, 2]}


# Their trend


def test_the_trend_of_a_group_goes_down_all_classes_at_once() -> None:
    first = np.array([LOCALISATION, FOUND, BACKGROUND], np.int8)
    second = np.array([SIMILAR, OTHER], np.int8)
    alone = {"Loc": 1, "Sim": 0, "Oth": 0, "BG": 0}
    assert trend([first], (1, 2, 3)) == {1: alone, 2: {**alone, "BG": 1}}
    both = {"Loc": 1, "Sim": 1, "Oth": 0, "BG": 0}
    assert trend([first, second], (1, 2, 3, 4, 5)) == {
        1: both,
        2: both,
        3: {**both, "Oth": 1},
        4: {**both, "Oth": 1, "BG": 1},
    }
    assert trend([]) == trend([np.zeros(0, np.int8)]) == {}


def test_the_top_false_positives_leave_out_what_is_right() -> None:
    found = np.array([FOUND, LOCALISATION, DIFFICULT, BACKGROUND, LOCALISATION], np.int8)
    assert top_false_positives(found, 2) == {"Loc": 1, "Sim": 0, "Oth": 0, "BG": 1}


# Normalised AP


def test_precision_at_objects_by_hand() -> None:
    found = np.array([TRUE, IGNORED, FALSE, TRUE], np.int8)
    assert precision_at_objects(found, 4).tolist() == pytest.approx([1, 2 / 3, 0, 0])
    # N is twice the number of objects: each found one counts for two.
    assert precision_at_objects(found, 4, 8.0).tolist() == pytest.approx([1, 4 / 5, 0, 0])
    whole = normalised_ap(found, 4, 8.0)
    assert whole.ap == pytest.approx(0.45)
    assert whole.error == pytest.approx(np.sqrt((0.55**2 + 0.35**2 + 2 * 0.45**2) / 3) / 2)
    # The precision at an object is the best at its recall or more.
    assert precision_at_objects(np.array([FALSE, TRUE, TRUE], np.int8), 2).tolist() == pytest.approx([2 / 3, 2 / 3])
    assert average_precision(np.zeros(0, np.int8), 3) == 0
    assert np.isnan(average_precision(found[:0], 0))
    assert np.isnan(normalised_ap(found[:1], 1, 5.0).error)


def test_normalised_to_its_own_number_of_objects_ap_is_ap() -> None:
    found = np.array([FALSE, TRUE, FALSE, TRUE, FALSE], np.int8)
    assert normalised_ap(found, 3, 3.0).ap == average_precision(found, 3) == pytest.approx(1 / 3)


# Remedies


def test_what_each_remedy_gives_by_hand() -> None:
    objects = objects_of((0, SQUARE, CAT), (1, SQUARE, CAT), (1, (20, 0, 30, 10), DOG))
    found = detections_of(
        (0, (0, 0, 10, 2), 0.9),  # Loc
        (1, SQUARE, 0.5),  # found
        (1, (20, 0, 30, 10), 0.8),  # Sim
        (1, (60, 0, 70, 10), 0.7),  # BG
    )
    order = by_rank(found)
    own = objects.where(objects.labels == CAT)
    verdicts, poor = match_hoiem(found, own, 0.5).verdicts[order], match_hoiem(found, own, 0.1).verdicts[order]
    overlaps = largest_overlaps(found, objects, CAT, (DOG,))[order]
    assert average_precision(verdicts, 2) == pytest.approx(1 / 4 / 2)
    assert effects(verdicts, poor, overlaps, 2, 0.1) == pytest.approx(
        {
            "Loc corrected": (1 + 2 / 4) / 2,
            "Loc removed": 1 / 3 / 2,
            "Sim removed": 1 / 3 / 2,
            "Oth removed": 1 / 4 / 2,
            "BG removed": 1 / 3 / 2,
            "Oth and BG removed": 1 / 3 / 2,
        }
    )


def test_a_corrected_localisation_makes_the_better_box_a_duplicate_which_is_removed() -> None:
    objects = objects_of((0, SQUARE, CAT))
    found = detections_of((0, (0, 0, 10, 1), 0.9), (0, SQUARE, 0.8))
    verdicts, poor = match_hoiem(found, objects, 0.5).verdicts, match_hoiem(found, objects, 0.1).verdicts
    overlaps = largest_overlaps(found, objects, CAT, ())
    assert average_precision(verdicts, 1) == 0.5
    assert effects(verdicts, poor, overlaps, 1, 0.1)["Loc corrected"] == 1


box = st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(1, 9), st.integers(1, 9)).map(
    lambda one: (one[0], one[1], one[0] + one[2], one[1] + one[3])
)
scenes = st.tuples(
    st.lists(st.tuples(st.integers(0, 2), box, st.integers(0, 2), st.booleans()), max_size=8),
    st.lists(st.tuples(st.integers(0, 3), box, st.integers(0, 5)), max_size=14),
)


@settings(max_examples=60, deadline=None)
@given(scenes)
def test_types_part_the_false_positives_and_no_remedy_lowers_the_ap(scene: Any) -> None:
    things, rows = (sorted(one, key=lambda row: row[0]) for one in scene)
    hard = [number for number, thing in enumerate(things) if thing[3]]
    objects, found = objects_of(*(thing[:3] for thing in things), difficult=hard), detections_of(*rows)
    own = objects.where(objects.labels == CAT)
    positives = int(np.sum(~own.difficult))
    order = by_rank(found)
    matches = match_hoiem(found, own, 0.5)
    verdicts, poor = matches.verdicts[order], match_hoiem(found, own, 0.1).verdicts[order]
    overlaps = largest_overlaps(found, objects, CAT, (DOG,))[order]
    kinds = types_of(verdicts, overlaps, 0.1)
    assert np.array_equal(kinds >= LOCALISATION, verdicts == FALSE)
    assert np.array_equal(kinds == FOUND, verdicts == TRUE)
    assert len(set(taken := matches.objects[matches.objects >= 0].tolist())) == len(taken)
    assert sum(top_false_positives(kinds, len(kinds)).values()) == np.sum(verdicts == FALSE)
    if positives:
        before = average_precision(verdicts, positives)
        for after in effects(verdicts, poor, overlaps, positives, 0.1).values():
            assert before - 1e-12 <= after <= 1
        bins = normalised_ap_of_bins(matches, own, order, 4.0)
        for characteristic in ("area", "aspect ratio", "truncation"):
            assert sum(one.positives for one, name in zip(bins, BINS, strict=True) if name[0] == characteristic) == (
                positives
            )


@pytest.mark.parametrize("seed", range(5))
def test_where_objects_lie_apart_the_ap_is_the_devkits_area(seed: int) -> None:
    generator = np.random.default_rng(seed)
    corners = np.array([(x, y) for x in (0, 40, 80) for y in (0, 40)], float)
    things = [(image, (*corner, *(corner + 20)), CAT) for image in range(4) for corner in corners]
    rows = []
    for image in range(4):
        near = np.tile(corners, (3, 1)) + generator.uniform(-7, 7, (18, 2))
        rows += [(image, (*corner, *(corner + 20)), float(generator.normal())) for corner in near]
    objects, found = objects_of(*things), detections_of(*rows)
    verdicts = match_hoiem(found, objects, 0.5).verdicts[by_rank(found)]
    plain = ClassObjects(objects.images, objects.boxes, objects.difficult)
    assert average_precision(verdicts, len(objects)) == pytest.approx(precision_recall_curve(found, plain).ap_area)
    assert 0 < np.sum(verdicts == FALSE) < len(verdicts)


# Characteristics


def test_percentile_bins() -> None:
    assert percentile_bins(np.arange(10.0, 0, -1)).tolist() == [4, 3, 3, 2, 2, 2, 2, 1, 1, 0]
    assert percentile_bins(np.full(8, 3.0)).tolist() == [0] * 8
    assert np.bincount(percentile_bins(np.arange(1.0, 101))).tolist() == [10, 20, 40, 20, 10]
    assert percentile_bins(np.array([5.0])).tolist() == [2]
    assert percentile_bins(np.zeros(0)).tolist() == []


def test_the_bins_of_objects() -> None:
    sides = [(1, 10), (10, 1), (5, 5), (6, 6), (7, 8)]
    objects = objects_of(
        *((0, (0, 0, *side), CAT) for side in sides),
        difficult=[2],
        truncated=[True, False, True, False, False],
        poses=["Left", "Unspecified", "Left", "Frontal", "sideways"],
    )
    bins = {name: found.tolist() for name, found in bins_of(objects).items()}
    assert bins["truncation"] == [1, 0, -1, 0, 0]
    assert bins["occlusion"] == [0, 0, -1, 0, 0]
    assert bins["viewpoint"] == [2, -1, -1, 0, -1]
    # Of four objects the bins end with the ranks 0.4, 1.2, 2.8 and 3.6: 0, 1, 3 and 4.
    assert bins["area"] == [1, 1, -1, 2, 3]
    assert bins["aspect ratio"] == [1, 3, -1, 2, 2]


def test_a_subset_has_its_own_objects_and_everyones_false_positives() -> None:
    objects = objects_of((0, SQUARE, CAT), (1, SQUARE, CAT), truncated=[False, True])
    found = detections_of((0, SQUARE, 0.9), (0, (60, 0, 70, 10), 0.8), (1, SQUARE, 0.7))
    bins = normalised_ap_of_bins(match_hoiem(found, objects, 0.5), objects, by_rank(found), 2.0)
    whole, truncated = (bins[BINS.index(("truncation", label))] for label in ("whole", "truncated"))
    assert (whole.ap, whole.positives) == (1, 1)
    assert (truncated.ap, truncated.positives) == (pytest.approx(2 / 3), 1)
    missing = bins[BINS.index(("occlusion", "occluded"))]
    assert np.isnan(missing.ap)
    assert missing.positives == 0


def test_sensitivity_and_impact() -> None:
    bins = [Normalised(0.2, 0.1, 9), Normalised(0.7, 0.1, 5), Normalised(0.9, 0.1, 4), Normalised(0.4, 0.1, 8)]
    one = sensitivity_of(bins, 0.5)
    assert one is not None
    assert (one.lowest, one.highest) == (0.2, 0.7)  # four objects are too few to be the best
    assert (one.sensitivity, one.impact) == (pytest.approx(0.5), pytest.approx(0.2))
    other = sensitivity_of([Normalised(0.4, 0.1, 9), Normalised(0.5, 0.1, 9)], 0.44)
    assert other is not None
    means = mean_sensitivity([one, other])
    assert (means.lowest, means.highest, means.overall) == pytest.approx((0.3, 0.6, 0.47))
    assert sensitivity_of(bins[1:3], 0.5) is None


# The stage


def dataset_of(things: Mapping[str, Sequence[tuple[tuple[int, ...], int, bool]]], pose: str = "Unspecified") -> Any:
    """A dataset with these (box, label, difficult) in each image; every second object of an image is truncated."""
    records = {
        image: ImageRecord(
            image_id=image,
            path=Path(f"{image}.png"),
            width=100,
            height=100,
            boxes=np.array([thing[0] for thing in found], np.float32).reshape(-1, 4),
            labels=np.array([thing[1] for thing in found], np.int32),
            difficult=np.array([thing[2] for thing in found], bool),
            truncated=np.arange(len(found)) % 2 == 1,
            occluded=np.zeros(len(found), bool),
            pose=(pose,) * len(found),
        )
        for image, found in things.items()
    }
    return GivenDataset(name="toy", classes=CLASSES, image_ids=tuple(things), record=records.__getitem__)


def detections_cache(folder: Path, rows: Mapping[str, Sequence[tuple[tuple[float, ...], float, int]]]) -> Reader:
    """A finished detections cache with these (box, score, label) in each image and no cap."""
    writer = Writer(
        folder, Identity("detect", 1), list(rows), detections_schema(DetectSettings(), Inputs()), part_size=2
    )
    for part in writer.claim():
        records = []
        for image in part.item_ids:
            score = np.array([row[1] for row in rows[image]], np.float32)
            label = np.array([row[2] for row in rows[image]], np.int32)
            boxes = np.array([row[0] for row in rows[image]], np.float32).reshape(-1, 4)
            records.append(
                {
                    "boxes": boxes,
                    "score": score,
                    "label": label,
                    "image_size": np.array([80, 30], np.int32),
                    "candidates/score": score,
                    "candidates/label": label,
                }
            )
        writer.write(part, records)
    writer.finish({}, lambda reader: {"classes": list(CLASSES), "thresholds": [None] * len(CLASSES)})
    writer.release()
    return Reader(folder)


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    """Six cats beside a dog each, every cat found, once after the dog was taken for a cat; no plain car."""
    things = {f"i{n}": [((0, 0, 10 + n, 10), CAT, False), ((30, 0, 40, 10 + n), DOG, False)] for n in range(6)}
    things["empty"] = [((0, 0, 10, 10), CAR, True)]
    rows = {f"i{n}": [((0.0, 0.0, 10.0 + n, 10.0), 0.9 - n / 10, CAT)] for n in range(6)}
    rows["i0"].append(((30, 0, 40, 10), 0.95, CAT))
    rows["empty"] = [((0, 0, 10, 10), 0.5, CAT)]
    return {"images": dataset_of(things), "detections": detections_cache(tmp_path / "detections", rows)}


ALIKE = Settings(similar=(("cat", "dog"),))


def test_a_worked_diagnosis(run_stage: Any, inputs: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    reader = run_stage(STAGE, ALIKE, inputs)
    assert reader.read("cat")["type"].tolist() == [SIMILAR, *[FOUND] * 5, OTHER, FOUND]
    summary = reader.manifest["summary"]
    cat = summary["classes"]["cat"]
    # False, five times true, false, true: 5/6 at five objects, 6/8 at the last.
    assert cat["ap"] == pytest.approx((5 * 5 / 6 + 6 / 8) / 6)
    assert cat["false_positives"] == {"Loc": 0, "Sim": 1, "Oth": 1, "BG": 0}
    assert cat["remedies"]["Sim removed"] == pytest.approx((5 + 6 / 7) / 6)
    assert cat["remedies"]["Loc corrected"] == cat["ap"]
    assert summary["classes"]["dog"]["ap"] == 0
    assert summary["classes"]["car"]["ap"] is None
    assert "car" in caplog.text
    assert summary["normal"] == 6  # the mean of six cats and six dogs
    assert summary["ap"] == pytest.approx(cat["ap"] / 2)
    assert summary["ap_n"] == pytest.approx(summary["ap"])
    assert list(summary["characteristics"]) == []  # no subset but one of cats has five objects
    assert list(cat["characteristics"]) == ["truncation", "area", "aspect ratio"]
    assert cat["characteristics"]["area"]["extra-small"]["positives"] == 1
    assert summary["groups"] == {"all classes": ["cat", "dog", "car"], "cat, dog": ["cat", "dog"]}


def test_parts_change_nothing(run_stage: Any, inputs: dict[str, Any]) -> None:
    one, other = run_stage(STAGE, ALIKE, inputs, "one"), run_stage(STAGE, ALIKE, inputs, "other", part_size=1)
    for (_, first), (_, second) in zip(one.records(), other.records(), strict=True):
        assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    assert one.manifest["summary"] == other.manifest["summary"]


def test_settings_count(run_stage: Any, inputs: dict[str, Any]) -> None:
    default = run_stage(STAGE, Settings(), inputs, "default").manifest["summary"]
    assert default["classes"]["cat"]["false_positives"]["Sim"] == 1  # cats and dogs are animals of VOC
    unlike = run_stage(STAGE, Settings(similar=()), inputs, "unlike").manifest["summary"]
    assert unlike["classes"]["cat"]["false_positives"] == {"Loc": 0, "Sim": 0, "Oth": 2, "BG": 0}
    fixed = run_stage(STAGE, Settings(objects_per_image=2.0), inputs, "fixed").manifest["summary"]
    assert fixed["normal"] == 14
    assert fixed["ap_n"] > default["ap_n"]
    strict = run_stage(STAGE, Settings(iou=1.0, poor_iou=0.9), inputs, "strict").manifest["summary"]
    assert strict["classes"]["cat"]["ap"] == default["classes"]["cat"]["ap"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (Settings(similar=(("cat", "dogg"),)), "'dogg', which is not a class of the dataset, did you mean 'dog'?"),
        (Settings(poor_iou=0.5), "poor_iou = 0.5 must be below iou = 0.5; lower it, or raise iou"),
    ],
)
def test_bad_settings_are_one_sentence(run_stage: Any, inputs: dict[str, Any], changed: Settings, says: str) -> None:
    with pytest.raises(StageError, match=r"^diagnose: ") as caught:
        run_stage(STAGE, changed, inputs)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_split_and_other_classes_are_told(
    run_stage: Any, inputs: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    others = {**inputs, "images": dataset_of({"z": [(SQUARE, CAT, False)]})}
    with pytest.raises(StageError, match=r"use the same split for \[diagnose\]"):
        run_stage(STAGE, Settings(), others, "split")
    foreign = dataset_of({"z": []})
    foreign.classes = ("owl",)
    with pytest.raises(StageError, match="no class in common"):
        run_stage(STAGE, Settings(), {**inputs, "images": foreign}, "classes")
    empty: dict[str, Any] = {image: [] for image in inputs["images"].image_ids}
    sideways = {**inputs, "images": dataset_of({**empty, "i0": [(SQUARE, CAT, False)]}, "sideways")}
    with caplog.at_level(logging.WARNING):
        run_stage(STAGE, Settings(), sideways, "poses")
    assert "not among VOC's: sideways" in caplog.text


def test_tables_files_and_pictures(run_stage: Any, inputs: dict[str, Any], tmp_path: Path) -> None:
    summary = run_stage(STAGE, ALIKE, inputs).manifest["summary"]
    table = format_tables("diagnose", summary).splitlines()
    cat = next(line.split() for line in table if line.startswith("cat"))
    assert cat == ["cat", "6", "0.0", "50.0", "50.0", "0.0", "81.9", "+0.0", "+0.0", "+15.7", "+3.8", "+0.0"]
    car = next(line.split() for line in table if line.startswith("car"))
    assert car == ["car", "0", *["-"] * 10]
    written = write_diagnosis(summary, tmp_path / "results")
    assert [path.name for path in written] == ["diagnosis.json", "false-positives.csv", "characteristics.csv"]
    assert json.loads(written[0].read_text()) == summary
    with written[2].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["characteristic"] for row in rows if row["class"] == "cat"} == {
        "",
        "truncation",
        "area",
        "aspect ratio",
    }
    assert next(row for row in rows if row["class"] == "car")["ap_n"] == ""
    for path in draw_diagnosis(summary, tmp_path / "results"):
        assert min(Image.open(path).size) > 100


def test_pictures_of_much_and_of_nothing(run_stage: Any, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    things, rows = {}, {}
    for number in range(30):
        boxes = [((0, 0, 12 + number, 20), CAT, False), ((30, 5, 55, 28 + number), DOG, number % 9 == 0)]
        things[f"i{number}"] = boxes
        rows[f"i{number}"] = [
            (tuple(np.array(one) + generator.uniform(-6, 6, 4) * (0, 0, 1, 1)), float(generator.normal()), label)
            for one, label, _ in boxes
            for _ in range(3)
        ]
    inputs = {"images": dataset_of(things), "detections": detections_cache(tmp_path / "much", rows)}
    summary = run_stage(STAGE, ALIKE, inputs, "noisy").manifest["summary"]
    assert list(summary["characteristics"]) == ["area", "aspect ratio"]
    assert len(summary["trends"]["cat"]) > 1
    assert "sensitivity" in format_tables("diagnose", summary)
    nothing = {"images": dataset_of({"a": []}), "detections": detections_cache(tmp_path / "none", {"a": []})}
    empty = run_stage(STAGE, ALIKE, nothing, "nothing").manifest["summary"]
    assert (empty["ap"], empty["normal"], empty["trends"]["cat"]) == (None, 0, {})
    assert "cat" in format_tables("diagnose", empty)
    for name, one in (("noisy", summary), ("nothing", empty)):
        write_diagnosis(one, tmp_path / "results" / name)
        assert all(path.stat().st_size > 1000 for path in draw_diagnosis(one, tmp_path / "results" / name))
