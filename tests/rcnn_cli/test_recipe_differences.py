"""Where two evaluations were made from other things: settings, wiring, datasets, networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from rcnn_cli.recipes.differences import differences
from tests.rcnn_cli.evaluations import RECIPE, graph_of, write_scene

THINGS = {"a": [("cat", (0, 0, 10, 10), False)], "b": [("dog", (0, 0, 10, 10), False)]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("differences")
    write_scene(made, THINGS)
    (made / "voc/ImageSets/Main/other.txt").write_text("a\n")
    return made


def told(folder: Path, a: str, b: str, table: str = "eval", table_b: str = "eval") -> list[str]:
    """The differences in words."""
    first, second = graph_of(folder, a, "a"), graph_of(folder, b, "b")
    return [str(one) for one in differences(first, first.nodes[table], second, second.nodes[table_b])]


def test_nothing_differs_but_names_and_order(folder: Path) -> None:
    assert told(folder, RECIPE, RECIPE) == []
    renamed = RECIPE.replace("[detect]\n", "").replace("[eval]\n", "") + (
        '[finder]\nstage = "detect"\n[eval]\ninputs = {{ detections = "finder" }}\n'
    )
    assert told(folder, RECIPE, renamed) == []


def test_settings_with_defaults_and_those_of_one_split(folder: Path) -> None:
    assert told(folder, RECIPE, RECIPE.replace("[extract]\n", "[extract]\npadding = 0\n")) == [
        "extract.padding 16 -> 0"
    ]
    assert told(folder, RECIPE, RECIPE + "iou = 0.7\n") == ["eval.iou 0.5 -> 0.7"]
    on_test = RECIPE.replace("[train-svm]", "[extract.test]\npadding = 4\n[train-svm]")
    assert told(folder, RECIPE, on_test) == ["extract@test.padding 16 -> 4"]
    cache = RECIPE.replace("[extract]\n", "[extract]\ncache = false\n")
    assert told(folder, RECIPE, cache) == ["extract.cache true -> false (does not affect the result)"]


def test_tables_of_one_run(folder: Path) -> None:
    regressed = RECIPE.replace("[detect]", '[train-bbox]\nlayer = "pool4"\n[detect]')
    expected = ["detect.inputs.regressor none -> train-bbox", "train-bbox: only in B (layer = pool4)"]
    assert told(folder, RECIPE, regressed) == expected
    assert told(folder, regressed, RECIPE) == [
        "detect.inputs.regressor train-bbox -> none",
        "train-bbox: only in A (layer = pool4)",
    ]


def test_two_evaluations_of_one_recipe(folder: Path) -> None:
    two = RECIPE + '[detect-b]\nstage = "detect"\nnms_iou = 0.5\n[eval-b]\nstage = "eval"\n'
    two += 'inputs = {{ detections = "detect-b" }}\n'
    assert told(folder, two, two, "eval", "eval-b") == ["detect / detect-b.nms_iou 0.3 -> 0.5"]


def test_another_dataset_and_another_network(folder: Path) -> None:
    other = RECIPE.replace("voc:test", "voc:other", 1)
    (line,) = told(folder, RECIPE, other)
    assert line == f"datasets.train.source voc:{folder}/voc:test -> voc:{folder}/voc:other"
    assert told(folder, RECIPE, RECIPE.replace('"random"', '"random"\nseed = 3')) == ["network.seed 0 -> 3"]


def test_networks_that_inputs_name(folder: Path) -> None:
    named = RECIPE.replace("[propose]", '[networks.deep]\nname = "shapenet"\nweights = "random"\nseed = 3\n[propose]')
    named = named.replace("[extract]\n", '[extract]\ninputs = {{ network = "deep" }}\n')
    assert told(folder, RECIPE, named) == ["network / networks.deep.seed 0 -> 3"]
    assert told(folder, RECIPE, named.replace("seed = 3", "seed = 0")) == []


def test_the_same_data_by_another_name_is_no_difference(folder: Path) -> None:
    (folder / "voc/ImageSets/Main/copy.txt").write_text("a\nb\n")
    assert told(folder, RECIPE, RECIPE.replace("voc:test", "voc:copy", 1)) == []


def test_a_network_that_one_run_trains(folder: Path) -> None:
    tuned = RECIPE.replace("[extract]", "[finetune]\niterations = 7\n[extract]")
    assert told(folder, RECIPE, tuned) == [
        "extract.inputs.network network -> finetune",
        "finetune: only in B (iterations = 7)",
    ]
