"""Images in which objects may lack an annotation: what trains on or counts everything else as background says no."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.datasets.shapes import ShapesSettings, draw_shapes
from tests.in_process import rcnn
from tests.test_two_training_sets import RECIPE


@pytest.mark.parametrize(
    ("split", "commands", "message"),
    [
        (
            "train",
            ["train-rpn"],
            "train-rpn: 4 images of first-train ('train_00000', ...) may show objects without an ",
        ),
        ("test", ["run"], "eval: 3 images of first-test ('test_00000', ...) may show objects without an annotation"),
    ],
)
def test_a_set_that_is_not_exhaustive_is_refused(split: str, commands: list[str], message: str, tmp_path: Path) -> None:
    draw_shapes(tmp_path / "first", ShapesSettings(train=4, val=1, test=3))
    (tmp_path / "recipe.toml").write_text(RECIPE.format(folder=tmp_path))
    change = ("--set", f"datasets.{split}.exhaustive=false")
    refused = rcnn(*commands, tmp_path / "recipe.toml", *change, work=tmp_path / "work", check=False)
    assert refused.returncode == 2
    assert message in refused.stderr
    assert "use a dataset that is annotated exhaustively" in refused.stderr
