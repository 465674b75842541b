"""Bad input to the real commands: one sentence that names the file or option, the right exit code, nothing lost."""

import contextlib
import errno
import io
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache.files import write_sealed
from stages.datasets.shapes import ShapesSettings, draw_shapes
from tests.cache.samples import manifest_of
from tests.in_process import caller, rcnn
from tests.pipeline import command

RECIPE = """
[datasets.train]
source = "voc:{folder}:train"
[datasets.test]
source = "voc:{folder}:test"
[network]
name = "shapenet"
weights = "random"
[propose]
method = "sliding-window"
max_boxes = 20
[extract]
layers = ["fc5"]
[train-svm]
layer = "fc5"
[detect]
[eval]
"""
STAGES = ("propose", "extract", "train-svm", "detect", "eval")


@pytest.fixture
def world(tmp_path):
    """(folder with a small VOC set, recipe)."""
    draw_shapes(tmp_path / "voc", ShapesSettings(train=3, val=1, test=2))
    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE.format(folder=tmp_path / "voc"))
    return tmp_path / "voc", recipe


@pytest.fixture
def call(tmp_path, capsys, monkeypatch):
    """Calls `rcnn` in this process: (exit code, standard output, standard error)."""
    monkeypatch.setenv("RCNN_WORK", str(tmp_path / "work"))
    monkeypatch.setattr("rcnn_cli.running.device.cores", lambda: 1)
    return caller(capsys)


def assert_sentence(result, *words, code=2):
    """The last line says it in one sentence, and there is no traceback."""
    returned, _, errors = result
    line = errors.strip().splitlines()[-1]
    assert "Traceback" not in errors
    for word in words:
        assert word in line, errors
    assert line.startswith(("rcnn: ", "Error: "))
    assert returned == code, errors


def image_of(folder, split="train"):
    """The first image of a split."""
    return folder / "JPEGImages" / f"{(folder / 'ImageSets/Main' / f'{split}.txt').read_text().split()[0]}.jpg"


def annotation_of(folder, split="train"):
    """The annotation of the first image of a split."""
    return folder / "Annotations" / f"{image_of(folder, split).stem}.xml"


COMMANDS = [("run",), ("status",), *((stage,) for stage in STAGES), ("cache", "verify"), ("cache", "gc")]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_missing_recipe(call, tmp_path, command):
    assert_sentence(call(*command, tmp_path / "none.toml"), "none.toml", "no such recipe")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_recipe_with_a_typo(call, world, command):
    recipe = world[1]
    recipe.write_text(recipe.read_text().replace("max_boxes", "max_boxs"))
    assert_sentence(call(*command, recipe), str(recipe), "[propose]", "'max_boxs'", "did you mean 'max_boxes'?")


@pytest.mark.parametrize("command", [("run",), ("status",), ("propose",)], ids=" ".join)
def test_an_empty_folder_instead_of_a_dataset(call, world, tmp_path, command):
    (tmp_path / "empty").mkdir()
    world[1].write_text(RECIPE.format(folder=tmp_path / "empty"))
    assert_sentence(call(*command, world[1]), str(tmp_path / "empty"))
    assert_sentence(call("data", "check", f"voc:{tmp_path / 'empty'}:train"), str(tmp_path / "empty"))


def test_a_split_that_is_not_there(call, world):
    world[1].write_text(world[1].read_text().replace(":test", ":tset"))
    assert_sentence(call("run", world[1]), "tset")


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_wrong_folder_is_said_before_anything_is_drawn(call, world, command):
    world[1].write_text(world[1].read_text().replace(f"voc:{world[0]}:train", "shapes:train"))
    result = call(command, world[1], "--set", "datasets.test.source=voc:nowhere:test")
    assert_sentence(result, "nowhere: no such folder")
    assert "drawing" not in result[2]


def test_an_image_that_is_missing(call, world):
    folder, recipe = world
    image_of(folder).unlink()
    assert_sentence(call("run", recipe), image_of(folder).stem)


def spoil_as_text(path):
    path.write_text("this is no picture")


def spoil_by_cutting(path):
    path.write_bytes(path.read_bytes()[:2000])


def spoil_by_emptying(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [spoil_as_text, spoil_by_cutting, spoil_by_emptying])
def test_an_image_that_cannot_be_read(call, world, spoil):
    folder, recipe = world
    spoil(image_of(folder))
    assert_sentence(call("run", recipe), str(image_of(folder)), "--skip-bad-images")
    code, out, errors = call("run", recipe, "--skip-bad-images")
    assert code == 0, errors
    assert "mAP" in out
    assert "skipped" in errors
    assert image_of(folder).stem in errors
    code, out, _ = call("data", "check", f"voc:{folder}:train")
    assert (code, str(image_of(folder)) in out, out.endswith(", 1 problem\n")) == (1, True, True)


def test_a_bad_image_for_predict(call, world, tmp_path):
    folder, recipe = world
    call("run", recipe)
    (tmp_path / "photo.jpg").write_text("no picture")
    assert_sentence(call("predict", recipe, tmp_path / "photo.jpg", "-o", tmp_path / "out"), "photo.jpg")
    assert_sentence(call("predict", recipe, tmp_path / "none.jpg", "-o", tmp_path / "out"), "none.jpg")
    good = image_of(folder)
    code, out, errors = call(
        "predict", recipe, tmp_path / "photo.jpg", good, "-o", tmp_path / "out", "--skip-bad-images"
    )
    assert (code, str(good) in out, "photo.jpg" in errors) == (0, True, True)


def write_image(path, array, mode):
    Image.fromarray(array, mode).save(path)


@pytest.mark.parametrize("kind", ["1x1", "6000x4000", "grey", "cmyk"])
def test_unusual_images_are_images(call, world, tmp_path, kind):
    recipe = world[1]
    random = np.random.default_rng(0)
    photo = tmp_path / f"{kind}.jpg"
    if kind == "1x1":
        Image.new("RGB", (1, 1), (200, 30, 30)).save(photo)
    elif kind == "6000x4000":
        small = Image.fromarray(random.integers(0, 255, (4, 6, 3), dtype=np.uint8))
        small.resize((6000, 4000)).save(photo)
    elif kind == "grey":
        Image.fromarray(random.integers(0, 255, (80, 120), dtype=np.uint8)).save(photo)
    else:
        Image.fromarray(random.integers(0, 255, (80, 120, 4), dtype=np.uint8), "CMYK").save(photo)
    code, _, errors = call("run", recipe)
    assert code == 0, errors
    code, _, errors = call("predict", recipe, photo, "-o", tmp_path / "out")
    assert (code, (tmp_path / "out" / f"{kind}.json").exists()) == (0, True), errors


def test_a_box_outside_its_image(call, world):
    folder, recipe = world
    path = annotation_of(folder)
    text = path.read_text()
    first = text.index("<xmax>")
    path.write_text(text[:first] + "<xmax>99999" + text[text.index("</xmax>") :])
    assert_sentence(call("run", recipe), str(path), "99999")


def test_an_annotation_that_is_cut_off(call, world):
    folder, recipe = world
    path = annotation_of(folder)
    path.write_text(path.read_text()[:200])
    assert_sentence(call("run", recipe), str(path))


def test_a_class_that_is_not_listed(call, world):
    folder, recipe = world
    recipe.write_text(recipe.read_text().replace(':train"', ':train"\nclasses = ["disc"]'))
    assert_sentence(call("run", recipe), str(folder / "Annotations"))


def test_a_device_that_is_not_there(call, world):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    call("propose", world[1])
    assert_sentence(call("extract", world[1], "--device", "cuda"), "--device cuda", "no CUDA device")
    assert_sentence(call("extract", world[1], "--device", "tpu"), "--device tpu", "is unknown")
    assert_sentence(call("extract", world[1], "--precision", "float16"), "needs --device cuda")


def test_weights_that_are_not_there_or_not_weights(call, world, tmp_path, monkeypatch):
    recipe = world[1]
    good = recipe.read_text()
    recipe.write_text(good.replace('"random"', '"$RCNN_NO_SUCH_VARIABLE"'))
    monkeypatch.delenv("RCNN_NO_SUCH_VARIABLE", raising=False)
    assert_sentence(call("run", recipe), "RCNN_NO_SUCH_VARIABLE is not set")
    recipe.write_text(good.replace('"random"', f'"{tmp_path / "none.pth"}"'))
    assert_sentence(call("run", recipe), "none.pth")
    (tmp_path / "text.pth").write_text("no weights")
    recipe.write_text(good.replace('"random"', f'"{tmp_path / "text.pth"}"'))
    assert_sentence(call("run", recipe), "text.pth")


def test_layers_that_do_not_exist(call, world):
    call("propose", world[1])
    assert_sentence(call("extract", world[1], "--set", 'extract.layers=["fc55"]'), "fc55", "fc5")
    code, _, errors = call("run", world[1], "--set", "train-svm.layer=fc7")
    assert_sentence((code, "", errors), "fc7")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("run",), "Missing argument"),
        (("run", "r.toml", "--jobs", "0"), "--jobs"),
        (("propose", "r.toml", "--no-such-option"), "No such option"),
        (("nosuch",), "No such command"),
        (("inspect", "nothing.h5"), "there is no such file"),
        (("data", "check", "voc"), "is not a dataset"),
        (("data", "fetch", "voc1066", "x"), "voc1066"),
        (("data", "shapes", "x", "--set", "sead=3"), "did you mean 'seed'?"),
    ],
)
def test_options_that_cannot_be(call, arguments, word):
    code, _, errors = call(*arguments)
    assert (code, word in errors, "Traceback" in errors) == (2, True, False), errors


def test_a_shard_that_cannot_be(call, world):
    assert_sentence(call("propose", world[1], "--shard", "5/3"), "shard '5/3'")


def test_a_work_folder_that_is_a_file(call, world, tmp_path):
    (tmp_path / "file").write_text("")
    assert_sentence(call("run", world[1], "--work", tmp_path / "file"), "cannot be created as a folder")


def test_data_shapes_does_not_overwrite(call, world):
    assert_sentence(call("data", "shapes", world[0]), "is not empty")
    assert_sentence(call("data", "shapes", world[1]), "is a file")


def test_tune_does_not_overwrite_its_recipe(call, world):
    text = world[1].read_text()
    assert_sentence(call("tune", world[1], "-o", world[1], "--force"), "is read by this command")
    assert world[1].read_text() == text


def test_a_question_that_nobody_answers_deletes_nothing(call, world, tmp_path, monkeypatch):
    call("propose", world[1])
    (tmp_path / "other.toml").write_text(world[1].read_text().replace("max_boxes = 20", "max_boxes = 10"))
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert_sentence(call("cache", "gc", tmp_path / "other.toml"), "no answer, so nothing was deleted", "--yes")
    assert len(list((tmp_path / "work" / "caches" / "propose").iterdir())) == 2
    assert call("cache", "gc", tmp_path / "other.toml", "--yes")[0] == 0
    assert not list((tmp_path / "work" / "caches" / "propose").iterdir())


def test_a_cache_from_a_newer_version(call, world, tmp_path):
    call("propose", world[1])
    manifest = next((tmp_path / "work" / "caches" / "propose").glob("r-train.*")) / "manifest.json"
    write_sealed(manifest, {**manifest_of(manifest.parent), "format": 99})
    assert_sentence(call("run", world[1]), "newer version")


def test_a_full_disk_while_a_stage_runs(call, world, monkeypatch):
    def no_space(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("cache.files.os.fsync", no_space)
    assert_sentence(call("propose", world[1]), "the disk is full")
    monkeypatch.undo()


def test_a_disk_that_really_fills_up_in_the_middle_of_a_run(world, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        done = rcnn("run", world[1], "--set", "propose.max_boxes=300", work=disk / "work", check=False)
        assert (done.returncode, "the disk is full" in done.stderr) == (2, True), done.stderr
        assert "Traceback" not in done.stderr
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        done = rcnn("run", world[1], "--set", "propose.max_boxes=300", work=disk / "work")
        assert "mAP" in done.stdout
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@contextlib.contextmanager
def read_only(folder):
    """The folder as somebody sees it who must not write there."""
    if os.geteuid():
        for path in (folder, *folder.rglob("*")):
            path.chmod(path.stat().st_mode & ~0o222)
    elif subprocess.run(["mount", "--bind", folder, folder], capture_output=True).returncode:
        pytest.skip("root needs the right to mount a folder")
    else:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
    try:
        assert not os.access(folder, os.W_OK)
        yield
    finally:
        if os.geteuid():
            for path in (folder, *folder.rglob("*")):
                path.chmod(path.stat().st_mode | 0o200)
        else:
            subprocess.run(["umount", folder], check=True)


def test_a_work_folder_that_cannot_be_written(call, world, tmp_path):
    recipe, work = world[1], tmp_path / "work"
    assert call("run", recipe)[0] == 0
    shutil.rmtree(work / "results")
    with read_only(work):
        for command in ("run", "status", "eval"):
            code, out, errors = call(command, recipe)
            assert (code, "Traceback" in errors) == (0, False), errors
            if command in ("run", "eval"):
                assert "mAP" in out
                assert "no files are written" in errors
        assert call("recall", recipe, "-o", tmp_path / "recall")[0] == 0
        assert (tmp_path / "recall/recall.csv").exists()
        assert_sentence(call("recall", recipe), str(work))
        assert_sentence(call("explain", recipe, "test_00000"), str(work))
        assert_sentence(call("detect", recipe, "--draw"), str(work))
        assert_sentence(call("run", recipe, "--set", "train-svm.C=0.1"), str(work))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the limit is enforced by Linux")
def test_little_memory(world, tmp_path):
    line, environment = command("extract", world[1], work=tmp_path / "work")
    limited = ["bash", "-c", f"ulimit -v 1000000; exec {shlex.join(line)}"]
    done = subprocess.run(limited, env=environment, capture_output=True, text=True)
    assert_sentence((done.returncode, "", done.stderr), "memory ran out")


def test_classes_named_like_paths_and_formulas(call, world, tmp_path):
    """Every file is in its folder, and no cell is a formula."""
    folder, recipe = world
    names = ["=cmd|' C calc'!A0", "é" * 120, "con", "a" * 300]
    for path in (folder / "Annotations").glob("*.xml"):
        text = path.read_text()
        found = re.findall("<name>(.*?)</name>", text)
        for number, old in enumerate(dict.fromkeys(found)):
            text = text.replace(f"<name>{old}</name>", f"<name>{names[number % 4]}</name>")
        path.write_text(text)
    before = {path for path in tmp_path.rglob("*") if "work" not in path.parts}
    code, _, errors = call("run", recipe)
    assert code == 0, errors
    results = tmp_path / "work/results/r/eval"
    assert len(list(results.glob("comp4_det_test_*.txt"))) == 4
    assert "\n'=cmd" in (results / "results.csv").read_text()
    assert {path for path in tmp_path.rglob("*") if "work" not in path.parts} == before
