"""Fine-tuning by the real commands: killed, started by torchrun, and its softmax as detector."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from cache import Reader
from stages.networks import SOFTMAX, NetworkSource
from tests.built_once import BuiltOnce
from tests.in_process import rcnn
from tests.pipeline import command, contents, torchrun

RECIPE = """
[datasets.train]
source = "shapes:train"
images = 8
[datasets.test]
source = "shapes:test"
images = 3
[network]
name = "shapenet"
weights = "random"
[propose]
method = "sliding-window"
max_boxes = 60
[finetune]
iterations = 30
batch_size = 16
padding = 4
learning_rate = 0.01
step = 20
dropout = 0.0
checkpoint_seconds = 0
[extract]
layers = ["fc5", "softmax"]
padding = 4
[train-svm]
layer = "fc5"
[train-bbox]
layer = "fc5"
[detect]
[detect-softmax]
stage = "detect"
score = "softmax"
[eval]
[eval-softmax]
stage = "eval"
inputs = { detections = "detect-softmax" }
"""


def call(*arguments: object, work: Path) -> tuple[int, str]:
    """`rcnn` in this process: exit code, and all that it printed."""
    done = rcnn(*arguments, work=work, check=False)
    return done.returncode, done.stderr + done.stdout


@pytest.fixture(scope="module")
def finished(built_once: BuiltOnce) -> tuple[Path, Path, str]:
    """(recipe, work folder, what was printed) of an undisturbed run with one process."""

    def build(folder: Path) -> None:
        (folder / "tuned.toml").write_text(RECIPE)
        done = rcnn("run", folder / "tuned.toml", work=folder / "work")
        (folder / "printed.txt").write_text(done.stdout)

    folder = built_once.folder("finetuned", build)
    return folder / "tuned.toml", folder / "work", (folder / "printed.txt").read_text()


@pytest.fixture
def untrained(finished, tmp_path) -> Path:
    """A work folder with the proposals of the finished run and nothing that follows from them."""
    shutil.copytree(finished[1] / "datasets", tmp_path / "work" / "datasets")
    shutil.copytree(finished[1] / "caches" / "propose", tmp_path / "work" / "caches" / "propose")
    return tmp_path / "work"


def network_folder(work: Path) -> Path:
    """The cache of the fine-tuned network."""
    (folder,) = (work / "caches" / "finetune").iterdir()
    return folder


def network_alone(work: Path) -> tuple[dict, dict]:
    """What the fine-tuned network's cache holds: the bytes of its parts, and what its manifest says."""
    return contents(work)[network_folder(work).name]


def losses(work: Path) -> list[float]:
    """The loss of each iteration as cached."""
    return Reader(network_folder(work)).read("network", ["log/loss"])["log/loss"].tolist()


def test_a_run_leaves_a_network_a_log_and_curves(finished):
    _, work, printed = finished
    with (network_folder(work) / "training.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["iteration"]) for row in rows] == list(range(1, 31))
    assert [float(row["learning_rate"]) for row in rows] == [0.01] * 20 + [0.001] * 10
    np.testing.assert_allclose([float(row["loss"]) for row in rows], losses(work), rtol=1e-5)
    assert np.mean(losses(work)[-5:]) < losses(work)[0] / 1.5
    assert all(float(row["seconds"]) > 0 for row in rows)
    assert (work / "results" / "tuned" / "finetune" / "training.png").stat().st_size > 10_000
    assert "training.png" in printed
    assert printed.count("mAP, 11-point") == 1


def test_a_killed_training_goes_on_to_the_same_bits(finished, untrained):
    """SIGKILL with a checkpoint there, then the same command again."""
    recipe = finished[0]
    line, environment = command("finetune", recipe, work=untrained)
    process = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((untrained / "caches").glob("finetune/*/checkpoint-00000.npz")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert list((untrained / "caches").glob("finetune/*/checkpoint-00000.npz"))
    assert not list((untrained / "caches").glob("finetune/*/manifest.json"))
    again = rcnn("finetune", recipe, work=untrained)
    assert "resuming after iteration" in again.stderr
    assert network_alone(untrained) == network_alone(finished[1])


def test_two_processes_have_the_loss_curve_of_one(finished, untrained):
    """The same global batches, without dropout: every loss within 1e-5; one writes, one speaks."""
    done = torchrun("finetune", finished[0], work=untrained)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(losses(untrained), losses(finished[1]), atol=1e-5)
    assert done.stdout.count("training.png") == 1
    assert done.stderr.count("finetune: done") == 1
    one, two = network_alone(finished[1])[1]["summary"], network_alone(untrained)[1]["summary"]
    assert two["loss"] == pytest.approx(one["loss"], abs=1e-5)
    assert two["positive_windows"] == one["positive_windows"]


def test_an_error_in_one_process_ends_all_with_a_sentence(finished, untrained):
    image = next((untrained / "datasets").rglob("JPEGImages/*.jpg"))
    image.write_text("no picture")
    code, printed = call("propose", finished[0], "--split", "train", "--skip-bad-images", work=untrained)
    assert code == 0, printed
    done = torchrun("finetune", finished[0], work=untrained)
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if line.startswith("rcnn: ")]
    assert any(str(image) in line for line in told), done.stderr
    assert all(str(image) in line or "another process started" in line or "terminated" in line for line in told), told
    assert not list((untrained / "caches").glob("finetune/*/manifest.json"))


def test_the_softmax_detector_is_the_networks_own_scores(finished):
    """Every candidate's score is a probability of the forward pass, none is the background's."""
    _, work, _ = finished
    (features,) = (Reader(one) for one in (work / "caches" / "extract").iterdir() if "test" in one.name)
    (detections,) = (Reader(one) for one in (work / "caches" / "detect").iterdir() if "softmax" in one.name)
    classes = detections.manifest["summary"]["classes"]
    assert len(classes) == 10
    assert "background" not in classes
    assert NetworkSource.from_reader(Reader(network_folder(work))).class_names == (*classes, "background")
    for image_id, record in features.records():
        probabilities = record[SOFTMAX][~record["is_object"]]
        found = detections.read(image_id)
        assert probabilities.dtype == np.float32
        for label in range(10):
            mine = found["candidates/label"] == label
            np.testing.assert_array_equal(found["candidates/score"][mine], -np.sort(-probabilities[:, label]))
        assert found["label"].max() < 10


def test_the_softmax_of_features_that_are_not_kept_is_the_same(finished, tmp_path):
    recipe, work, _ = finished
    shutil.copytree(work, tmp_path / "work")
    caches = tmp_path / "work" / "caches"
    for folder in [*(caches / "detect").iterdir(), *(caches / "extract").glob("*-test.*")]:
        shutil.rmtree(folder)
    code, printed = call("run", recipe, "--set", "extract.cache=false", work=tmp_path / "work")
    assert code == 0, printed
    found, expected = contents(tmp_path / "work"), contents(work)
    assert {name for name in expected if name not in found} == {
        folder.name for folder in (work / "caches" / "extract").glob("*-test.*")
    }
    assert found == {name: expected[name] for name in found}


def test_predict_by_softmax_agrees_with_the_cached_stages(finished, tmp_path):
    recipe, work, _ = finished
    image_id = next((work / "datasets").rglob("ImageSets/Main/test.txt")).read_text().split()[0]
    photo = next((work / "datasets").rglob(f"JPEGImages/{image_id}.jpg"))
    arguments = ("predict", recipe, photo, "--detector", "detect-softmax", "-o", tmp_path / "out")
    assert call(*arguments, work=work)[0] == 0
    predicted = json.loads((tmp_path / "out" / f"{image_id}.json").read_text())["detections"]
    (detections,) = (Reader(one) for one in (work / "caches" / "detect").iterdir() if "softmax" in one.name)
    scores = detections.read(image_id)["score"]
    assert len(scores) > 0
    assert sorted(one["score"] for one in predicted) == pytest.approx(sorted(scores.tolist()), abs=1e-5)


def test_proposals_of_another_split_are_refused_in_a_sentence(finished, untrained):
    text = RECIPE.replace("[finetune]\n", '[finetune]\ninputs = { proposals = "propose@test" }\n')
    recipe = untrained / "crossed.toml"
    recipe.write_text(text)
    code, printed = call("finetune", recipe, work=untrained)
    assert code == 2
    assert "were made from other images than" in printed.splitlines()[-1]
    assert "Traceback" not in printed
