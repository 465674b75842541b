"""The notebooks in docs/: each runs from top to bottom on small recipes, and was committed as it ran on the demo."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.built_once import BuiltOnce
from tests.pipeline import PROJECT, SMALLER, run_small

NOTEBOOKS = sorted((PROJECT / "docs" / "notebooks").glob("*.ipynb"))
LARGEST = 400_000
"""Bytes of a notebook with its pictures: each change of it stays in the repository for good."""

SHARED = SMALLER[: SMALLER.index("[extract]")]
DETECTOR = """
[extract]
method = "{method}"
layers = ["softmax", "{layer}"]
[detect]
score = "softmax"
regression = "network"
cap = "image"
[eval]
"""
MAPS = "[maps]\nsides = [64]\nlongest = 120\n"
POOLED = MAPS + DETECTOR.format(method="roi-pool", layer="deltas")
TRAINED = "iterations = 3\nimages_per_batch = 2\nsides = [64]\nlongest = 120\n"
WITHOUT_PROPOSALS = SHARED[: SHARED.index("[propose]")]
OTHERS = {
    "fast": SHARED + "[train-fast]\n" + TRAINED + POOLED,
    "faster": WITHOUT_PROPOSALS
    + "[train-joint]\n"
    + TRAINED.replace("images_per_batch = 2", "images_per_batch = 1")
    + '[propose]\nmethod = "rpn"\nmax_boxes = 60\n'
    + POOLED,
    "overfeat": WITHOUT_PROPOSALS
    + "[train-overfeat]\nborder = 16\nbox_hidden = [8]\n"
    + TRAINED
    + MAPS.replace("[64]", "[64, 100]").replace("120", "160")
    + "border = 16\n"
    + DETECTOR.format(method="dense", layer="edges"),
}
"""Small recipes of the other papers' detectors, with the pre-training, and Fast R-CNN with the proposals, of the small
R-CNN."""


def with_parameters(notebook: Any, parameters: dict[str, Any]) -> Any:
    """The notebook with other values in the cell that is tagged for that."""
    (cell,) = (one for one in notebook.cells if "parameters" in one.metadata.get("tags", ()))
    names = re.findall(r"^(\w+) =", cell.source, re.MULTILINE)
    cell.source = "\n".join(f"{name} = {parameters[name]!r}" for name in names)
    return notebook


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(
    path: Path, built_once: BuiltOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = built_once.copy("small", run_small, tmp_path)
    for name, text in OTHERS.items():
        (folder / f"{name}.toml").write_text(text)
    recipes = {"R-CNN": "small", "Fast R-CNN": "fast", "Faster R-CNN": "faster", "OverFeat": "overfeat"}
    parameters = {
        "RECIPE": str(folder / "small.toml"),
        "RECIPES": {name: str(folder / f"{file}.toml") for name, file in recipes.items()},
        "WORK": str(folder / "work"),
        "JOBS": 1,
        "RUNS": 1,
        "RESAMPLES": 20,
        "IOUS": (0.5, 0.8),
        "THRESHOLDS": (0.3, 0.5),
    }
    notebook = with_parameters(nbformat.read(path, 4), parameters)
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/jpeg" in output.get("data", {})
    ]
    assert pictures


def test_there_are_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["ablation", "one-image-four-detectors", "what-is-in-a-cache"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_was_committed_as_it_ran(path: Path) -> None:
    """Every cell in its order, without errors or paths of the machine on which it ran."""
    assert path.stat().st_size < LARGEST
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert all(output.name == "stdout" for output in outputs if output.output_type == "stream")
    written = json.dumps(
        [{**output, "data": {}} if "image/jpeg" in output.get("data", {}) else output for output in outputs]
    )
    assert not re.search(r'["\s(](/[\w.-]+){2,}', written)
    for output in outputs:
        if "image/jpeg" in output.get("data", {}):
            assert base64.b64decode(output.data["image/jpeg"])[:2] == b"\xff\xd8"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_lead_somewhere(path: Path) -> None:
    text = "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")
    targets = [target for target in re.findall(r"\[[^]\[]*\]\(([^)\s]+)\)", text) if "://" not in target]
    assert targets
    assert [target for target in targets if not (path.parent / target).exists()] == []
