"""Completion: what is offered for recipes, caches, tables, splits and settings, in click and in a real bash."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from rcnn_cli.commands.completion import SOURCE_OPTIONS, complete_image
from rcnn_cli.main import cli
from tests.cache.samples import open_writer, sample_ids
from tests.pipeline import PROJECT, SMALL

TWO = f"{SMALL}\n[detect-again]\nstage = 'detect'\n[eval-again]\nstage = 'eval'\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own folder with a recipe, a broken one, a grid, and what is no recipe."""
    for name in ("recipes/grids", "pictures", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "recipes/two.toml").write_text(TWO)
    (tmp_path / "recipes/broken.toml").write_text("[extract]\nlayers = [")
    (tmp_path / "recipes/grids/g.toml").write_text('recipe = "../two.toml"\n[axes]\n"extract.padding" = [0]\n')
    (tmp_path / "recipes/notes.txt").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def offered(*words: str) -> list[str]:
    """What click offers for the last of the words."""
    *arguments, incomplete = words
    return [
        item.value for item in ShellComplete(cli, {}, "rcnn", "_RCNN_COMPLETE").get_completions(arguments, incomplete)
    ]


@pytest.mark.parametrize("command", [("run",), ("status",), ("extract",), ("recall",), ("cache", "gc"), ("ablate",)])
def test_recipes_are_toml_files(folder: Path, command: tuple[str, ...]) -> None:
    every = ["recipes/broken.toml", "recipes/two.toml", "recipes/grids/"]
    assert offered(*command, "") == ["pictures/", "recipes/"]
    assert offered(*command, "rec") == every
    assert offered(*command, "recipes/") == every
    assert offered(*command, "recipes/t") == ["recipes/two.toml"]
    assert offered(*command, "recipes/g") == ["recipes/grids/g.toml"]
    assert offered(*command, f"{folder}/recipes/t") == [f"{folder}/recipes/two.toml"]
    for nowhere in ("nothing", "no/such/folder"):
        items = ShellComplete(cli, {}, "rcnn", "_RCNN_COMPLETE").get_completions([*command], nowhere)
        assert [(item.value, item.type) for item in items] == [(nowhere, "file")]


def test_where_no_file_matches_recipes_that_come_with_rcnn_are_offered(folder: Path) -> None:
    assert offered("run", "shapes-f") == ["shapes-fast", "shapes-faster", "shapes-finetuned"]
    assert offered("ablate", "grids/three") == ["grids/three-papers", "grids/three-papers-voc2007"]
    assert offered("recipes", "copy", "voc2007-o") == ["voc2007-onet", "voc2007-overfeat-squeezenet"]
    assert offered("recipes", "") == ["copy"]


@pytest.mark.parametrize("before", [(), ("--jobs", "2"), ("--set", "extract.padding=0")])
def test_names_that_a_recipe_has(folder: Path, before: tuple[str, ...]) -> None:
    two = "recipes/two.toml"
    assert offered("run", two, *before, "--only", "extract@") == ["extract@train", "extract@test"]
    assert offered("run", *before, two, "--only", "tr") == ["train-svm", "train-bbox"]
    assert offered("wait", two, "detect-again") == ["detect-again@test"]
    assert offered("propose", two, *before, "--split", "") == ["pretraining", "train", "test"]
    assert offered("recall", two, two, "--split", "te") == ["test"]
    assert offered("predict", two, *before, "--detector", "") == ["detect", "detect-again"]
    assert offered("tune", two, *before, "--evaluation", "eval-") == ["eval-again"]


def test_settings(folder: Path) -> None:
    two = "recipes/two.toml"
    sections = offered("run", two, "--set", "")
    assert sections[:3] == ["pretrain.", "propose.", "extract."]
    assert {"detect-again.", "datasets."} < set(sections)
    assert offered("run", two, "--set", "extract.pa") == ["extract.padding="]
    assert {"extract.layers=", "extract.test."} < set(offered("run", two, "--set", "extract."))
    assert offered("run", two, "--set", "extract.test.pa") == ["extract.test.padding="]
    of_test = [f"datasets.test.{name}=" for name in ("source", "images", "seed", "masks", "long_tail")]
    assert offered("run", two, "--set", "datasets.test.") == of_test
    assert offered("run", two, "--set", "extract.mode=w") == ["extract.mode=warp"]
    assert offered("run", two, "--set", "eval.coco=") == ["eval.coco=true", "eval.coco=false"]
    assert offered("run", two, "--set", "extract.padding=") == []
    assert offered("run", two, "--set", "extract.padding=0", "--set", "detect-a") == ["detect-again."]
    assert offered("ablate", "recipes/grids/g.toml", "--set", "detect-again.nms") == ["detect-again.nms_iou="]


def test_settings_of_every_network(folder: Path) -> None:
    (folder / "recipes/nets.toml").write_text(f'{SMALL}\n[network]\n[networks.deep]\nname = "vgg16"\n')
    sections = offered("run", "recipes/nets.toml", "--set", "net")
    assert sections == ["network.", "networks."]
    assert offered("run", "recipes/nets.toml", "--set", "networks.deep.we") == ["networks.deep.weights="]
    assert "networks.deep.name=zf" in offered("run", "recipes/nets.toml", "--set", "networks.deep.name=")


def test_sources_of_datasets(folder: Path) -> None:
    (folder / "photos/ImageSets/Main").mkdir(parents=True)
    for name in ("train", "test"):
        (folder / "photos/ImageSets/Main" / f"{name}.txt").write_text("")
    (folder / "beside/day").mkdir(parents=True)
    (folder / "beside/few.txt").write_text("")
    for name in ("toy.json", "data.yaml"):
        (folder / name).write_text("")
    check = ("data", "check")
    assert offered(*check, "") == ["voc:", "coco:", "yolo:", "ilsvrc:", "sbd:", "shapes:"]
    assert offered(*check, "voc:ph") == ["voc:photos/"]
    assert offered(*check, "voc:photos:") == ["voc:photos:test", "voc:photos:train"]
    assert offered(*check, "voc:photos:tr") == ["voc:photos:train"]
    assert offered(*check, "voc:beside:") == ["voc:beside:day", "voc:beside:few"]
    assert offered(*check, "coco:t") == ["coco:toy.json:"]
    assert offered(*check, "coco:toy.json:pic") == ["coco:toy.json:pictures/"]
    assert offered(*check, "yolo:d") == ["yolo:data.yaml:"]
    assert offered(*check, "yolo:data.yaml:v") == ["yolo:data.yaml:val"]
    assert offered(*check, "ilsvrc:photos:val") == [f"ilsvrc:photos:{split}" for split in ("val", "val1", "val2")]
    assert offered(*check, "sbd:beside:f") == ["sbd:beside:few"]
    assert offered(*check, "shapes:te") == ["shapes:test"]
    assert offered(*check, "other:") == offered(*check, "voc:nowhere:") == []
    assert offered(*check, "coco:toy.json:pictures", "--set", "") == ["exif=", "classes=", "masks="]
    assert offered(*check, "voc:photos:train", "--set", "una") == ["unannotated="]
    assert offered(*check, "voc:photos:train", "--set", "exif=u") == ["exif=upright"]


def test_the_options_of_sources_are_those_that_datasets_know() -> None:
    from stages.datasets.ilsvrc import IlsvrcOptions
    from stages.datasets.sbd import SbdOptions
    from stages.datasets.shapes import ClassificationSettings, ShapesOptions
    from stages.datasets.voc import ClassOptions, ImageOptions, MaskOptions, VocOptions

    kinds = {
        "voc": VocOptions, "coco": MaskOptions, "yolo": ClassOptions, "shapes": ShapesOptions, "folder": ImageOptions,
        "shapes-classification": ClassificationSettings, "ilsvrc": IlsvrcOptions, "sbd": SbdOptions,
    }  # fmt: skip
    assert set(kinds) == set(SOURCE_OPTIONS)
    for kind, options in kinds.items():
        assert set(SOURCE_OPTIONS[kind]) == {field.name for field in dataclasses.fields(options)}
        for field in dataclasses.fields(options):
            if choices := field.metadata.get("choices"):
                assert SOURCE_OPTIONS[kind][field.name] == choices


def test_images_are_those_of_cached_detections(folder: Path) -> None:
    command = click.Command("show", params=[
        click.Argument(["recipe"]), click.Option(["--split"]), click.Argument(["image"], shell_complete=complete_image),
    ])  # fmt: skip

    def images(*words: str) -> list[str]:
        *arguments, incomplete = words
        found = ShellComplete(command, {}, "show", "_SHOW_COMPLETE").get_completions(arguments, incomplete)
        return [item.value for item in found]

    assert images("recipes/two.toml", "") == []
    open_writer(folder / "work/caches/detect/two-test.0123456789ab", sample_ids(12))
    open_writer(folder / "work/caches/detect/two-detect-again-test.ba9876543210", ["other"])
    open_writer(folder / "work/caches/detect/twofold-test.0123456789ab", ["of-another-recipe"])
    assert images("recipes/two.toml", "image-000") == sample_ids(10)
    assert images("recipes/two.toml", "o") == ["other"]
    assert images("--split", "train", "recipes/two.toml", "") == []
    assert images("recipes/broken.toml", "") == []


@pytest.mark.parametrize("recipe", ["recipes/broken.toml", "recipes/none.toml", "recipes/notes.txt", "recipes"])
def test_a_recipe_that_cannot_be_read_is_no_error(folder: Path, recipe: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert offered("run", recipe, "--only", "") == []
    assert offered("propose", recipe, "--split", "") == []
    assert offered("run", recipe, "--set", "extract.pa") == ["extract.padding="]  # from the stage itself
    assert offered("ablate", recipe, "--set", "finetune.see") == ["finetune.seed="]
    assert capfd.readouterr() == ("", "")


def test_commands_and_options(folder: Path) -> None:
    assert offered("st") == ["status"]
    assert offered("task") == []
    assert offered("cache", "v") == ["verify"]
    assert offered("train-svm", "recipes/two.toml", "--neg") == ["--negative-overlap"]
    assert offered("weights", "import", "--network", "tn") == ["tnet"]


def test_nothing_heavy_is_imported(folder: Path) -> None:
    code = (
        "import sys, json; from click.shell_completion import ShellComplete; from rcnn_cli.main import cli;"
        "found = ShellComplete(cli, {}, 'rcnn', '_RCNN_COMPLETE').get_completions;"
        "line = ['run', 'recipes/two.toml'];"
        "names = found([*line, '--only'], 'ev') + found([*line, '--set'], 'ev');"
        "print(json.dumps([[one.value for one in names], sorted(sys.modules)]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    names, loaded = json.loads(subprocess.check_output([sys.executable, "-c", code], env=environment, text=True))
    assert names == ["eval", "eval-again", "eval.", "eval-again."]
    assert {"torch", "cv2", "sklearn", "scipy", "matplotlib", "h5py", "numpy", "PIL"}.isdisjoint(loaded)


# Shells

BASH = """
compopt() { printf "%s\\n" "compopt $1 $2"; }  # outside of a completion the builtin only complains
eval "$(_RCNN_COMPLETE=bash_source ./rcnn)"
IFS=$'\\n' read -r -d '' -a COMP_WORDS <<< "$1"
COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_LINE=$2 COMP_POINT=${#2}
_rcnn_completion ./rcnn "$3"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def command(folder: Path) -> Path:
    """`rcnn` as a command of its own."""
    path = folder / "rcnn"
    path.write_text(f'#!/bin/sh\nPYTHONPATH={PROJECT} exec {sys.executable} -m rcnn_cli "$@"\n')
    path.chmod(0o755)
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "line", "replaced", "printed"),
    [  # bash splits words at @, = and :, and calls what it is going to replace $2
        ("./rcnn run rec", "./rcnn run rec", "rec", ["compopt -o nospace", "recipes/broken.toml", "recipes/two.toml"]),
        ("./rcnn sta", "./rcnn sta", "sta", ["status"]),
        ("./rcnn run recipes/two.toml --only extract @ tr", "./rcnn run recipes/two.toml --only extract@tr", "@tr",
         ["@train"]),
        ("./rcnn run recipes/two.toml --set eval.coco = tr", "./rcnn run recipes/two.toml --set eval.coco=tr", "tr",
         ["true"]),
        ("./rcnn run recipes/two.toml --set = eval.coc", "./rcnn run recipes/two.toml --set=eval.coc", "eval.coc",
         ["compopt -o nospace", "eval.coco="]),
        ("./rcnn run recipes/broken.toml --only x", "./rcnn run recipes/broken.toml --only x", "x", [""]),
    ],
)  # fmt: skip
def test_a_real_bash(command: Path, words: str, line: str, replaced: str, printed: list[str]) -> None:
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH, "bash", words.replace(" ", "\n"), line, replaced],
        cwd=command.parent, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.splitlines()[: len(printed)] == printed


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts(command: Path, shell: str) -> None:
    environment = {**os.environ, "_RCNN_COMPLETE": f"{shell}_source"}
    script = subprocess.check_output([command], env=environment, text=True)
    assert "_rcnn_completion" in script
    if shell != "fish":  # fish itself puts no space after = . /
        assert "== *[=./:] ]]" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)
