"""`rcnn compare` and `rcnn explain` on a small run of the real stages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cache import Reader, Record
from rcnn_cli.looking.explanation import choose, explain_image, split_of
from rcnn_cli.looking.explanation_lines import tell_lines
from rcnn_cli.main import main
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.recipes.recipe import load_recipe
from rcnn_cli.running.demand import Demand
from rcnn_cli.running.runner import on_demand
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.datasets import Photos
from stages.detections import read_detections
from tests.built_once import BuiltOnce
from tests.in_process import rcnn
from tests.pipeline import SMALLER, run_small, write_recipe

RECIPE = f"""{SMALLER}
[detect-plain]
stage = "detect"
inputs = {{ regressor = "none" }}
average_per_image = 3

[eval-plain]
stage = "eval"
inputs = {{ detections = "detect-plain" }}

[eval-train]
stage = "eval"
split = "train"
inputs = {{ detections = "detect-plain@train" }}

[detect-merged]
stage = "detect"
suppression = "merge"
merge_scores = "best"
average_per_image = 3

[eval-merged]
stage = "eval"
inputs = {{ detections = "detect-merged" }}
"""
PLAIN = ("--evaluation-b", "eval-plain")


@pytest.fixture(scope="module")
def finished(built_once: BuiltOnce, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(recipe, work folder) of a run with two detectors."""

    def build(folder: Path) -> None:
        built_once.copy("small", run_small, folder)
        rcnn("run", write_recipe(folder, RECIPE), work=folder / "work")

    folder = built_once.copy("two-detectors", build, tmp_path_factory.mktemp("run"))
    return folder / "small.toml", folder / "work"


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, finished: tuple[Path, Path]) -> Any:
    """Calls `rcnn` in this process: (exit code, standard output, standard error)."""
    monkeypatch.setattr("rcnn_cli.running.device.cores", lambda: 1)

    def run(*arguments: object, work: Path = finished[1]) -> tuple[Any, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments), "--work", str(work)])
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return run


@pytest.mark.parametrize("evaluation", ["eval", "eval-plain", "eval-merged"])
def test_every_image_explained_ends_in_the_cached_detections(finished: tuple[Path, Path], evaluation: str) -> None:
    """To the bit, with and without regression, under a cap that cuts; and every object is told of."""
    recipe, work = finished
    graph = Graph(load_recipe(recipe), work)
    chosen = choose(graph, evaluation, None)
    cached = Reader(graph.folder(chosen.detector))
    capped = read_detections(cached)
    reasons = set()
    assert len(capped) < sum(len(record["score"]) for _, record in cached.records(["score"])) or evaluation == "eval"
    for image in cached.item_ids:
        explained = explain_image(chosen, image, split_of(chosen, image, None), Execution())
        record = cached.read(image)
        found = explained.trace.detections
        assert found.boxes.tobytes() == record["boxes"].tobytes()
        assert found.scores.tobytes() == record["score"].tobytes()
        assert found.labels.tobytes() == record["label"].tobytes()
        assert (
            explained.trace.counted(explained.chosen.detector.settings).scores.tobytes()
            == record["candidates/score"].tobytes()
        )
        assert explained.detections.every.scores.tobytes() == capped.of_image(image).scores.tobytes()
        told = tell_lines(explained, None, None)
        assert len(told.objects) == len(explained.objects)
        assert len(told.detections) == len(explained.shown)
        reasons |= {line.values.get("reason", line.verdict) for line in told.objects}
    assert {"found", "low score"} <= reasons


def test_explaining_an_image_prints_and_writes_it(finished: tuple[Path, Path], call: Any, tmp_path: Path) -> None:
    recipe, work = finished
    code, printed, errors = call("explain", recipe, "test_00001", "-o", tmp_path)
    assert code == 0
    assert "CUDA" not in errors  # no network runs: nothing is computed anew but scores
    assert printed.startswith(
        f"test_00001 (test): detect@test of {recipe}; cuts at precision 0.5 of eval\n60 proposals; "
    )
    told = json.loads((tmp_path / "test_00001.json").read_text())
    assert json.loads(call("explain", recipe, "test_00001", "-o", tmp_path, "--json")[1]) == told
    for one in told["objects"]:
        assert f"{one['name']} was {one['verdict']}" in printed
    assert np.asarray(Image.open(tmp_path / "test_00001.png")).std() > 10
    code, printed, _ = call("explain", recipe, "test_00001", "--object", 1)
    assert f"{told['objects'][0]['name']} was" in printed
    assert (work / "results/small/explain/test_00001.png").exists()


def test_a_training_image_has_no_cap_and_this_is_said(finished: tuple[Path, Path], call: Any, tmp_path: Path) -> None:
    code, printed, errors = call("explain", finished[0], "train_00002", "-o", tmp_path)
    assert code == 0
    assert printed.startswith("train_00002 (train): ")
    assert "The recipe does not detect on all of 'train', so the cap over its images is left out." in errors
    assert "warning" not in errors
    assert json.loads((tmp_path / "train_00002.json").read_text())["limits"]["disc"]["cap"] is None


def test_a_photo_is_explained_as_predict_would_detect(finished: tuple[Path, Path], call: Any, tmp_path: Path) -> None:
    recipe, work = finished
    source = next((work / "datasets").glob("shapes-v1-*/JPEGImages/test_00003.jpg"))
    shutil.copy(source, tmp_path / "photo.jpg")
    code, printed, _ = call("explain", recipe, tmp_path / "photo.jpg", "-o", tmp_path / "out")
    assert code == 0
    assert printed.startswith("photo.jpg: detect@test of ")
    told = json.loads((tmp_path / "out/photo.json").read_text())
    assert told["objects"] == []
    assert call("predict", recipe, tmp_path / "photo.jpg", "-o", tmp_path / "out2")[0] == 0
    predicted = json.loads((tmp_path / "out2/photo.json").read_text())["detections"]
    limits = {name: one["cut"] for name, one in told["limits"].items()}
    shown = [
        one for one in predicted if limits[one["class"]] is not None and one["score"] >= limits[one["class"]] - 1e-6
    ]
    classes, scores = zip(*sorted((one["class"], one["score"]) for one in told["detections"]), strict=True)
    assert tuple(sorted(one["class"] for one in shown)) == classes
    assert [score for _, score in sorted((one["class"], one["score"]) for one in shown)] == pytest.approx(
        scores,
        abs=2e-6,  # each is rounded by itself
    )


def test_a_photo_gets_the_detections_of_the_same_image_in_the_dataset(finished: tuple[Path, Path]) -> None:
    """The graph is the same, the photos take the place of the split, whatever they are called. Proposals to the bit;
    features are rounded otherwise, since a batch of the dataset's begins with the annotated objects."""
    recipe, work = finished
    graph = Graph(load_recipe(recipe), work)
    node, dataset, photos = graph.nodes["detect@test"], graph.dataset("test"), Photos()
    proposals = on_demand(graph, graph.nodes["propose@test"], Execution(), photos)
    detector = on_demand(graph, node, Execution(), photos)
    cached, cached_proposals = Reader(graph.folder(node)), Reader(graph.folder(graph.nodes["propose@test"]))
    assert detector.schema == cached.schema
    assert detector.manifest["summary"]["classes"] == cached.manifest["summary"]["classes"]
    for image in cached.item_ids:
        photos.show("photo", dataset.read_image(image))
        assert proposals.read("photo")["boxes"].tobytes() == cached_proposals.read(image)["boxes"].tobytes()
        record, expected = detector.read("photo"), cached.read(image)
        np.testing.assert_array_equal(record["image_size"], expected["image_size"])
        for label in range(len(detector.manifest["summary"]["classes"])):
            found, known = (one["candidates/score"][one["candidates/label"] == label] for one in (record, expected))
            np.testing.assert_allclose(np.sort(found), np.sort(known), rtol=0, atol=0.01)
            best, expected_best = (best_box(values, label) for values in (record, expected))
            np.testing.assert_allclose(best, expected_best, rtol=0, atol=1)  # pixels


def best_box(record: Record, label: int) -> NDArray[np.float32]:
    """The box of a class's best detection: [1, 4], or [0, 4] where there is none."""
    rows = np.flatnonzero(record["label"] == label)
    best: NDArray[np.float32] = record["boxes"][rows[np.argsort(-record["score"][rows], kind="stable")[:1]]]
    return best


def test_detections_on_demand_are_those_of_the_cache(finished: tuple[Path, Path]) -> None:
    recipe, work = finished
    graph = Graph(load_recipe(recipe), work)
    node = graph.nodes["detect-plain@test"]
    detector, cached = on_demand(graph, node, Execution()), Reader(graph.folder(node))
    assert detector.item_ids == cached.item_ids
    for image in reversed(cached.item_ids):
        record, expected = detector.read(image), cached.read(image)
        assert {name: values.tobytes() for name, values in record.items()} == {
            name: values.tobytes() for name, values in expected.items()
        }


def test_features_on_demand_tell_the_same(finished: tuple[Path, Path], call: Any, tmp_path: Path) -> None:
    recipe, work = finished
    shutil.copytree(work, tmp_path / "work")
    shutil.rmtree(next((tmp_path / "work/caches/extract").glob("small-test.*")))
    refused = call("explain", recipe, "test_00002", work=tmp_path / "work")
    assert refused[0] == 2
    assert "extract@test, which is not complete" in refused[2]
    assert f"run `rcnn extract {recipe}`" in refused[2]
    expected = json.loads(call("explain", recipe, "test_00002", "--json")[1])
    uncached = ("--set", "extract.cache=false")
    code, printed, errors = call("explain", recipe, "test_00002", "--json", *uncached, work=tmp_path / "work")
    assert code == 0
    assert "differ" not in errors
    assert json.loads(printed) == expected


def test_detections_that_were_made_otherwise_are_noticed(
    finished: tuple[Path, Path], call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.features.linear_models import LinearSvms

    score = LinearSvms.score
    monkeypatch.setattr(LinearSvms, "score", lambda *all: score(*all) * np.float32(1.0001))
    assert "test_00001: the cached detections differ" in call("explain", finished[0], "test_00001")[2]


def test_comparing_two_detectors(finished: tuple[Path, Path], call: Any, tmp_path: Path) -> None:
    recipe, _ = finished
    code, printed, _ = call(
        "compare", recipe, recipe, "--evaluation", "eval", *PLAIN, "--resamples", 50, "-o", tmp_path
    )
    assert code == 0
    assert "  detect / detect-plain.average_per_image 40 -> 3" in printed
    assert "  detect / detect-plain.inputs.regressor train-bbox -> none" in printed
    assert "  train-bbox: only in A (layer = pool4)" in printed
    told = json.loads((tmp_path / "compare.json").read_text())
    summaries = [
        json.loads((finished[1] / f"results/small/{name}/results.json").read_text()) for name in ("eval", "eval-plain")
    ]
    assert told["map"]["a"] == summaries[0]["map"]
    assert told["map"]["b"] == summaries[1]["map"]
    assert [one["a"] for one in told["classes"]] == [one["ap_11"] for one in summaries[0]["classes"].values()]
    assert len(told["images"]) == 8
    gains = [one["gain"] for one in told["images"]]
    assert (tmp_path / "better.png").exists() == (max(gains) > 0)


def test_other_images_and_incomplete_runs_are_refused(finished: tuple[Path, Path], call: Any) -> None:
    recipe, _ = finished
    refused = call("compare", recipe, recipe, "--evaluation", "eval", "--evaluation-b", "eval-train")
    assert refused[0] == 2
    assert (
        "evaluate different images (8 of shapes-test and 12 of shapes-train); compare runs on the same dataset"
        in refused[2]
    )
    changed = ("--set", "detect.nms_iou=0.5")
    for command in (("compare", recipe, recipe, *PLAIN), ("explain", recipe, "test_00001")):
        code, _, errors = call(*command, *changed)
        assert code == 2
        assert f"detect@test is not complete; run `rcnn run {recipe} --set detect.nms_iou=0.5` first" in errors


def test_unknown_images_are_one_sentence(finished: tuple[Path, Path], call: Any) -> None:
    code, _, errors = call("explain", finished[0], "test_0001")
    assert code == 2
    assert "test_0001: is neither a photo nor an image of the datasets test, train; did you mean 'test_0000" in errors


def test_an_image_that_was_skipped_is_one_sentence(
    finished: tuple[Path, Path], call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened_inputs = Demand.inputs

    def skipping(demand: Demand, node: Node) -> Inputs:
        opened = opened_inputs(demand, node)
        opened.reader("features").manifest["skipped"] = {"test_00001": "is empty (0 bytes)"}
        return opened

    monkeypatch.setattr(Demand, "inputs", skipping)
    code, _, errors = call("explain", finished[0], "test_00001")
    assert code == 2
    assert (
        "test_00001: was skipped because it is unreadable (it is empty (0 bytes)); there is nothing to explain"
        in errors
    )
