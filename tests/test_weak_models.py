"""Plots of detectors that find little: no text lies on another, and an empty plot says why it is empty."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rcnn_cli.looking.recall import Measured
from rcnn_cli.looking.recall import plot as plot_recall
from rcnn_cli.report import charts
from stages.contract.card import LogColumns
from stages.diagnose.pictures import plot_characteristics, plot_sensitivity, plot_trends
from stages.eval.pictures import plot_box_plots, plot_precision_recall, why_empty
from stages.matching.average_precision import Curve
from stages.matching.proposals import Coverage
from stages.training.log import plot_log
from tests.plotted import clashes, drawn, texts_of

__all__ = ["drawn"]

CLASSES = [f"a thing of the {number}th and rather elaborately named kind" for number in range(20)]
SHORT = [f"k{number}" for number in range(20)]


def curve(found: int, false: int, positives: int = 10) -> Curve:
    """`found` true detections after `false` false ones."""
    true = np.cumsum(np.arange(found + false) >= false)
    counts = np.arange(1, found + false + 1)
    return Curve(
        np.linspace(1, 0, len(true)).astype(np.float32), true / max(1, positives), true / counts, positives, len(true)
    )


def low_aps(names: list[str], seed: int = 0) -> dict[str, float]:
    """APs between 0 and 2 percent, half of them nothing."""
    random = np.random.default_rng(seed)
    return {name: float(random.uniform(0, 0.02) * (number % 2)) for number, name in enumerate(names)}


def diagnosis(names: list[str], ap: float) -> dict[str, Any]:
    """A summary as `diagnose` writes it, of classes whose APs are all near `ap`."""
    subsets = ("extra-small", "small", "medium", "large", "extra-large")
    bins = {one: {"ap_n": ap * place, "ap_n_error": 0.004, "positives": 6} for place, one in enumerate(subsets)}
    of_class = {"positives": 30, "ap_n": ap, "characteristics": {"area": bins, "aspect ratio": bins}}
    ends = {"lowest": 0.9 * ap, "overall": ap, "highest": 1.1 * ap}
    counts = {str(count): {"Loc": 1, "Sim": 0, "Oth": 3, "BG": count - 4} for count in (25, 50, 100, 1600, 3200)}
    return {
        "ap_n": ap,
        "classes": dict.fromkeys(names, of_class),
        "groups": {"all classes": names},
        "trends": dict.fromkeys(["all classes", *names], counts),
        "characteristics": {"truncation": ends, "area": ends, "aspect ratio": ends, "viewpoint": ends},
    }


def proposals(name: str, objects: int) -> Measured:
    """Proposals that cover hardly any of so many objects."""
    found = Coverage(
        (300, None),
        np.zeros(objects, np.int32),
        np.ones(objects),
        np.linspace(0, 0.51, 2 * objects).reshape(objects, 2),
        np.array([300.0, 1234.0]),
    )
    return Measured(name, name, False, "", ("cat",), found, Path())


TWENTY = {name: curve(number % 3, 40 * number) for number, name in enumerate(CLASSES)}
SIX = dict(list(TWENTY.items())[:6])
COLUMNS = LogColumns("epoch", losses=("loss",), accuracies=("accuracy",))
VALIDATED = LogColumns("epoch", losses=("loss",), accuracies=("accuracy",), validated=("mAP",))
VALIDATIONS = {"epoch": [2, 4], "loss": [0.4, 0.3], "accuracy": [0.5, 0.6], "mAP": [0.01, 0.02]}
LOG: dict[str, list[float]] = {
    "epoch": [1, 2, 3],
    "loss": [0.0, 0.0, 0.0],
    "accuracy": [0, 0.0, 0.01],
    "learning_rate": [0.1, 0.1, 0.01],
}
PLOTS: dict[str, Callable[[Path], object]] = {
    "precision-recall": lambda path: plot_precision_recall({"one": TWENTY, "another with a long name": TWENTY}, path),
    "precision-recall of many": lambda path: plot_precision_recall({f"run {n}": SIX for n in range(8)}, path),
    "precision-recall of one": lambda path: plot_precision_recall({"run": {CLASSES[0]: curve(0, 12)}}, path),
    "box plots": lambda path: plot_box_plots({"eval": low_aps(CLASSES), "x" * 40: low_aps(SHORT, 1)}, path),
    "box plots of nothing": lambda path: plot_box_plots({"eval": dict.fromkeys(CLASSES, 0.0)}, path),
    "box plots with outliers": lambda path: plot_box_plots(
        {"eval": {**dict.fromkeys(CLASSES, 0.001), **{f"o{n}": 0.99 + n / 1000 for n in range(8)}}}, path
    ),
    "figure 5": lambda path: plot_trends(diagnosis(CLASSES[:6], 0.01), path),
    "figure 6": lambda path: plot_sensitivity(diagnosis(CLASSES, 0.012), path),
    "figure 6 of nothing": lambda path: plot_sensitivity(diagnosis(CLASSES, 0.0), path),
    "figure 6 of the best": lambda path: plot_sensitivity(diagnosis(CLASSES, 0.9), path),
    "subsets": lambda path: plot_characteristics(diagnosis(CLASSES[:6], 0.01), path),
    "recall": lambda path: plot_recall([proposals("x" * 200, 30), proposals("windows", 30)], path),
    "recall of nothing": lambda path: plot_recall([proposals("windows", 0)], path),
    "training": lambda path: plot_log(LOG, COLUMNS, path),
    "training with a validation set": lambda path: plot_log(LOG, VALIDATED, path, VALIDATIONS),
    "training of one epoch": lambda path: plot_log({name: column[:1] for name, column in LOG.items()}, COLUMNS, path),
    "report: curve": lambda _: charts.precision_recall("x", {0: curve(1, 50), 1: curve(0, 9)}),
    "report: errors": lambda _: charts.error_trend("x", diagnosis(SHORT, 0.01)["trends"]["all classes"]),
    "report: remedies": lambda _: charts.remedies(
        "x", {"Loc right": 0.0, "no Loc": 0.0001, "no Sim": 0.0, "no Oth": 0.002, "no BG": 0.0104}
    ),
    "report: large remedies": lambda _: charts.remedies("x", {"Loc right": 0.31, "no Loc": 0.002, "no BG": 0.997}),
    "report: sensitivity": lambda _: charts.sensitivity("x", diagnosis(SHORT, 0.004)["characteristics"], 0.004),
    "report: best sensitivity": lambda _: charts.sensitivity("x", diagnosis(SHORT, 0.9)["characteristics"], 0.9),
}


@pytest.mark.parametrize("name", PLOTS)
def test_no_text_lies_on_another_or_is_cut_off(name: str, tmp_path: Path, drawn: list[Any]) -> None:
    PLOTS[name](tmp_path / "plot.png")
    (figure,) = drawn
    assert texts_of(figure)
    assert clashes(figure) == []


def test_clashes_are_seen(tmp_path: Path) -> None:
    """The test above would fail on what it is there for."""
    from stages.pictures.plots import new_figure

    figure = new_figure(3, 2)
    for x, text in ((0.3, "one"), (0.31, "two"), (0.9, "a long text at the edge")):
        figure.text(x, 0.5, text)
    told = clashes(figure)
    assert "'one' on 'two'" in told
    assert "'a long text at the edge' leaves the figure" in told


def test_why_a_curve_cannot_be_seen() -> None:
    nothing, wrong, right = curve(0, 0), curve(0, 1200), curve(1, 3)
    assert why_empty([right]) == why_empty([nothing, right]) == ""
    assert why_empty([nothing]) == "no detections"
    assert why_empty([wrong]) == "no true positives\n1,200 false"
    assert why_empty([nothing, wrong]) == "no true positives\n0 to 1,200 false"


def test_empty_plots_say_so(tmp_path: Path, drawn: list[Any]) -> None:
    curves = {"never": curve(0, 0), "wrong": curve(0, 7), "right": curve(3, 2), "absent": curve(0, 4, positives=0)}
    plot_precision_recall({"eval": curves}, tmp_path / "curves.png")
    plot_precision_recall({"eval": {"absent": curves["absent"]}}, tmp_path / "none.png")
    plot_trends(
        {**diagnosis(SHORT, 0.1), "trends": {name: {} for name in ("all classes", *SHORT)}}, tmp_path / "few.png"
    )
    plot_sensitivity({**diagnosis(SHORT, 0.1), "characteristics": {}}, tmp_path / "sensitivity.png")
    plot_recall([proposals("windows", 0)], tmp_path / "recall.png")
    said = [[text for text, _ in texts_of(figure)] for figure in drawn]
    assert [text for text in said[0] if text.startswith("no ")] == ["no detections", "no true positives\n7 false"]
    assert "no objects to find" in said[1]
    assert "too few false positives" in said[2]
    assert "no class has two subsets with enough objects" in said[3]
    assert "no objects to cover" in said[4]
    assert "nan" not in said[4]
    assert "no true positives" in re.sub(r"<[^>]*>", "", charts.precision_recall("x", {0: curves["wrong"]}))
    assert "nothing to show" in charts.lines("x", [(0, [0, 1], [np.nan, np.nan])], ("IoU", "recall"))
