"""What the report advises: each rule on numbers given by hand."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import load_recipe
from rcnn_cli.report.next_steps import CONFUSION, OBJECTS, RECALL, REMEDIES, RUNS, Known, next_steps, training_objects
from rcnn_cli.report.page import with_code, with_minus
from rcnn_cli.report.runs import Run
from stages.datasets.shapes import ShapesSettings, draw_shapes
from stages.diagnose.report import GAINS
from stages.eval.confusion import Confusion


def run_of(aps: dict[str, float | None], *, regressed: bool = True, of: str = "proposals") -> Any:
    """A run with these APs whose detector scores boxes of this kind."""
    classes = {name: {"ap_11": ap, "positives": 10} for name, ap in aps.items()}
    known = [ap for ap in aps.values() if ap is not None]
    boxes = SimpleNamespace(use=SimpleNamespace(stage=SimpleNamespace(makes=of)))
    detector = SimpleNamespace(
        settings=SimpleNamespace(bbox_regression=True, regression="ridge"),
        sources={"regressor": object()} if regressed else {},
        made_from=lambda kind: boxes if kind == of else None,
    )
    summary = {"metric": "voc07", "iou": 0.5, "classes": classes, "map": float(np.mean(known)) if known else None}
    return SimpleNamespace(summary=summary, detector=detector)


def diagnosis_of(**gains: float) -> dict[str, Any]:
    """A diagnosis with a mean AP of 1/2 and these gains by heading, the spaces as underscores; 0 for the others."""
    by_heading = {name.replace("_", " "): gain for name, gain in gains.items()}
    return {"ap": 0.5, "remedies": {remedy: 0.5 + by_heading.get(name, 0) for name, remedy in GAINS.items()}}


RUN = run_of({"cat": 0.5, "dog": 0.7})


def test_nothing_is_advised_if_nothing_is_known_or_wrong() -> None:
    assert next_steps(Known(RUN)) == []
    perfect = Known(RUN, diagnosis_of(), 1.0, 0.0, None, {"cat": 100, "dog": 100}, 0.6)
    assert next_steps(perfect) == []


def test_proposals_limit_recall() -> None:
    (step,) = next_steps(Known(RUN, covered=0.932))
    assert (step.number, step.unit, step.places) == ("+6.8", "recall", (RECALL,))
    assert "The proposals limit recall to 93.2 % at an IoU of 0.5." in step.text
    assert next_steps(Known(RUN, covered=0.981)) == []
    (windows,) = next_steps(Known(run_of({"cat": 0.5}, of="features"), covered=0.9))
    assert "The windows limit" in windows.text


def test_objects_that_are_covered_and_never_found() -> None:
    proposals, lost = next_steps(Known(RUN, covered=0.9, missed=0.15))
    assert (proposals.number, lost.number) == ("+10.0", "+5.0")
    assert lost.text.startswith("The proposals cover 90.0 % of the objects, but the detections find only 85.0 %, ")
    assert "whatever their score: 5.0 % are lost in between." in lost.text
    assert len(next_steps(Known(RUN, covered=0.9, missed=0.11))) == 1
    assert len(next_steps(Known(RUN, covered=0.9, missed=0.0))) == 1  # boxes may be moved onto an object


def test_types_of_errors_are_ranked_by_their_gain() -> None:
    counts = np.array([[5, 3, 2], [1, 9, 0], [0, 0, 0]])
    confusion = Confusion(("cat", "dog"), counts, np.zeros(2))
    diagnosis = diagnosis_of(Loc_right=0.18, no_Loc=0.2, no_Sim=0.03, no_Oth=0.01, no_BG=0.009)
    localisation, confused = next_steps(Known(RUN, diagnosis, confusion=confusion))
    assert (localisation.number, localisation.places) == ("+18.0", (REMEDIES,))
    assert localisation.text.startswith("Poor localisation and duplicates cost 18.0 points.")
    assert (confused.number, confused.unit, confused.places) == ("+4.0", "AP", (REMEDIES, CONFUSION))
    assert confused.text.startswith("Confusion of classes costs 4.0 points (Sim +3.0 and Oth +1.0 together).")
    assert "Most often, cat is taken for dog: 3 of 10 objects." in confused.text
    (alone,) = next_steps(Known(RUN, diagnosis_of(no_Sim=-0.01, no_Oth=0.033)))
    assert alone.text.startswith("Confusion of classes costs 3.3 points (Oth +3.3).")
    assert alone.places == (REMEDIES,)
    (background,) = next_steps(Known(RUN, diagnosis_of(no_BG=0.01)))
    assert background.text.startswith("False positives on the background cost 1.0 points.")


def test_a_detector_without_box_regression_is_told_to_add_it() -> None:
    diagnosis = diagnosis_of(Loc_right=0.1)
    (without,) = next_steps(Known(run_of({"cat": 0.5}, regressed=False), diagnosis))
    (regressed,) = next_steps(Known(run_of({"cat": 0.5}), diagnosis))
    assert "add box regression" in without.text
    assert "add box regression" not in regressed.text


def test_rare_classes_that_are_worse_than_the_others() -> None:
    """Two of four classes are rare; the other two have a mean AP of 60 %, which cat misses by 48 points."""
    run = run_of({"cat": 0.12, "dog": 0.5, "cow": 0.7, "owl": 0.9, "eel": None})
    (step,) = next_steps(Known(run, training={"cat": 5, "dog": 100, "cow": 20, "owl": 1}))
    assert (step.number, step.places) == ("+12.0", (OBJECTS,))
    assert step.text.startswith("cat has 5 objects in training (AP 12.0 %). The other classes have a mean AP of 60.0 %")
    assert next_steps(Known(run, training={"cat": 20, "dog": 100, "cow": 20, "owl": 20})) == []
    assert next_steps(Known(run, training={})) == []  # all are rare: there is nothing to compare with


def test_sums_and_differences_are_those_of_the_printed_numbers() -> None:
    """3.34 and 2.04 points are printed as 3.3 and 2.0; 97.64 % covered and 93.36 % found as 97.6 and 93.4."""
    (confused,) = next_steps(Known(RUN, diagnosis_of(no_Sim=0.0334, no_Oth=0.0204)))
    assert confused.text.startswith("Confusion of classes costs 5.3 points (Sim +3.3 and Oth +2.0 together).")
    lost, _ = next_steps(Known(RUN, covered=0.9764, missed=0.0664))
    assert lost.number == "+4.2"


RECIPE = """
[datasets.both]
source = ["voc:{folder}/first:train", "voc:{folder}/second:train"]
prefix_ids = true
[datasets.train]
source = "voc:{folder}/first:train"
[datasets.test]
source = "voc:{folder}/first:test"
[network]
name = "shapenet"
weights = "random"
[propose]
[finetune]
split = "both"
[extract]
layers = ["pool4", "softmax"]
[train-svm]
layer = "pool4"
[detect]
inputs = {{ regressor = "none" }}
[detect-softmax]
stage = "detect"
score = "softmax"
inputs = {{ regressor = "none" }}
[eval]
[eval-softmax]
stage = "eval"
inputs = {{ detections = "detect-softmax" }}
"""


def test_the_objects_in_training_are_those_that_taught_the_classes(tmp_path: Path) -> None:
    """The network is fine-tuned on two sets at once, the SVMs are trained on one: for the SVMs' detector the objects of
    the one count, for the network's own those of both together; for a network that is given, none."""
    draw_shapes(tmp_path / "first", ShapesSettings(train=4, val=1, test=2))
    draw_shapes(tmp_path / "second", ShapesSettings(train=3, val=1, test=1, seed=7))
    (tmp_path / "r.toml").write_text(RECIPE.format(folder=tmp_path))

    def counted(name: str, *changes: str) -> dict[str, int] | None:
        graph = Graph(load_recipe(tmp_path / "r.toml", changes), tmp_path)
        node = graph.nodes[f"{name}@test"] if f"{name}@test" in graph.nodes else graph.nodes[name]
        detector = node.sources["detections"]
        return training_objects(cast(Run, SimpleNamespace(graph=graph, node=node, detector=detector)))

    def annotated(folder: str) -> Counter[str]:
        ids = (tmp_path / folder / "ImageSets/Main/train.txt").read_text().split()
        files = [(tmp_path / folder / "Annotations" / f"{one}.xml").read_text() for one in ids]
        objects = [one for text in files for one in re.findall("<object>.*?</object>", text, re.DOTALL)]
        plain = [one for one in objects if "<difficult>1" not in one]
        return Counter(re.findall("<name>(.*?)</name>", "".join(plain)))

    first, both = annotated("first"), annotated("first") + annotated("second")
    assert first != both
    assert Counter(counted("eval")) == first
    assert Counter(counted("eval-softmax")) == both
    assert counted("eval-softmax", "extract.inputs.network=network") is None


def test_many_rare_classes_are_counted() -> None:
    run = run_of({**{f"c{n}": n / 100 for n in range(8)}, "many": 0.8})
    (step,) = next_steps(Known(run, training={"many": 100, "c0": 1}))
    assert step.text.startswith("c0 has 1 object in training (AP 0.0 %); c1 has 0 objects in training (AP 1.0 %); ")
    assert "c4 has" in step.text
    assert "c5" not in step.text
    assert ", and 3 more classes have fewer than 20." in step.text


def test_a_detector_that_knows_its_training_images() -> None:
    (step,) = next_steps(Known(RUN, training_map=0.95))
    assert (step.number, step.places) == ("+35.0", (RUNS,))
    assert step.text.startswith("On the training images mAP is 95.0 %, here 60.0 %")
    assert next_steps(Known(RUN, training_map=0.69)) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("add `[train-bbox]` & see", "add <code>[train-bbox]</code> &amp; see"),
        ("<b> `<i>` `", "&lt;b&gt; <code>&lt;i&gt;</code> <code></code>"),
    ],
)
def test_code_in_a_step_is_marked_and_everything_is_escaped(text: str, shown: str) -> None:
    assert with_code(text) == shown


def test_hyphens_before_numbers_that_stand_alone_become_minus_signs() -> None:
    assert with_minus("best F1 80 % at -0.52") == "best F1 80 % at \u22120.52"
    assert with_minus("-1.2 [-3, +1]") == "\u22121.2 [\u22123, +1]"
    assert with_minus("11-point, 2007-05, eval-2, -") == "11-point, 2007-05, eval-2, -"
