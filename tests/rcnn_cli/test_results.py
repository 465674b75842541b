"""What `rcnn run` and `rcnn detect --draw` leave and say of a detector that is right about nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rcnn_cli.looking.results import draw_results, show_results
from rcnn_cli.recipes.graph import Graph
from stages.pictures.drawing import class_colours
from stages.pictures.palette import GREY, TRUTH
from tests.rcnn_cli.evaluations import graph_of, run_tables, write_detections, write_scene

CAT, DOG = (20, 20, 60, 60), (10, 50, 40, 90)
THINGS = {"a": [("cat", CAT, False)], "b": [("dog", DOG, False), ("cat", CAT, False)], "c": []}
AWAY = (70, 5, 95, 30)


def made(folder: Path, rows: dict[str, list[tuple[str, tuple[int, int, int, int], float]]]) -> Graph:
    """The scene evaluated."""
    write_scene(folder, THINGS)
    graph = graph_of(folder)
    write_detections(graph, ("cat", "dog"), rows)
    run_tables(graph, "eval")
    return graph


def has(path: Path, colour: tuple[int, int, int]) -> int:
    """How many pixels of a picture have about this colour (JPEGs do not keep it exactly)."""
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((np.abs(picture - colour).max(axis=2) < 50).sum())


def test_nothing_right_is_shown_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Said also when the files are there already."""
    graph = made(tmp_path, {name: [("cat", AWAY, 0.5)] for name in "abc"})
    sentence = (
        "eval/detections.png: 3 of its 3 images have no detection with a precision of 0.5 or more; the best ones "
        "are shown, whatever the score, with the annotated objects\n"
    )
    for _ in range(2):
        show_results(graph, [graph.nodes["eval"]])
        assert capsys.readouterr().out.endswith(sentence)
    sheet = graph.work / "results/r/eval/detections.png"
    assert has(sheet, class_colours(2)[0]) > 300
    assert has(sheet, TRUTH) > 300


def test_only_images_without_anything_right_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = made(tmp_path, {"a": [("cat", CAT, 0.9)], "b": [("cat", CAT, 0.8)], "c": [("dog", AWAY, 0.1)]})
    show_results(graph, [graph.nodes["eval"]])
    assert "eval/detections.png: 1 of its 3 images has no detection" in capsys.readouterr().out
    draw_results(graph, graph.nodes["detect@test"])
    told = capsys.readouterr().out
    assert told.startswith("3 images drawn: ")
    assert "; 1 of them has nothing above the thresholds: the best detections there are drawn in thin lines" in told


def test_drawn_images_without_anything_above_the_thresholds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = made(tmp_path, {"a": [("cat", AWAY, 0.5), ("dog", AWAY, 0.2)], "b": [], "c": []})
    draw_results(graph, graph.nodes["detect@test"])
    assert "; 3 of them have nothing above the thresholds" in capsys.readouterr().out
    folder = graph.work / "results/r/detect@test"
    one = has(folder / "a.jpg", GREY)
    assert one > 100  # one label, as there is one object
    alone = made(tmp_path / "other", {"a": [("cat", AWAY, 0.5)], "b": [], "c": []})
    draw_results(alone, alone.nodes["detect@test"])
    same = tmp_path / "other/work/results/r/detect@test/a.jpg"
    assert same.read_bytes() == (folder / "a.jpg").read_bytes()  # the second best is not drawn
    assert has(folder / "b.jpg", TRUTH) > 50
    assert has(folder / "c.jpg", TRUTH) == 0
