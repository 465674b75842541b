"""segment and eval-segmentation as stages: regions pasted, the threshold of a calibration, confusion per image."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from cache import Column, Identity, Reader, Schema, Writer
from stages.contract.errors import BadSetting, StageError
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.datasets import Dataset
from stages.eval_segmentation import STAGE as EVALUATE
from stages.eval_segmentation import Settings as EvaluationSettings
from stages.eval_segmentation.confusion import class_accuracy
from stages.segment import STAGE as SEGMENT
from stages.segment import Settings, check
from stages.segment.stage import on_demand
from stages.train_bbox import STAGE as TRAIN_BBOX
from stages.train_svm import STAGE as TRAIN_SVM
from stages.train_svr import STAGE as TRAIN
from stages.train_svr import Settings as TrainingSettings
from tests.stages.region_caches import disc, region_cache

SIZE = (40, 30)
CLASSES = ("left", "right")
IMAGES = ("a", "b", "c")
VOID = 255
MASKED = SimpleNamespace(keeps_masks=True)


def squares() -> list[np.ndarray]:
    """Three regions of 10 x 10 pixels: the left, the right and one that shares 6 columns with the left."""
    masks = np.zeros((3, SIZE[1], SIZE[0]), bool)
    for mask, x in zip(masks, (2, 25, 6), strict=True):
        mask[10:20, x : x + 10] = True
    return list(masks)


class Squares(Dataset):
    """In each image the left square is of class 0 and the right of class 1; the first row is void."""

    name, classes, image_ids = "squares", CLASSES, IMAGES
    images_with_crowds = images_not_exhaustive = frozenset()

    def __init__(self) -> None:
        pass

    def object_masks(self, image_id: str) -> tuple[np.ndarray, np.ndarray]:
        return np.array([0, 1], np.int32), np.stack(squares()[:2])

    def class_mask(self, image_id: str) -> np.ndarray:
        left, right, _ = squares()
        mask = (left + 2 * right).astype(np.uint8)
        mask[0] = VOID
        return mask


def features_cache(folder, *, objects: bool = False) -> Reader:
    """Features that are the scores: of the left square (0.9, 0), of the right (0, 0.8), of the third (0.5, 0)."""
    schema = Schema(
        "image",
        {
            "boxes": Column("float32", (4,)),
            "is_object": Column("bool"),
            "label": Column("int32"),
            "fc6": Column("float32", (2,)),
        },
    )
    values = np.array([[0.9, 0], [0, 0.8], [0.5, 0]], np.float32)
    boxes = region_cache(folder / "boxes", {"a": squares()}, SIZE).read("a")["boxes"]
    first = 2 if objects else 0
    writer = Writer(folder / "features", Identity("extract", 1), IMAGES, schema)
    for part in writer.claim():
        record = {
            "boxes": np.concatenate([boxes[:first], boxes]),
            "is_object": np.arange(first + 3) < first,
            "label": np.array([0, 1][:first] + [-1] * 3, np.int32),
            "fc6": np.concatenate([values[:first], values]),
        }
        writer.write(part, [record] * len(part.item_ids))
    writer.finish({})
    writer.release()
    return Reader(folder / "features")


def svr_cache(folder) -> Reader:
    """Regressions that give the features as scores."""
    schema = Schema(
        "class", per_item={"weights": Column("float64", (2,)), "bias": Column("float64"), "scale": Column("float64")}
    )
    writer = Writer(folder, Identity("train-svr", 1, {"layer": "fc6", "folds": 0}), CLASSES, schema)
    for part in writer.claim():
        rows = [np.eye(2)[CLASSES.index(name)] for name in part.item_ids]
        writer.write(part, [{"weights": row, "bias": np.array(0.0), "scale": np.array(1.0)} for row in rows])
    writer.finish({"settings": {"layer": "fc6", "folds": 0}})
    writer.release()
    return Reader(folder)


@pytest.fixture
def inputs(tmp_path) -> dict:
    return {
        "proposals": region_cache(tmp_path / "p", {name: squares() for name in IMAGES}, SIZE),
        "features": features_cache(tmp_path / "f", objects=True),
        "svr": svr_cache(tmp_path / "svr"),
    }


def test_the_best_regions_are_pasted(inputs, run_stage):
    """The third, of which six tenths are taken, only where that may be."""
    reader = run_stage(SEGMENT, Settings(), inputs)
    left, right, third = squares()
    for _, record in reader.records():
        assert record["proposal"].tolist() == [0, 1]
        assert record["label"].tolist() == [0, 1]
        np.testing.assert_allclose(record["score"], [0.9, 0.8], rtol=1e-6)
        assert record["pixels"].tolist() == [100, 100]
        assert record["image_size"].tolist() == list(SIZE)
        assert record["objects"] == 2
        np.testing.assert_array_equal(record["map/label"].reshape(30, 40), left + 2 * right)
    cut = run_stage(SEGMENT, Settings(most_taken=0.6), inputs, "cut").read("a")
    assert cut["pixels"].tolist() == [100, 100, 40]
    np.testing.assert_array_equal(cut["map/label"].reshape(30, 40), (left | third) + 2 * right)
    few = run_stage(SEGMENT, Settings(max_segments=1, most_taken=1.0), inputs, "few")
    assert few.read("a")["proposal"].tolist() == [0]
    assert few.manifest["summary"] == {
        "classes": list(CLASSES),
        "threshold": None,
        "segments": 3,
        "objects": 6,
        "images": 3,
    }


def test_on_demand_an_image_is_segmented_as_in_the_cache(inputs, run_stage):
    cached = run_stage(SEGMENT, Settings(), inputs)
    computed = on_demand(Settings(), Inputs(inputs), Execution())
    assert computed.item_ids == cached.item_ids
    for image_id in IMAGES:
        for name, values in computed.read(image_id).items():
            np.testing.assert_array_equal(values, cached.read(image_id)[name])


def test_a_calibration_gives_the_threshold(inputs, run_stage):
    """Six objects in three images, nine segments without a threshold: the sixth best score is 0.8."""
    cut = Settings(most_taken=1.0)
    calibration = run_stage(SEGMENT, cut, inputs, "calibration")
    assert calibration.manifest["summary"]["segments"] == 9
    reader = run_stage(SEGMENT, cut, {**inputs, "calibration": calibration})
    assert reader.manifest["summary"]["threshold"] == pytest.approx(0.8)
    assert reader.lengths().tolist() == [2, 2, 2]


def test_a_calibration_without_objects_is_refused(inputs, run_stage, tmp_path):
    bare = {**inputs, "features": features_cache(tmp_path / "bare")}
    calibration = run_stage(SEGMENT, Settings(), bare, "calibration")
    with pytest.raises(StageError, match=r"have no objects.*set objects = 'masks'"):
        run_stage(SEGMENT, Settings(), {**bare, "calibration": calibration})


def test_too_few_segments_for_a_threshold_paste_everything(inputs, run_stage, caplog):
    settings = Settings(max_segments=1)
    calibration = run_stage(SEGMENT, settings, inputs, "calibration")
    reader = run_stage(SEGMENT, settings, {**inputs, "calibration": calibration})
    assert "3 segments for 6 objects, so no threshold has as many: everything is pasted" in caplog.text
    assert reader.manifest["summary"]["threshold"] is None


def test_bits_do_not_depend_on_processes(inputs, run_stage):
    whole = run_stage(SEGMENT, Settings(), inputs, "one")
    parallel = run_stage(SEGMENT, Settings(), inputs, "two", part_size=1, execution=Execution(jobs=2))
    for image_id, record in whole.records():
        for name, values in parallel.read(image_id).items():
            np.testing.assert_array_equal(values, record[name])


def test_inputs_that_do_not_fit_each_other(inputs, run_stage, tmp_path):
    more = features_cache(tmp_path / "more", objects=True)
    with pytest.raises(StageError, match="trained on 2 features of each region, but here are 4"):
        run_stage(SEGMENT, Settings(), {**inputs, "more": more}, "a")
    others = region_cache(tmp_path / "o", {name: [disc(20, 10, 5, SIZE)] for name in IMAGES}, SIZE)
    with pytest.raises(StageError, match="image 'a': the features are of other regions than the proposals"):
        run_stage(SEGMENT, Settings(), {**inputs, "proposals": others}, "b")
    bare = region_cache(tmp_path / "bare", {name: squares() for name in IMAGES}, SIZE, with_masks=False)
    with pytest.raises(BadSetting, match="pasting needs proposals with masks"):
        run_stage(SEGMENT, Settings(), {**inputs, "proposals": bare}, "c")


@pytest.mark.parametrize(
    ("own", "calibration", "message"),
    [
        ({"threshold": 0.3}, {}, r"threshold = 0\.3, but its inputs name a calibration"),
        ({}, {"threshold": 0.3}, r"its calibration has threshold = 0\.3 itself"),
        ({"most_taken": 1.0}, {}, r"most_taken = 1, but its calibration has 0\.1; use the same in both tables"),
    ],
)
def test_settings_that_do_not_fit_the_calibration(own, calibration, message):
    with pytest.raises(BadSetting, match=message):
        check(Settings(**own), None, {"proposals": MASKED, "calibration": Settings(**calibration)})
    check(Settings(**own), None, {"proposals": MASKED})
    for folds, held_out in ((0, False), (5, True)):
        check(Settings(held_out=held_out), None, {"proposals": MASKED, "svr": TrainingSettings(folds=folds)})
    with pytest.raises(BadSetting, match="held_out = true, but its regressions have no folds"):
        check(Settings(held_out=True), None, {"proposals": MASKED, "svr": TrainingSettings()})
    with pytest.raises(BadSetting, match="pasting needs proposals with masks; set masks = true in their table"):
        check(Settings(), None, {"proposals": SimpleNamespace(keeps_masks=False)})


def test_confusion_of_each_image_and_its_summary(inputs, run_stage):
    """The left square, the right one and nothing else: perfect. With the third pasted, 40 pixels of background are
    lost to class 0."""
    segmentation = run_stage(SEGMENT, Settings(most_taken=1.0), inputs, "cut")
    reader = run_stage(EVALUATE, EvaluationSettings(bootstrap=50), {"masks": Squares(), "segmentation": segmentation})
    background = 40 * 29 - 200
    expected = [[background - 40, 40, 0], [0, 100, 0], [0, 0, 100]]
    for _, record in reader.records():
        assert record["confusion"].tolist() == expected
    summary = reader.manifest["summary"]
    accuracies = [(background - 40) / background, 100 / 140, 1.0]
    assert [of["accuracy"] for of in summary["classes"].values()] == pytest.approx(accuracies)
    assert list(summary["classes"]) == ["background", *CLASSES]
    assert summary["mean_accuracy"] == pytest.approx(np.mean(accuracies))
    assert summary["bootstrap"]["mean_accuracy"] == pytest.approx([np.mean(accuracies)] * 2)
    np.testing.assert_allclose(class_accuracy(3 * np.array(expected)), accuracies)


def test_label_maps_of_other_classes_images_or_sizes_are_refused(inputs, run_stage):
    segmentation = run_stage(SEGMENT, Settings(), inputs, "s")
    for changes, message in (
        ({"classes": ("left", "other")}, "train the regressions on a dataset with the same classes"),
        ({"image_ids": ("a", "b")}, "which are not the 2 of squares"),
        ({"images_not_exhaustive": frozenset("b")}, "which would count as background"),
        ({"class_mask": lambda image_id: np.zeros((5, 6), np.uint8)}, "has 40 x 30 but 6 x 5 pixels"),
    ):
        dataset = Squares()
        vars(dataset).update(changes)
        with pytest.raises(StageError, match=message):
            run_stage(EVALUATE, EvaluationSettings(), {"masks": dataset, "segmentation": segmentation}, str(message))


def test_classes_without_pixels_are_left_out_of_the_mean(inputs, run_stage, caplog):
    dataset = Squares()
    vars(dataset)["class_mask"] = lambda image_id: squares()[0].astype(np.uint8)
    segmentation = run_stage(SEGMENT, Settings(), inputs, "s")
    reader = run_stage(EVALUATE, EvaluationSettings(), {"masks": dataset, "segmentation": segmentation})
    summary = reader.manifest["summary"]
    assert summary["without_pixels"] == ["right"]
    assert summary["mean_accuracy"] == pytest.approx((1 + 1000 / 1100) / 2)
    assert "no pixels in the truth, left out of the mean" in caplog.text


@pytest.mark.parametrize("stage", [TRAIN_SVM, TRAIN_BBOX], ids=lambda stage: stage.name)
def test_detectors_are_not_trained_on_features_without_objects(stage):
    features = SimpleNamespace(method="warp", objects="none", layers=("fc7", "pool5"))
    with pytest.raises(BadSetting, match=r"no objects to train on \(objects = 'none' in their table of extract\)"):
        stage.check(stage.settings(), SimpleNamespace(card=None), {"features": features})


def test_training_refuses_features_of_annotated_boxes():
    card = SimpleNamespace(check_layers=lambda layers: None)
    assert TRAIN.check is not None
    with pytest.raises(BadSetting, match="begin with the annotated boxes, which have no masks; set objects = 'masks'"):
        TRAIN.check(
            TrainingSettings(),
            SimpleNamespace(card=card),
            {"features": SimpleNamespace(objects="boxes", layers=("fc6",)), "proposals": MASKED},
        )
