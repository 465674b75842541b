"""train-svm as a whole: against a literal loop, in shards, killed and resumed, with classes that have no example."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from cache import Reader, Shard
from stages.contract.errors import BadSetting, StageError
from stages.contract.execution import Execution
from stages.contract.processes import processes
from stages.features.linear_models import NEVER_DETECTED, read_svms
from stages.train_svm import STAGE, Settings
from stages.train_svm.mining import ClassMiner
from stages.train_svm.pool import FeaturePool, keys_of
from stages.train_svm.positives import read_positives
from stages.train_svm.stage import Mining, Trainings

CLASSES = ("cat", "dog", "owl", "yak", "ant")
BRISK = Settings(retrain_after=25, C=0.01)
"""Several rounds of training on a few images."""


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height)


def overlap(record: dict[str, np.ndarray], row: int, label: int, without: Collection[int] = ()) -> float:
    boxes = record["boxes"].astype(float)
    objects = [one for one in np.flatnonzero(record["label"] == label) if one not in without]
    return max((iou(boxes[row], boxes[one]) for one in objects), default=0.0)


def literal_training(
    records: list[dict[str, np.ndarray]],
    label: int,
    settings: Settings,
    unused: Sequence[set[int]] = (),
    mined: Sequence[int] | None = None,
) -> dict[str, Any]:
    """The release's schedule for one class, one region at a time, everything in memory; `unused` rows of each image.
    Negatives come from the images `mined`, all by default."""
    mined = range(len(records)) if mined is None else mined
    unused = unused or [set()] * len(records)
    norms = [np.linalg.norm(row) for one in records for row in one["fc7"].astype(np.float64)]
    scale = np.float32(20 / np.mean(norms))
    rows = [one["fc7"].astype(np.float32) * scale for one in records]
    positives = [
        rows[i][r]
        for i, one in enumerate(records)
        for r, which in enumerate(one["label"])
        if r not in unused[i]
        if which == label
        or (settings.positive_overlap < 1 and overlap(one, r, label, unused[i]) >= settings.positive_overlap)
    ]
    negatives: dict[tuple[int, int], np.ndarray] = {}
    weights, bias, added, counts = np.zeros(rows[0].shape[1]), 0.0, 0, []
    for i in mined:
        one = records[i]
        for r in range(len(one["boxes"])):
            if r in unused[i] or overlap(one, r, label) >= settings.negative_overlap:
                continue
            if i == mined[0] or float(rows[i][r] @ weights + bias) > -1.0001:
                assert (i, r) not in negatives
                negatives[i, r] = rows[i][r]
                added += 1
        if negatives and (i in (mined[0], mined[-1]) or added > settings.retrain_after):
            model = LinearSVC(
                C=settings.C, loss="hinge", intercept_scaling=10, class_weight={1: 2, -1: 1}, tol=1e-4, random_state=0
            )
            model.fit(
                np.array(positives + list(negatives.values()), np.float64), [1] * len(positives) + [-1] * len(negatives)
            )
            weights, bias = model.coef_[0], model.intercept_[0]
            easy = [key for key, row in negatives.items() if row.astype(np.float64) @ weights + bias < -1.2]
            counts.append((i, len(positives), len(negatives), added, len(easy)))
            negatives = {key: row for key, row in negatives.items() if key not in easy}
            added = 0
    return {"weights": weights, "bias": bias, "rounds": counts, "scale": scale}


def contents(reader: Reader) -> list[dict[str, bytes]]:
    return [{name: column.tobytes() for name, column in record.items()} for _, record in reader.records()]


@pytest.fixture
def trained(run_stage: Any, feature_cache: Any, with_classes: Any, scene: Any) -> Any:
    """trained(name, ...): the SVMs of one generated data set, trained again under another name."""
    features = feature_cache(scene(24, len(CLASSES)))
    return lambda name="output", settings=BRISK, **how: run_stage(
        STAGE, settings, with_classes(features, CLASSES), name, **{"part_size": 2, **how}
    )


def assert_as_literally(reader: Reader, name: str, expected: dict[str, Any]) -> None:
    """The class's SVM and the log of its rounds are those of `literal_training`."""
    found = reader.read(name)
    columns = [found[f"log/{column}"] for column in ("image", "positives", "negatives", "added", "evicted")]
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == expected["rounds"]
    np.testing.assert_allclose(found["weights"], expected["weights"], rtol=1e-6, atol=1e-9)
    assert found["bias"] == pytest.approx(expected["bias"], rel=1e-6)
    assert found["scale"] == pytest.approx(float(expected["scale"]))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("settings", [BRISK, replace(BRISK, positive_overlap=0.5, negative_overlap=0.5)])
def test_the_schedule_is_the_literal_one(
    settings: Settings, run_stage: Any, feature_cache: Any, with_classes: Any, scene: Any
) -> None:
    records = scene(24, len(CLASSES))
    reader = run_stage(STAGE, settings, with_classes(feature_cache(records), CLASSES))
    rounds = 0
    for label, name in enumerate(CLASSES):
        expected = literal_training(records, label, settings)
        assert_as_literally(reader, name, expected)
        rounds += len(expected["rounds"])
    assert rounds > 4 * len(CLASSES)
    assert any(reader.read(name)["log/evicted"].sum() for name in CLASSES)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("positive_overlap", [1.0, 0.5])
def test_crowds_and_difficult_objects_to_be_ignored_are_examples_of_nothing(
    positive_overlap: float, run_stage: Any, feature_cache: Any, with_classes: Any, scene: Any
) -> None:
    """Of every second image's objects the first is a crowd, in which proposals lie; the last one is difficult."""
    records = scene(16, 2)
    crowds, unused = {}, []
    for number, one in enumerate(records):
        objects = int(one["is_object"].sum())
        flags = np.arange(objects) < number % 2
        one["difficult"][:objects] = flags | (np.arange(objects) == objects - 1)
        inside = {
            row
            for row in range(objects, len(one["boxes"]))
            if flags.any() and share(one["boxes"][row], one["boxes"][0]) > 0.7
        }
        crowds[f"im{number:03}"] = SimpleNamespace(crowds=flags)
        unused.append({*np.flatnonzero(one["difficult"]).tolist(), *inside})
    assert sum(len(rows) for rows in unused) > 40
    settings = replace(BRISK, difficult="ignore", positive_overlap=positive_overlap)
    inputs = with_classes(feature_cache(records), CLASSES[:2])
    inputs["images"].images_with_crowds = frozenset(crowds)
    inputs["images"].record = crowds.__getitem__
    reader = run_stage(STAGE, settings, inputs)
    for label, name in enumerate(CLASSES[:2]):
        assert_as_literally(reader, name, literal_training(records, label, settings, unused))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("mining_images", [0, 7])
def test_images_that_are_not_exhaustive_give_positives_and_no_negatives(
    mining_images: int, run_stage: Any, feature_cache: Any, with_classes: Any, scene: Any, tmp_path: Path
) -> None:
    """The first, the last and every third image are not; the others are mined, or 7 of them drawn at random."""
    records = scene(24, 2)
    partly = {0, 23, *range(2, 24, 3)}
    inputs = with_classes(feature_cache(records), CLASSES[:2])
    inputs["images"].images_not_exhaustive = frozenset(f"im{number:03}" for number in partly)
    mined = [number for number in range(24) if number not in partly]
    settings = replace(BRISK, mining_images=mining_images)
    if mining_images:
        mined = sorted(np.random.default_rng(settings.mining_seed).choice(mined, mining_images, replace=False).tolist())
    reader = run_stage(STAGE, settings, inputs)
    for label, name in enumerate(CLASSES[:2]):
        expected = literal_training(records, label, settings, mined=mined)
        assert_as_literally(reader, name, expected)
        assert reader.read(name)["positives"] == sum(int((one["label"] == label).sum()) for one in records)
    assert run_in_shards(run_stage, settings, inputs) == contents(reader)


def run_in_shards(run_stage: Any, settings: Settings, inputs: Any) -> list[dict[str, bytes]]:
    """The classes trained in two shards, with a checkpoint after every image."""
    often = replace(settings, checkpoint_seconds=0.0)
    shards = [Shard(index, 2) for index in (2, 1)]
    return contents(run_stage(STAGE, often, inputs, "sharded", shards=shards, part_size=1))


def test_without_an_exhaustive_image_there_is_nothing_to_mine(
    run_stage: Any, feature_cache: Any, with_classes: Any, scene: Any
) -> None:
    inputs = with_classes(feature_cache(scene(3, 2)), CLASSES[:2])
    inputs["images"].images_not_exhaustive = frozenset(inputs["images"].image_ids)
    with pytest.raises(StageError, match="train-svm: none of the 3 images of images is annotated exhaustively"):
        run_stage(STAGE, BRISK, inputs)


def test_a_mining_seed_alone_is_refused() -> None:
    with pytest.raises(BadSetting, match="mining_seed = 4 chooses mining_images, and negatives are mined in all"):
        Settings(mining_seed=4)
    assert Settings(mining_seed=4, mining_images=5).mining_seed == 4


def share(box: np.ndarray, region: np.ndarray) -> float:
    """How much of a box's own area lies in a region."""
    width, height = (min(box[two], region[two]) - max(box[one], region[one]) for one, two in ((0, 2), (1, 3)))
    return max(width, 0) * max(height, 0) / ((box[2] - box[0]) * (box[3] - box[1]))


def test_features_of_other_images_than_the_datasets_are_refused(
    run_stage: Any, feature_cache: Any, with_classes: Any, scene: Any
) -> None:
    inputs = with_classes(feature_cache(scene(3, 2)), CLASSES[:2])
    inputs["images"].image_ids = ("im000", "im001")
    with pytest.raises(StageError, match="the features cover 3 images, which are not the 2 of images"):
        run_stage(STAGE, BRISK, inputs)


def test_the_svms_find_their_classes(trained: Any, scene: Any) -> None:
    svms = read_svms(trained())
    assert svms.classes == CLASSES
    assert svms.layer == "fc7"
    hits = [
        int(svms.score(one["fc7"][row : row + 1]).argmax()) == label
        for one in scene(24, len(CLASSES))
        for row, label in enumerate(one["label"])
        if label >= 0
    ]
    assert np.mean(hits) > 0.7


def test_scores_fold_the_scale_into_the_weights(trained: Any) -> None:
    reader = trained()
    svms, rows = read_svms(reader), np.random.default_rng(0).random((7, 12)).astype(np.float16)
    scores = svms.score(rows)
    assert scores.dtype == np.float32
    assert scores.shape == (7, 5)
    for column, name in enumerate(CLASSES):
        one = reader.read(name)
        expected = (rows.astype(np.float64) * one["scale"]) @ one["weights"] + one["bias"]
        np.testing.assert_allclose(scores[:, column], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("count", "part_size"), [(2, 1), (5, 1), (2, 2)])
def test_shards_train_the_same_bits(trained: Any, count: int, part_size: int) -> None:
    whole = contents(trained("whole"))
    shards = [Shard(index, count) for index in range(count, 0, -1)]
    assert contents(trained("shards", part_size=part_size, shards=shards)) == whole


def test_jobs_and_passes_train_the_same_bits(trained: Any) -> None:
    whole = contents(trained("whole"))
    assert contents(trained("jobs", execution=Execution(jobs=2))) == whole
    assert contents(trained("passes", replace(BRISK, memory=0.002))) == whole


class Killed(Exception):
    pass


def killed_after(images: int) -> Execution:
    class Bar:
        seen = 0

        def advance(self, items: int = 1, rows: int = 0) -> None:
            self.seen += items
            if self.seen == images:
                raise Killed

    @contextlib.contextmanager
    def progress(label: str, total: int, unit: str, done: int = 0) -> Iterator[Bar]:
        yield Bar()

    return Execution(progress=progress)


def test_a_killed_training_goes_on_to_the_same_bits(trained: Any) -> None:
    whole = contents(trained("whole"))
    for images, seconds in ((1, 0.0), (9, 0.0), (23, 0.0), (5, 1000.0)):
        name, settings = f"killed-{images}", replace(BRISK, checkpoint_seconds=seconds)
        with pytest.raises(Killed):
            trained(name, settings, execution=killed_after(images))
        assert contents(trained(name, settings)) == whole


def test_examples_that_cannot_be_read_end_a_training_with_workers(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, calls = FeaturePool.read, []

    def failing(self: FeaturePool, keys: Any) -> Any:
        calls.append(keys)
        if len(calls) > 2:  # the first tasks are asked for by the stage itself, later ones by a thread of joblib's
            raise OSError("the disk is gone")
        return read(self, keys)

    monkeypatch.setattr(FeaturePool, "read", failing)
    with pytest.raises(OSError, match="the disk is gone"):
        trained("unreadable", part_size=5, execution=Execution(jobs=2))


def test_parts_killed_at_different_images_share_one_pass(trained: Any) -> None:
    whole = contents(trained("whole"))
    for shard, images in ((Shard(1, 3), 17), (Shard(2, 3), 4)):
        with pytest.raises(Killed):
            trained("several", replace(BRISK, checkpoint_seconds=0), shards=[shard], execution=killed_after(images))
    seen: list[int] = []

    @contextlib.contextmanager
    def progress(label: str, total: int, unit: str, done: int = 0) -> Iterator[Any]:
        class Bar:
            def advance(self, items: int = 1, rows: int = 0) -> None:
                seen.append(rows)

        yield Bar()

    assert contents(trained("several", execution=Execution(progress=progress))) == whole
    assert len(seen) == 24


def test_one_row_is_kept_once_however_often_it_is_met(
    feature_cache: Any, scene: Any, with_classes: Any, tmp_path: Path
) -> None:
    features = feature_cache(scene(6, 2))
    images = with_classes(features, CLASSES)["images"]
    positives = read_positives(features, images, 1.0, "train")
    miners = [ClassMiner(CLASSES[k], k, keys_of(*positives.of_class(k)), np.zeros(12)) for k in range(2)]
    with FeaturePool(tmp_path, 12, "float16") as pool, processes("train-svm", 1) as workers:
        mining = Mining(BRISK, features, images, 3.0, miners, pool, workers, Trainings())
        for _ in mining.images():
            held = np.concatenate([keys for one in miners for keys in (one.positives, one.negatives)])
            assert len(pool) == len(set(held.tolist()))
        assert sum(entry["evicted"] for one in miners for entry in one.log) > 0
        before = [one.negatives for one in miners]
        for one in miners:
            one.weights, one.bias = np.zeros(12), 0.0
            mining.scorer.update(one)
        for _ in range(2):
            mining.add_negatives(5, features.read("im005"), miners)
        for one, negatives in zip(miners, before, strict=True):
            assert len(one.negatives) > len(negatives)
            assert len(set(one.negatives.tolist())) == len(one.negatives) == len(negatives) + one.added


def test_settings_that_make_a_region_positive_and_negative_are_refused(trained: Any) -> None:
    with pytest.raises(BadSetting, match=r"positive_overlap = 0.2 is less than negative_overlap = 0.3; a "):
        trained(settings=Settings(positive_overlap=0.2))


def test_difficult_objects_are_positives(
    run_stage: Any, feature_cache: Any, with_classes: Any, region_image: Any
) -> None:
    boxes = [[0, 0, 10, 10], [50, 50, 60, 60], [80, 80, 90, 90]]
    record = region_image(boxes, [0, 1], np.eye(3), difficult=[True, False])
    reader = run_stage(STAGE, Settings(), with_classes(feature_cache([record]), ["cat", "dog"]))
    assert reader.read("cat")["positives"] == 1
    np.testing.assert_array_equal(reader.read("cat")["log/negatives"], [2])  # the dog is one
    np.testing.assert_array_equal(reader.read("cat")["log/image"], [0])  # first and last image: one round


def test_a_class_without_objects_is_never_detected(
    run_stage: Any, feature_cache: Any, with_classes: Any, scene: Any, caplog: pytest.LogCaptureFixture
) -> None:
    features = feature_cache(scene(8, 2))
    with caplog.at_level(logging.WARNING, "stages.train_svm"):
        reader = run_stage(STAGE, BRISK, with_classes(features, ["cat", "dog", "unicorn"]))
    assert "class 'unicorn' has no object" in caplog.text
    svms = read_svms(reader)
    np.testing.assert_array_equal(svms.trained, [True, True, False])
    scores = svms.score(features.read("im000")["fc7"])
    np.testing.assert_array_equal(scores[:, 2], NEVER_DETECTED)
    assert (scores[:, :2] > NEVER_DETECTED).all()
    assert reader.manifest["summary"]["classes"]["unicorn"] == {
        "positives": 0,
        "negatives": 0,
        "rounds": 0,
        "objective": None,
    }


def test_a_class_that_meets_no_negative_is_never_detected(
    run_stage: Any, feature_cache: Any, with_classes: Any, region_image: Any, caplog: pytest.LogCaptureFixture
) -> None:
    record = region_image([[0, 0, 10, 10], [0, 0, 9, 10]], [0], np.eye(2))
    with caplog.at_level(logging.WARNING, "stages.train_svm"):
        svms = read_svms(run_stage(STAGE, BRISK, with_classes(feature_cache([record]), ["cat"])))
    assert not svms.trained.any()
    assert "has no negative regions" in caplog.text


def test_the_bound_on_negatives_holds_after_each_round(trained: Any) -> None:
    bound = 15
    reader = trained("bounded", replace(BRISK, max_negatives=bound))
    for name in CLASSES:
        record = reader.read(name)
        kept = record["log/negatives"] - record["log/evicted"]
        assert kept.max() <= bound
        assert record["negatives"] == kept[-1]


def test_liblinear_running_out_of_iterations_is_told_once_with_the_gap_that_is_left(
    trained: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "stages.train_svm"):
        reader = trained("hasty", replace(BRISK, max_iterations=1))
    rounds = sum(len(reader.read(name)["log/converged"]) for name in CLASSES)
    assert not any(reader.read(name)["log/converged"].any() for name in CLASSES)
    assert rounds > 3
    (told,) = [one.getMessage() for one in caplog.records if "iterations" in one.getMessage()]
    found = re.fullmatch(
        r"(\d+) of (\d+) SVM trainings stopped at max_iterations = 1 before reaching tolerance 0\.0001; "
        r"their objective could fall by at most ([\d.]+) % more \(class '\w+'\); "
        r"raise max_iterations to 10 to let them converge",
        told,
    )
    assert found is not None, told
    assert int(found[1]) == int(found[2]) == rounds
    assert 0 < float(found[3]) <= 100
    caplog.clear()
    trained("patient", replace(BRISK, max_iterations=100_000))
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]
