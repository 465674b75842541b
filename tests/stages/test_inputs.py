"""What a stage is given: each input as the type that it asks for, or an error that names the role."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cache import Column, Identity, Reader, Schema, Writer
from stages.contract.inputs import Inputs
from stages.datasets import open_dataset
from stages.datasets.classification import ClassificationDataset
from stages.networks import NetworkSettings, NetworkSource

SCHEMA = Schema(rows={"boxes": Column("float32", (4,))})


class Computed:
    """Records on demand, of one item."""

    item_ids = ("a",)
    schema = SCHEMA

    def __init__(self) -> None:
        self.manifest: dict[str, Any] = {}

    def read(self, item_id: str, columns: Any = None) -> dict[str, Any]:
        return SCHEMA.empty()


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    writer = Writer(tmp_path / "cache", Identity("propose", 1), ["a"], SCHEMA)
    for part in writer.claim():
        writer.write(part, [SCHEMA.empty()])
    writer.finish({})
    writer.release()
    for name in ("cat", "dog"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        (tmp_path / "classes" / name / "a.png").touch()
    return Inputs(
        {
            "proposals": Reader(tmp_path / "cache"),
            "features": Computed(),
            "images": open_dataset("shapes:train", work=tmp_path, options={"images": 1}),
            "classified": ClassificationDataset("classes", tmp_path / "classes", work=tmp_path),
            "network": NetworkSource.from_settings(NetworkSettings("shapenet", "random")),
        }
    )


def test_each_input_comes_as_its_own_type(inputs: Inputs) -> None:
    opened = inputs.opened
    assert inputs.reader("proposals") is opened["proposals"]
    assert inputs.item_reader("proposals") is opened["proposals"]
    assert inputs.item_reader("features") is opened["features"]
    assert inputs.dataset("images") is opened["images"]
    assert inputs.classification("classified") is opened["classified"]
    assert inputs.network("network") is opened["network"]


def test_an_optional_input_may_be_missing(inputs: Inputs) -> None:
    assert inputs.optional_reader("proposals") is inputs.reader("proposals")
    assert inputs.optional_reader("regressor") is None
    assert "proposals" in inputs
    assert "regressor" not in inputs


@pytest.mark.parametrize(
    ("method", "role", "message"),
    [
        ("reader", "features", "the input in the role 'features' is of type Computed, not Reader"),
        ("optional_reader", "features", "is of type Computed, not Reader"),
        ("item_reader", "network", "is of type NetworkSource, not ItemReader"),
        ("dataset", "classified", "is of type ClassificationDataset, not Dataset"),
        ("classification", "images", "is of type Dataset, not ClassificationDataset"),
        ("network", "proposals", "is of type Reader, not NetworkSource"),
    ],
)
def test_an_input_of_another_type_is_a_type_error(inputs: Inputs, method: str, role: str, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        getattr(inputs, method)(role)


def test_a_role_without_an_input_is_a_key_error_that_lists_the_others(inputs: Inputs) -> None:
    with pytest.raises(KeyError, match="in the role 'svm'; there are proposals, features, images"):
        inputs.reader("svm")
    with pytest.raises(KeyError, match="there are none"):
        Inputs().dataset("images")


def test_inputs_go_to_worker_processes(inputs: Inputs) -> None:
    copied = pickle.loads(pickle.dumps(inputs))
    assert copied.reader("proposals").item_ids == ("a",)
    assert copied.dataset("images").image_ids == inputs.dataset("images").image_ids


def test_importing_them_loads_no_heavy_library() -> None:
    code = (
        "import sys, stages.contract.inputs; print([name for name in ('torch', 'h5py', 'cv2') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
