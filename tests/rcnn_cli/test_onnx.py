"""`rcnn export --onnx`: the parts of each system's networks, computed by onnxruntime as by rcnn."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from rcnn_cli.exporting.export import images_to_try
from rcnn_cli.exporting.model_file import read_model
from rcnn_cli.exporting.onnx_files import checked, export_part, outputs_of, parts_of, refuse_difference
from rcnn_cli.recipes.detectors import detector_node
from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import load_recipe
from stages.anchors import cell_anchors
from stages.contract.errors import StageError
from stages.networks.parts import NetworkPart, Regions
from tests import exported
from tests.built_once import BuiltOnce
from tests.in_process import rcnn
from tests.pipeline import PROJECT


@pytest.fixture(scope="module")
def built(built_once: BuiltOnce) -> Path:
    return built_once.folder("exported", exported.build)


def images_of(built: Path) -> Mapping[str, np.ndarray]:
    graph = Graph(load_recipe(built / "systems.toml"), built / "work")
    return images_to_try(graph, detector_node(graph, "detect"))


@pytest.fixture(scope="module")
def written(built: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of the ONNX files of Faster R-CNN, and what the command printed."""
    folder = tmp_path_factory.mktemp("onnx")
    given = ("--detector", "detect-joint", "--onnx", folder)
    return folder, rcnn("export", built / "systems.toml", *given, work=built / "work").stdout


def session_of(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def test_every_part_is_written_checked_and_described(written: tuple[Path, str]) -> None:
    folder, said = written
    card = json.loads((folder / "card.json").read_text())
    assert list(card["parts"]) == ["maps", "rpn", "regions"]
    assert {path.stem for path in folder.glob("*.onnx")} == set(card["parts"])
    assert said.count("onnxruntime differs from ours by") == 3
    for part, told in card["parts"].items():
        onnx.checker.check_model(str(folder / f"{part}.onnx"), full_check=True)
        session = session_of(folder / f"{part}.onnx")
        assert {one.name: one.shape for one in session.get_inputs()} == told["inputs"]
        assert [one.name for one in session.get_outputs()] == told["outputs"]
        assert max(told["checked"]["largest_difference"].values()) < 1e-5
        first, second = told["checked"]["on_inputs"]
        for name, shape in told["inputs"].items():
            for side, one, other in zip(shape, first[name], second[name], strict=True):
                assert (one != other) == isinstance(side, str), (name, side)
    anchors = card["parts"]["rpn"]["anchors_of_first_cell"]
    np.testing.assert_array_equal(anchors, cell_anchors(8, [3.0, 6.0]))
    assert "MaxRoiPool" in {node.op_type for node in onnx.load(folder / "regions.onnx").graph.node}


def test_the_parts_chained_are_the_detectors_features(written: tuple[Path, str], built: Path) -> None:
    """maps, rpn and regions by onnxruntime, on an image of a size that nothing was exported with."""
    card = read_model(built / "detect-joint.safetensors")
    pixels = np.ascontiguousarray(images_of(built)["whole"][:97, :150])
    ours = {name: parts[0] for name, parts in parts_of(card, built, {"other": pixels}).items()}

    def run(name: str, **given: np.ndarray) -> list[np.ndarray]:
        return list(session_of(written[0] / f"{name}.onnx").run(None, given))

    (maps,) = run("maps", image=ours["maps"].inputs["image"].numpy())
    np.testing.assert_allclose(maps, ours["rpn"].inputs["maps"].numpy(), atol=1e-4)  # float16, as in caches of maps
    for one, other in zip(run("rpn", maps=maps), outputs_of(ours["rpn"]), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    regions = ours["regions"].inputs["regions"].numpy()
    for one, other in zip(run("regions", maps=maps, regions=regions), outputs_of(ours["regions"]), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_the_snippets_of_the_docs_run(
    written: tuple[Path, str], built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (PROJECT / "docs/export.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    shutil.copy(built / "detect-joint.safetensors", tmp_path / "detector.safetensors")
    shutil.copytree(written[0], tmp_path / "onnx")
    shutil.copy(min((built / "work/datasets").rglob("JPEGImages/*.jpg")), tmp_path / "photo.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for block in blocks:
            exec(compile(block, "docs/export.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "'order': 'rgb'" in printed
    assert "likeliest anchor: [" in printed


@pytest.mark.parametrize(("name", "part"), [("detect", "crops"), ("detect-dense", "windows")])
def test_crops_and_windows(name: str, part: str, built: Path, tmp_path: Path) -> None:
    """Other numbers of them than in the example, too."""
    examples = parts_of(read_model(built / f"{name}.safetensors"), built, images_of(built))[part]
    assert len({len(one.inputs[part]) for one in examples}) == 2
    export_part(examples[0], tmp_path / "p.onnx")
    assert max(checked(tmp_path / "p.onnx", examples).differences.values()) < 1e-5


@pytest.mark.parametrize(("pooling", "operator"), [("max", "MaxRoiPool"), ("warp", "RoiAlign")])
def test_each_pooling_has_an_operator(pooling: str, operator: str, built: Path, tmp_path: Path) -> None:
    """Also for regions that reach over the edges of the map, and for one that lies outside."""
    card = read_model(built / "detect-joint.safetensors")
    examples = []
    for part in parts_of(card, built, images_of(built))["regions"]:
        assert isinstance(part.module, Regions)
        corners = torch.tensor([[0, 0, 5, 6], [-3, 2, 40, 20], [4, 4, 4, 4], [90, 90, 95, 99], [1, 3, 7, 9.5]])
        given = {**part.inputs, "regions": corners.round() if pooling == "max" else corners}
        examples.append(replace(part, module=Regions(part.module.network, part.outputs, pooling), inputs=given))
    export_part(examples[0], tmp_path / "r.onnx")
    assert operator in {node.op_type for node in onnx.load(tmp_path / "r.onnx").graph.node}
    assert max(checked(tmp_path / "r.onnx", examples).differences.values()) < 1e-5


def test_a_file_that_differs_is_refused(built: Path, tmp_path: Path) -> None:
    class Doubled(nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return 2 * values

    class Tripled(nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return 3 * values

    given = {"values": torch.arange(6.0).reshape(2, 3)}
    part = NetworkPart("p", Doubled(), given, ("out",), {"values": {0: "n"}}, {})
    export_part(part, tmp_path / "p.onnx")
    refuse_difference("p", checked(tmp_path / "p.onnx", [part]))
    wrong = checked(tmp_path / "p.onnx", [replace(part, module=Tripled())])
    assert wrong.differences == {"out": 5.0}
    with pytest.raises(StageError, match=r"p\.onnx: onnxruntime's out differs from ours by 3\.3e-01 of its largest"):
        refuse_difference("p", wrong)


def test_nothing_is_left_of_a_refused_export(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rcnn_cli.exporting.onnx_files.difference", lambda ours, theirs: 1.0)
    recipe, folder = built / "systems.toml", tmp_path / "onnx"
    chosen = ("--detector", "detect-softmax", "--onnx", folder)
    done = rcnn("export", recipe, *chosen, work=built / "work", check=False)
    assert done.returncode == 2
    assert "the file was not kept" in done.stderr
    assert not list(folder.glob("*.onnx"))


def test_sentences(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = built / "systems.toml"
    nothing = rcnn("export", recipe, work=built / "work", check=False)
    assert "say what to write: -o NAME.safetensors, --onnx FOLDER, or both" in nothing.stderr
    (tmp_path / "maps.onnx").write_text("mine")
    taken = rcnn("export", recipe, "--detector", "detect-joint", "--onnx", tmp_path, work=built / "work", check=False)
    assert "maps.onnx: already exists and was not written by rcnn" in taken.stderr
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    missing = rcnn("export", recipe, "--onnx", tmp_path / "o", work=built / "work", check=False)
    assert "--onnx: needs the package onnx; install it with `pip install 'rcnn[onnx]'`" in missing.stderr
