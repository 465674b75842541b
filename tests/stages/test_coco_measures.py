"""COCO's measures against pycocotools run by hand on the files that are written, and intervals in the eval stage."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from stages.contract.settings import identity_of
from stages.datasets import CocoDataset, Dataset, open_detection
from stages.datasets.voc_writer import WrittenObject, write_annotation
from stages.detections import read_detections
from stages.eval import Settings, stage
from stages.eval.coco import MEASURES, class_measures, write_coco_annotations, write_coco_results
from stages.eval.report import csv_rows, format_difference, format_table, paired_difference
from stages.matching.objects import ClassObjects
from tests.stages.test_eval import CLASSES, dataset_of, detections_cache, evaluate

SIZE = (400, 300)


def scenes(folder: Path, images: int = 25) -> Dataset:
    """VOC annotations of small to large objects of the three classes, a fifth of them difficult; no image files."""
    random = np.random.default_rng(6)
    ids = [f"scene-{number:02d}" for number in range(images)]
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    (folder / "ImageSets/Main/test.txt").write_text("\n".join(ids))
    for image_id in ids:
        things = []
        for _ in range(random.integers(0, 6)):
            width, height = (int(side) for side in np.exp(random.uniform(np.log(10), np.log(250), 2)))
            x, y = int(random.integers(1, SIZE[0] - width)), int(random.integers(1, SIZE[1] - height))
            name, difficult = CLASSES[random.choice(3, p=[0.6, 0.3, 0.1])], bool(random.random() < 0.2)
            things.append(WrittenObject(name, (x, y, x + width, y + height), difficult=difficult))
        write_annotation(folder / "Annotations" / f"{image_id}.xml", (SIZE[1], SIZE[0], 3), things)
    dataset = open_detection(f"voc:{folder}:test", work=folder / "work", options={"classes": list(CLASSES)})
    assert isinstance(dataset, Dataset)
    return dataset


def found_in(dataset: Dataset, seed: int) -> dict[str, list[tuple[tuple[float, ...], float, int]]]:
    """Detections near two of three objects and some anywhere, some of them with equal scores."""
    random = np.random.default_rng(seed)
    rows: dict[str, list[tuple[tuple[float, ...], float, int]]] = {}
    for image_id in dataset.image_ids:
        record = dataset.record(image_id)
        rows[image_id] = []
        for box, label in zip(record.boxes, record.labels, strict=True):
            for _ in range(random.integers(0, 9)):
                moved = box + random.normal(0, 0.08 * (box[2] - box[0]), 4)
                moved = np.array([*np.minimum(moved[:2], moved[2:] - 1), *moved[2:]])
                rows[image_id].append((tuple(moved), round(random.random(), 1 + random.integers(0, 7)), int(label)))
        for _ in range(random.integers(0, 4)):
            x, y = random.uniform(0, 200, 2)
            side = random.uniform(5, 100)
            rows[image_id].append(((x, y, x + side, y + side), 0.7 * random.random(), int(random.integers(0, 3))))
    return rows


def by_hand(truth: Path, results: Path) -> dict[str, float]:
    """What pycocotools says of two files."""
    with_truth = COCO(str(truth))
    evaluation = COCOeval(with_truth, with_truth.loadRes(str(results)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return dict(zip(MEASURES, evaluation.stats.tolist(), strict=True))


def test_a_voc_set_measured_by_the_stage_is_what_pycocotools_says_of_the_files(tmp_path: Path) -> None:
    dataset = scenes(tmp_path / "VOC")
    inputs = {"images": dataset, "detections": detections_cache(tmp_path / "detections", found_in(dataset, 1))}
    summary = evaluate(tmp_path / "eval", inputs, Settings(coco=True), part_size=2).manifest["summary"]
    write_coco_annotations(dataset, tmp_path / "truth.json")
    write_coco_results(dataset, read_detections(inputs["detections"]), tmp_path / "results.json")
    expected = by_hand(tmp_path / "truth.json", tmp_path / "results.json")
    assert len({round(value, 6) for value in expected.values()}) == 12  # each one is another number
    assert 0.1 < expected["AP"] < expected["AP50"] < 1
    assert summary["coco"] == pytest.approx(expected, abs=1e-9)
    plain = evaluate(tmp_path / "plain", inputs).manifest["summary"]
    assert {name: value for name, value in summary.items() if name not in ("coco", "classes")} == {
        name: value for name, value in plain.items() if name != "classes"
    }


def test_a_coco_set_keeps_its_ids_and_its_stated_areas(tmp_path: Path) -> None:
    voc = scenes(tmp_path / "VOC")
    write_coco_annotations(voc, tmp_path / "truth.json")
    stated = json.loads((tmp_path / "truth.json").read_text())
    for number, entry in enumerate(stated["images"]):
        entry["id"] = 1000 - 7 * number
    for entry in stated["annotations"]:
        entry["image_id"] = 1000 - 7 * (entry["image_id"] - 1)
        entry["category_id"] = {1: 90, 2: 3, 3: 17}[entry["category_id"]]
        entry["area"] *= 0.6  # as of a segmentation
    for entry in stated["categories"]:
        entry["id"] = {1: 90, 2: 3, 3: 17}[entry["id"]]
    (tmp_path / "truth.json").write_text(json.dumps(stated))
    (tmp_path / "images").mkdir()
    dataset = open_detection(f"coco:{tmp_path}/truth.json:{tmp_path}/images", work=tmp_path / "work")
    assert isinstance(dataset, CocoDataset)
    cache = detections_cache(tmp_path / "detections", found_in(dataset, 2), classes=dataset.classes)
    inputs = {"images": dataset, "detections": cache}
    summary = evaluate(tmp_path / "eval", inputs, Settings(coco=True)).manifest["summary"]
    write_coco_results(dataset, read_detections(cache), tmp_path / "results.json")
    results = json.loads((tmp_path / "results.json").read_text())
    assert {row["category_id"] for row in results} == {90, 3, 17}
    assert set(results[0]) == {"image_id", "category_id", "bbox", "score"}
    assert summary["coco"] == pytest.approx(by_hand(tmp_path / "truth.json", tmp_path / "results.json"), abs=1e-9)


def test_one_object_by_hand() -> None:
    """A detection with an IoU of 0.72 counts at 0.5 ... 0.7: five of ten thresholds."""
    detections = stage.ClassDetections(np.zeros(1, np.int64), np.array([[0, 0, 20, 72]], np.float32), np.ones(1, "f4"))
    objects = ClassObjects(np.zeros(1, np.int64), np.array([[0, 0, 20, 100]], np.float32), np.zeros(1, bool))
    found = dict(zip(MEASURES, class_measures(detections, objects), strict=True))
    assert [found[name] for name in ("AP", "APm", "AR1", "AR10", "AR100", "ARm")] == pytest.approx([0.5] * 6)
    assert (found["AP50"], found["AP75"]) == (pytest.approx(1), 0)
    assert np.isnan([found["APs"], found["APl"], found["ARs"], found["ARl"]]).all()


def test_difficult_objects_are_crowds_to_pycocotools() -> None:
    """Two detections inside a difficult object are ignored; alone, it leaves nothing to find."""
    boxes = np.array([[0, 0, 100, 100], [200, 0, 250, 50]], np.float32)
    objects = ClassObjects(np.zeros(2, np.int64), boxes, np.array([True, False]))
    inside = np.array([[5, 5, 20, 20], [30, 30, 90, 90], [200, 0, 250, 50]], np.float32)
    detections = stage.ClassDetections(np.zeros(3, np.int64), inside, np.array([0.9, 0.8, 0.1], np.float32))
    assert class_measures(detections, objects)[0] == pytest.approx(1)
    alone = ClassObjects(objects.images[:1], boxes[:1], objects.difficult[:1])
    assert np.isnan(class_measures(detections, alone)).all()
    nothing = ClassObjects(objects.images[:0], boxes[:0], objects.difficult[:0])
    unknown: Any = SimpleNamespace(of_class={}.__getitem__)
    assert np.isnan(class_measures(stage.detections_of(unknown, "x"), nothing)).all()


def test_no_detection_at_all(tmp_path: Path) -> None:
    dataset = scenes(tmp_path / "VOC", 3)
    cache = detections_cache(tmp_path / "detections", {image_id: [] for image_id in dataset.image_ids})
    write_coco_results(dataset, read_detections(cache), tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text()) == []
    summary = evaluate(tmp_path / "eval", {"images": dataset, "detections": cache}, Settings(coco=True))
    assert summary.manifest["summary"]["coco"]["AP"] == 0


def test_what_is_not_asked_for_changes_no_key() -> None:
    assert identity_of(Settings()) == {"iou": 0.5, "metric": "voc07", "use_difficult": False}
    assert identity_of(Settings(coco=True, bootstrap=9))["bootstrap"] == 9


# Intervals


@pytest.fixture
def toy() -> Any:
    """Thirty images with a cat each, a third with a dog."""
    cat, dog = (0, 0, 10, 10), (20, 20, 30, 30)
    things: dict[str, list[tuple[tuple[int, ...], int, bool]]] = {}
    for number in range(30):
        things[f"{number:02d}"] = [(cat, 0, False), *([(dog, 1, False)] if number % 3 == 0 else [])]
    return dataset_of(things)


def detections_with(folder: Path, toy: Any, missed: int) -> Any:
    """A cache that misses every `missed`-th cat and has a false dog in some images."""
    rows: dict[str, list[tuple[tuple[float, ...], float, int]]] = {}
    for number, image_id in enumerate(toy.image_ids):
        rows[image_id] = [(box, 0.9 - number / 100, label) for box, label, _ in as_things(toy, image_id)]
        if number % missed == 0:
            rows[image_id] = rows[image_id][1:]
        if number % 4 == 0:
            rows[image_id].append(((0, 20, 9, 30), 0.8, 1))
    return detections_cache(folder, rows)


def as_things(toy: Any, image_id: str) -> list[tuple[tuple[float, ...], int, bool]]:
    record = toy.record(image_id)
    return [(tuple(box.tolist()), int(label), False) for box, label in zip(record.boxes, record.labels, strict=True)]


def test_intervals_in_summary_table_and_csv(tmp_path: Path, toy: Any) -> None:
    settings = Settings(bootstrap=400, coco=False, metric="area")
    one = {"images": toy, "detections": detections_with(tmp_path / "one", toy, 3)}
    other = {"images": toy, "detections": detections_with(tmp_path / "other", toy, 5)}
    first = evaluate(tmp_path / "first", one, settings, part_size=1)
    second = evaluate(tmp_path / "second", other, settings)
    summary = first.manifest["summary"]
    low, high = summary["bootstrap"]["map"]
    assert low < summary["map"] < high
    assert summary["bootstrap"]["map"] == summary["bootstrap"]["map_area"]
    assert summary["classes"]["owl"]["interval"] is None
    line = next(line for line in format_table({"one": summary}).splitlines() if line.startswith("mAP, area"))
    assert line.endswith(f"{100 * summary['map']:.1f} [{100 * low:.1f}, {100 * high:.1f}]")
    rows = csv_rows(summary)
    assert rows[0][-2:] == ["low", "high"]
    assert rows[-1][-2:] == [low, high]
    assert rows[3][-2:] == [None, None]

    found = paired_difference(first, second)
    assert found is not None
    assert found["difference"] == pytest.approx(second.manifest["summary"]["map"] - summary["map"])
    assert found["interval"][0] < found["difference"] < found["interval"][1]
    low, high = (f"{100 * value:+.1f}" for value in found["interval"])
    assert format_difference("one", "other", found, summary["bootstrap"]) == (
        f"mAP (area), other minus one: {100 * found['difference']:+.1f} [{low}, {high}] "
        "(95 % of 400 paired resamples of the images)"
    )
    same = paired_difference(first, first)
    assert same is not None
    assert (same["difference"], same["interval"]) == (0, (0, 0))


def test_only_what_was_resampled_alike_is_paired(tmp_path: Path, toy: Any) -> None:
    inputs = {"images": toy, "detections": detections_with(tmp_path / "one", toy, 3)}
    kinds = [Settings(), Settings(bootstrap=50), Settings(bootstrap=50, bootstrap_seed=1), Settings(bootstrap=60)]
    kinds.append(Settings(bootstrap=50, metric="area"))
    plain, first, *others = (evaluate(tmp_path / f"eval{number}", inputs, kind) for number, kind in enumerate(kinds))
    assert paired_difference(plain, plain) is None
    for other in (plain, *others):
        assert paired_difference(first, other) is None


def test_coco_rows_in_table_and_csv(tmp_path: Path) -> None:
    dataset = scenes(tmp_path / "VOC", 6)
    inputs = {"images": dataset, "detections": detections_cache(tmp_path / "detections", found_in(dataset, 3))}
    plain = evaluate(tmp_path / "plain", inputs).manifest["summary"]
    summary = evaluate(tmp_path / "eval", inputs, Settings(coco=True)).manifest["summary"]
    lines = format_table({"plain": plain, "coco": summary}).splitlines()
    row = next(line for line in lines if line.startswith("COCO AP @ .5:.95"))
    assert row.split()[-2:] == ["-", f"{100 * summary['coco']['AP']:.1f}"]
    path = tmp_path / "table.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(csv_rows(summary))
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert float(rows[-1]["AP75"]) == pytest.approx(summary["coco"]["AP75"])
    assert float(rows[0]["AP"]) == pytest.approx(summary["classes"]["cat"]["coco"]["AP"])
