"""Inputs that change under a run: a cache never holds what was made of other files than those of its key.

Each file is replaced, by another one of the same size and modification time, after the key of a stage's cache has been
made and before the stage reads it; when the stage has ended, the old one is put back. The command has to end with a
sentence, and the next one with the very caches of a run that nobody disturbed.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cache import Reader
from rcnn_cli.running import runner
from stages.datasets.shapes import ShapesSettings, draw_shapes
from stages.networks import NETWORKS
from stages.networks.architectures import build
from tests.in_process import caller
from tests.pipeline import contents

DATA = """
[datasets.train]
source = "voc:{folder}/voc:train"
"""
PROPOSE = """
[propose]
method = "selective-search"
resize_width = 100
max_boxes = 10
"""
LISTED = """
[propose]
method = "file"
file = "{folder}/boxes.npz"
"""
FINETUNE = """
[finetune]
iterations = 2
batch_size = 8
threads = 1
[network]
name = "shapenet"
weights = "{folder}/weights.pth"
preprocessing = "plain"
"""
EXTRACT = """
[extract]
layers = ["fc5"]
padding = 4
[network]
name = "shapenet"
weights = "{folder}/weights.pth"
preprocessing = "plain"
"""
RECIPES = {
    ("propose@train", "image"): DATA + PROPOSE,
    ("propose@train", "boxes"): DATA + LISTED,
    ("finetune", "image"): DATA + LISTED + FINETUNE,
    ("finetune", "annotation"): DATA + LISTED + FINETUNE,
    ("finetune", "weights"): DATA + LISTED + FINETUNE,
    ("extract@train", "image"): DATA + LISTED + EXTRACT,
    ("extract@train", "annotation"): DATA + LISTED + EXTRACT,
    ("extract@train", "weights"): DATA + LISTED + EXTRACT,
}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A folder with images, annotations, weights and boxes."""
    draw_shapes(tmp_path / "voc", ShapesSettings(train=3, val=1, test=1))
    ids = (tmp_path / "voc/ImageSets/Main/train.txt").read_text().split()
    boxes: dict[str, Any] = {one: np.array([[0, 0, 40, 40], [9, 9, 60, 50]], np.float32) for one in ids}
    np.savez(tmp_path / "boxes.npz", **boxes)
    save_weights(tmp_path / "weights.pth", 0)
    return tmp_path


def save_weights(path: Path, seed: int) -> None:
    """A network of random weights."""
    torch.manual_seed(seed)
    torch.save(build(NETWORKS["shapenet"], 10).state_dict(), path)


def other_image(path: Path) -> bytes:
    """Another image of the same size, in pixels and in bytes."""
    length = path.stat().st_size
    with Image.open(path) as image:
        turned = image.transpose(Image.Transpose.ROTATE_180)
    for quality in range(75, 5, -5):
        turned.save(path.with_suffix(".other"), "JPEG", quality=quality)
        content = path.with_suffix(".other").read_bytes()
        if len(content) <= length:
            path.with_suffix(".other").unlink()
            return content.ljust(length, b"\0")
    raise AssertionError("no quality is low enough")


def other_boxes(path: Path) -> bytes:
    """Other boxes of the same images."""
    with np.load(path) as boxes:
        np.savez(path.parent / "other.npz", **{name: boxes[name] + 3 for name in boxes.files})
    return (path.parent / "other.npz").read_bytes()


def other_weights(path: Path) -> bytes:
    """Another network."""
    other = path.parent / "other" / path.name  # a file of torch.save has its own name in it
    other.parent.mkdir()
    save_weights(other, 1)
    return other.read_bytes()


def other_annotation(path: Path) -> bytes:
    """The first box a pixel further to the right."""
    text = path.read_text()
    before = text[text.index("<xmin>") : text.index("</xmin>")]
    number = before.removeprefix("<xmin>")
    return text.replace(before, f"<xmin>{int(number) + (1 if not number.endswith('9') else -1)}", 1).encode()


KINDS = {
    "image": (lambda folder, one: folder / f"voc/JPEGImages/{one}.jpg", other_image),
    "annotation": (lambda folder, one: folder / f"voc/Annotations/{one}.xml", other_annotation),
    "weights": (lambda folder, one: folder / "weights.pth", other_weights),
    "boxes": (lambda folder, one: folder / "boxes.npz", other_boxes),
}


def exchange(path: Path, content: bytes, how: str) -> None:
    """Writes other content into the file, or renames another file over it, with the old size and time."""
    status = path.stat()
    assert len(content) == status.st_size
    target = path if how == "written" else path.with_name("incoming")
    target.write_bytes(content)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(target, path)


@pytest.mark.parametrize("how", ["written", "renamed"])
@pytest.mark.parametrize(("node", "kind"), RECIPES)
def test_what_is_made_of_another_file_is_never_kept(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], node: str, kind: str, how: str
) -> None:
    call = caller(capsys)
    monkeypatch.setattr("rcnn_cli.running.device.cores", lambda: 1)
    (world / "r.toml").write_text(RECIPES[node, kind].format(folder=world))
    arguments = ("run", world / "r.toml", "--device", "cpu", "--jobs", "1")
    one = (world / "voc/ImageSets/Main/train.txt").read_text().split()[1]
    where, other = KINDS[kind]
    path = where(world, one)
    original, content = path.read_bytes(), other(path)
    assert content != original
    run_node = runner.run_node
    exchanged: list[str] = []

    def disturbed(graph, made, options, *seen):
        if made.name != node or exchanged:
            return run_node(graph, made, options, *seen)
        graph.folder(made)  # its key is known by now
        exchanged.append(made.name)
        exchange(path, content, how)
        try:
            return run_node(graph, made, options, *seen)
        finally:
            exchange(path, original, how)

    monkeypatch.setenv("RCNN_WORK", str(world / "work"))
    with monkeypatch.context() as patched:
        patched.setattr(runner, "run_node", disturbed)
        code, _, said = call(*arguments)
    assert exchanged
    assert code == 2, said
    assert f"{path}: changed while this command was running" in said.splitlines()[-1]
    assert "Traceback" not in said
    code, _, said = call(*arguments)
    assert code == 0, said
    monkeypatch.setenv("RCNN_WORK", str(world / "undisturbed"))
    assert call(*arguments)[0] == 0
    assert contents(world / "work") == contents(world / "undisturbed")
    if "@" in node:  # its items are images: their parts say which
        (folder,) = (world / "work/caches" / node.partition("@")[0]).iterdir()
        image = (world / f"voc/JPEGImages/{one}.jpg").read_bytes()
        assert Reader(folder).digest(one) == hashlib.sha256(image).hexdigest()
