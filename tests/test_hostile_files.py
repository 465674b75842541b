"""What is no file, is far too large, or would grow without end, wherever a file can be named: one sentence, at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from rcnn_cli.clusters.cluster_file import load_cluster
from rcnn_cli.experiments.grid import load_grid
from rcnn_cli.exporting.model_file import detector_of_file, read_card
from rcnn_cli.looking.inspection import inspect_file
from rcnn_cli.recipes.recipe import load_recipe
from rcnn_cli.running.weights import import_file, show_file
from stages.contract.errors import StageError
from stages.contract.execution import Execution
from stages.datasets import open_detection
from stages.images.reading import read_image
from stages.input_files import read_whole
from stages.networks.source import expand_path
from stages.propose.box_file import resolve_path
from tests.fuzz.verdict import in_finite_time

RECIPE = Path(__file__).parents[1] / "recipes/shapes.toml"


def pipe(path: Path) -> Path:
    """A named pipe that nobody writes into."""
    os.mkfifo(path)
    return path


def device(path: Path) -> Path:
    """A link to a device that never ends."""
    path.symlink_to("/dev/zero")
    return path


def folder(path: Path) -> Path:
    """A folder."""
    path.mkdir()
    return path


def coco(path: Path) -> None:
    open_detection(f"coco:{path}:{path.parent}", work=path.parent / "work")


def yolo(path: Path) -> None:
    open_detection(f"yolo:{path}:train", work=path.parent / "work")


def annotation_of(path: Path) -> None:
    """The file as the annotation of an image."""
    home = voc(path.parent)
    (home / "Annotations/a.xml").unlink()
    shutil.move(path, home / "Annotations/a.xml")
    open_detection(f"voc:{home}:train", work=path.parent / "work").record("a")


def image_of(path: Path) -> None:
    """The file as an image of a dataset."""
    home = voc(path.parent)
    (home / "JPEGImages/a.jpg").unlink()
    shutil.move(path, home / "JPEGImages/a.jpg")
    assert open_detection(f"voc:{home}:train", work=path.parent / "work").key


def image_set(path: Path) -> None:
    home = voc(path.parent)
    shutil.move(path, home / "ImageSets/Main/other.txt")
    open_detection(f"voc:{home}:other", work=path.parent / "work")


def voc(parent: Path) -> Path:
    """A dataset of one image without objects."""
    home = parent / "voc"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (home / name).mkdir(parents=True)
    Image.new("RGB", (60, 40)).save(home / "JPEGImages/a.jpg")
    (home / "Annotations/a.xml").write_text("<annotation/>")
    (home / "ImageSets/Main/train.txt").write_text("a\n")
    return home


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "recipe": ("r.toml", load_recipe),
    "grid": ("g.toml", load_grid),
    "cluster": ("c.toml", lambda path: load_cluster(path, load_recipe(RECIPE))),
    "annotations of COCO": ("a.json", coco),
    "data.yaml": ("data.yaml", yolo),
    "annotation": ("a.xml", annotation_of),
    "image of a dataset": ("a.jpg", image_of),
    "image set": ("a.txt", image_set),
    "photo": ("a.jpg", read_image),
    "proposals": ("a.h5", lambda path: resolve_path(str(path))),
    "weights of a recipe": ("w.pth", lambda path: expand_path(str(path))),
    "weights to show": ("w.pth", show_file),
    "weights to import": ("w.pth", lambda path: import_file(str(path), "alexnet", path.parent / "o", None, None, None)),
    "JSON to inspect": ("a.json", inspect_file),
    "image to inspect": ("a.png", inspect_file),
    "HDF5 to inspect": ("a.h5", inspect_file),
    "exported detector": ("m.safetensors", lambda path: detector_of_file(path, Execution())),
    "card of an exported detector": ("m.safetensors", read_card),
}


@pytest.mark.parametrize("kind", [pipe, device, folder])
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file(reader: str, kind: Callable[[Path], Path], tmp_path: Path) -> None:
    name, read = READERS[reader]
    path = kind(tmp_path / name)
    with pytest.raises(StageError) as error, in_finite_time():
        read(path)
    assert Path(name).stem in str(error.value)


def test_a_pipe_of_the_shell_is_read(tmp_path: Path) -> None:
    inside, outside = os.pipe()
    os.write(outside, RECIPE.read_bytes())
    os.close(outside)
    assert load_recipe(Path(f"/dev/fd/{inside}")).uses
    os.close(inside)


def test_fifty_megabytes_of_toml_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(b"a = [1, 2, 3]\n" * 4_000_000)
    with pytest.raises(StageError, match=r"r\.toml: cannot be read \(it is larger than 1 MB\)"), in_finite_time():
        load_recipe(path)
    assert len(read_whole(path)) == path.stat().st_size


def test_entities_that_grow_without_end_are_refused(tmp_path: Path) -> None:
    home = voc(tmp_path)
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 50}">' for n in range(1, 9))
    head = f'<!DOCTYPE a [<!ENTITY e0 "{"x" * 100}">{entities}]>'
    (home / "Annotations/a.xml").write_text(f"{head}<annotation><object><name>&e8;</name></object></annotation>")
    with pytest.raises(StageError, match=r"a\.xml: is not a complete XML file"), in_finite_time():
        open_detection(f"voc:{home}:train", work=tmp_path / "work").record("a")


def test_safetensors_of_others_are_no_detectors(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    one = {"a": np.zeros(3, np.float32)}
    for content, said in (
        (b"", "is not a .safetensors file"),
        (b"{" * 100, "is not a .safetensors file"),
        (save(one, {"format": "pt"}), "is a .safetensors file of another program"),
        (
            save(one, {"rcnn": "{}"}),
            "holds the weights of a network, not a detector",
        ),
        (save(one, {"rcnn.detector": "[]"}), "is damaged"),
        (save(one)[:-4], "bytes long"),
    ):
        path.write_bytes(content)
        for read in (read_card, lambda path: detector_of_file(path, Execution())):
            with pytest.raises(StageError, match=said):
                read(path)
