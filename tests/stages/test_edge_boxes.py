"""EdgeBoxes: edges, their thinning, OpenCV's search, the model's file, and what the stage keeps of it."""

from __future__ import annotations

import gzip
import importlib
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.boxes import has_area
from stages.contract.errors import BadSetting, ChangedInput, StageError
from stages.contract.inputs import Inputs
from stages.contract.settings import build_settings, identity_of
from stages.propose import Settings, edge_boxes, stage
from stages.propose.edge_boxes import find
from stages.propose.edge_map import gradient_edges, interpolated, orientation_of, thinned, triangle_filtered
from stages.propose.methods import METHODS
from stages.propose.structured_forest import Forest, load_forest, model_sha256
from tests.stages.drawn_photos import photo
from tests.stages.forest_files import OPTIONS, STUMPS, write_forest

EDGES = Settings(method="edge-boxes")


def square(width: int = 160, height: int = 120) -> np.ndarray:
    """A bright square at (50, 30, 110, 90) on grey, uint8 RGB."""
    image = np.full((height, width, 3), 60, np.uint8)
    image[30:90, 50:110] = 200
    return image


def proposals_of(image: np.ndarray, settings: Settings = EDGES, **key: Any) -> Any:
    """What EdgeBoxes proposes; a model must be that of the `key`, by default its own."""
    return find(settings, image.shape[1::-1], image, {**METHODS["edge-boxes"].key(settings, None), **key})


# Edges


def test_gradients_are_strongest_at_a_step_and_a_fraction_of_their_99_5th_percentile() -> None:
    edges = gradient_edges(square(), 1.0)
    assert edges.dtype == np.float32
    assert (edges.min(), edges.max()) == (0, 1)
    np.testing.assert_array_equal(np.flatnonzero(edges[60] > 0.999), [49, 50, 109, 110])
    np.testing.assert_allclose(gradient_edges(square()[:, :, [2, 0, 1]], 1.0), edges, atol=1e-5)  # it is grey
    assert not gradient_edges(np.full((9, 12, 3), 77, np.uint8), 1.0).any()


def test_an_edge_of_colour_alone_is_an_edge() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :30], image[:, 30:] = (120, 0, 0), (0, 67, 0)  # about equally light
    assert gradient_edges(image, 1.0)[20, 29:31].min() > 0.9


def test_orientation_by_hand() -> None:
    """0 across a vertical line, pi / 2 across a horizontal one, pi / 4 across one that rises to the right."""
    for line, angle in (("vertical", 0), ("horizontal", np.pi / 2), ("rising", np.pi / 4)):
        edges = np.zeros((41, 41), np.float32)
        if line == "vertical":
            edges[:, 20] = 1
        elif line == "horizontal":
            edges[20] = 1
        else:
            edges[np.arange(41), 40 - np.arange(41)] = 1
        turn = abs(float(orientation_of(edges)[20, 20]) - angle)
        assert min(turn, np.pi - turn) < 0.02, line


def test_the_triangle_by_hand() -> None:
    point = np.zeros((5, 5), np.float32)
    point[2, 2] = 1
    np.testing.assert_allclose(
        triangle_filtered(point, 1) * 16,
        [[0, 0, 0, 0, 0], [0, 1, 2, 1, 0], [0, 2, 4, 2, 0], [0, 1, 2, 1, 0], [0, 0, 0, 0, 0]],
    )


def test_thinning_by_hand() -> None:
    """Of the values across a vertical edge only the highest stays; what does not exceed the limit goes."""
    edges = np.tile(np.array([0, 0.1, 0.5, 0.9, 0.6, 0.2, 0.05, 0.08], np.float32), (5, 1))
    thin = thinned(edges, np.zeros_like(edges), 0.1)
    expected = np.zeros_like(edges)
    expected[:, 3] = 0.9
    np.testing.assert_array_equal(thin, expected)
    weaker = np.tile(np.array([0.9, 0, 0, 0, 0.05, 0, 0, 0.08, 0], np.float32), (5, 1))
    assert thinned(weaker, np.zeros_like(weaker), 0.0)[2].tolist() == weaker[2].tolist()  # 3 pixels apart


def test_interpolation_by_hand() -> None:
    values = np.array([[0, 1], [2, 4]], np.float32)
    x, y = np.array([0, 0.5, 0.5, 9, -1]), np.array([0, 0, 0.5, 9, 0.25])
    np.testing.assert_allclose(interpolated(values, x, y), [0, 0.5, 1.75, 4, 0.5])


@given(arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.floats(0, 1, width=32)))
def test_thinning_only_removes(edges: np.ndarray) -> None:
    orientation = orientation_of(edges)
    assert ((orientation >= 0) & (orientation <= np.float32(np.pi))).all()
    thin = thinned(edges, orientation, 0.0)
    assert ((thin == edges) | (thin == 0)).all()
    assert thin.max() == edges.max()  # nothing exceeds the strongest


def forest_in(path: Path) -> Forest:
    """The forest in a file, whatever its checksum."""
    return load_forest(path, model_sha256(str(path), None))


def test_orientation_and_thinning_are_opencvs(tmp_path: Path) -> None:
    """Those of its structured edge detection, whose smoothing has the same radius, except where rounding decides (on
    the border, whose mixed derivative is 0)."""
    detector = forest_in(write_forest(tmp_path / "model.yml")).detector
    edges = gradient_edges(photo((90, 120)), 1.5)
    orientation = orientation_of(edges)
    theirs = detector.computeOrientation(edges)
    turn = np.abs(orientation - theirs)[1:-1, 1:-1]
    assert np.mean(np.minimum(turn, np.pi - turn) < 1e-3) > 0.99
    thin = thinned(edges, theirs, 0.0)
    assert np.mean((thin > 0) == (detector.edgesNms(edges, theirs, r=2, s=0, m=1.0, isParallel=False) > 0)) > 0.99


def test_processors_do_not_matter() -> None:
    """NumPy's functions for the newest processors and for the oldest give the same edges."""
    code = (
        "import hashlib; from tests.stages.drawn_photos import photo; from stages.propose.edge_map import *\n"
        "for seed in range(3):\n"
        "    edges = gradient_edges(photo((120, 160), seed=seed), 1.5)\n"
        "    orientation = orientation_of(edges)\n"
        "    for values in (edges, orientation, thinned(edges, orientation, 0.1)):\n"
        "        print(hashlib.sha256(values.tobytes()).hexdigest())"
    )
    numpy_core = importlib.import_module("numpy._core._multiarray_umath")
    extensions = " ".join(name for name in numpy_core.__cpu_dispatch__ if numpy_core.__cpu_features__[name])
    printed = [
        subprocess.run([sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, check=True)
        for variables in ({}, {"NPY_DISABLE_CPU_FEATURES": extensions})
    ]
    newest, oldest = (process.stdout.split() for process in printed)
    assert len(newest) == 9
    assert oldest == newest


# The search


def test_boxes_are_those_of_opencv_called_directly() -> None:
    image = photo((200, 280))
    edges = gradient_edges(image, EDGES.gradient_sigma)
    orientation = orientation_of(edges)
    thin = thinned(edges, orientation, 0.1)
    rectangles, scores = cv2.ximgproc.createEdgeBoxes().getBoundingBoxes(thin, orientation)  # OpenCV's defaults
    assert 100 < len(rectangles) < 10_000  # below its own limit
    proposals = proposals_of(image)
    expected = [(x, y, x + width, y + height) for x, y, width, height in np.asarray(rectangles).tolist()]
    assert [tuple(box) for box in proposals.boxes] == expected
    np.testing.assert_array_equal(proposals.scores, np.ravel(scores))


@pytest.mark.parametrize(
    ("ours", "theirs", "value"),
    [
        ("alpha", "alpha", 0.8),
        ("beta", "beta", 0.5),
        ("eta", "eta", 0.99),
        ("min_score", "minScore", 0.1),
        ("edge_min_mag", "edgeMinMag", 0.3),
        ("edge_merge_thr", "edgeMergeThr", 0.2),
        ("cluster_min_mag", "clusterMinMag", 3.0),
        ("max_aspect_ratio", "maxAspectRatio", 1.0),
        ("min_box_area", "minBoxArea", 4000.0),
        ("gamma", "gamma", 0.5),
        ("kappa", "kappa", 1.0),
    ],
)
def test_each_setting_is_opencvs(ours: str, theirs: str, value: float) -> None:
    image = photo((100, 140), seed=3)
    settings = build_settings(Settings, {"method": "edge-boxes", ours: value})
    edges = gradient_edges(image, EDGES.gradient_sigma)
    orientation = orientation_of(edges)
    thin = thinned(edges, orientation, settings.edge_min_mag)
    option: dict[str, Any] = {theirs: value}
    rectangles, scores = cv2.ximgproc.createEdgeBoxes(**option).getBoundingBoxes(thin, orientation)
    proposals = proposals_of(image, settings)
    np.testing.assert_array_equal(proposals.boxes[:, :2], np.reshape(rectangles, (-1, 4))[:, :2])
    np.testing.assert_array_equal(proposals.scores, np.ravel(scores))
    default = proposals_of(image)
    assert not np.array_equal(proposals.boxes, default.boxes) or not np.array_equal(proposals.scores, default.scores)


def test_it_finds_the_object() -> None:
    proposals = proposals_of(square(), replace(EDGES, gradient_sigma=1.5))
    best = proposals.boxes[stage.rows_by_score(proposals)[0]]
    np.testing.assert_allclose(best, [50, 30, 110, 90], atol=5)


def test_threads_do_not_matter() -> None:
    images = [photo((80, 110), seed=seed) for seed in range(4)]
    alone = [proposals_of(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(proposals_of, images * 3))
    for number, proposals in enumerate(together):
        np.testing.assert_array_equal(proposals.boxes, alone[number % 4].boxes)
        np.testing.assert_array_equal(proposals.scores, alone[number % 4].scores)


@pytest.mark.parametrize(
    ("width", "height"), [(1, 1), (1, 300), (300, 1), (2, 2), (31, 31), (40_000, 9), (9, 4000), (64, 48), (6000, 4000)]
)
def test_boxes_of_any_image_lie_in_it(width: int, height: int) -> None:
    pattern = photo((max(1, min(height, 60)), max(1, min(width, 90))))
    image = cv2.resize(pattern, (width, height), interpolation=cv2.INTER_NEAREST)
    proposals = proposals_of(image, replace(EDGES, edge_max_side=400))
    assert proposals.boxes.dtype == proposals.scores.dtype == np.float32
    assert has_area(proposals.boxes).all()
    assert (proposals.boxes >= 0).all()
    assert (proposals.boxes <= [width, height, width, height]).all()
    assert (len(proposals.boxes) > 0) == (min(width, height) > 40)  # the smallest windows have 1,000 pixels


@pytest.mark.parametrize("size", [(1, 1), (50, 80), (300, 2)])
def test_an_image_of_one_colour_has_no_boxes(size: tuple[int, int]) -> None:
    proposals = proposals_of(np.full((*size, 3), 128, np.uint8))
    assert proposals.boxes.shape == (0, 4)
    assert proposals.scores.shape == (0,)


def test_large_images_are_searched_smaller_and_mapped_back() -> None:
    large = cv2.resize(square(), None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    proposals = proposals_of(large, replace(EDGES, edge_max_side=160))
    np.testing.assert_array_equal(proposals.boxes, 4 * proposals_of(square()).boxes)
    assert edge_boxes.advice(EDGES, (4000, 3000)) == ""
    assert "is searched at 4000 x 3000 pixels" in edge_boxes.advice(replace(EDGES, edge_max_side=9999), (4000, 3000))


def test_opencv_without_contrib_modules_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    edge_boxes.check_available()
    monkeypatch.delattr(cv2.ximgproc, "createEdgeBoxes")
    with pytest.raises(StageError, match="install opencv-contrib-python-headless"):
        edge_boxes.check_available()


# A structured forest


def test_a_forests_edges_by_hand(tmp_path: Path) -> None:
    """The tiny forest draws a vertical line where the gradient is strong: at the square's sides, not above it."""
    forest = forest_in(write_forest(tmp_path / "model.yml.gz"))
    edges = forest.edges(square())
    assert edges.shape == (120, 160)
    assert edges[60, 50] == edges.max() > 1
    assert not edges[:10].any()
    assert forest.edges(square()[:1, :1]).shape == (1, 1)
    assert forest.edges(square()[:33, :20]).shape == (33, 20)


def test_a_model_changes_the_boxes_and_its_content_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write_forest(tmp_path / "first.yml.gz")
    (tmp_path / "second.yml.gz").write_bytes(first.read_bytes())
    other = write_forest(tmp_path / "other.yml", {**STUMPS, "thresholds": [[0.6, 0, 0]] * 2})
    monkeypatch.setenv("MODELS", str(tmp_path))
    named = [
        replace(EDGES, model=model) for model in ("$MODELS/first.yml.gz", str(tmp_path / "second.yml.gz"), str(other))
    ]
    keys = [stage.identity(settings, Inputs()) for settings in named]
    assert keys[0] == keys[1] != keys[2]
    assert identity_of(named[0]) == identity_of(named[2])
    assert keys[0]["edges"] == "structured forest"
    plain = stage.identity(EDGES, Inputs())
    assert plain["edges"] == "image gradients"
    assert "order" not in plain
    proposals = proposals_of(square(), named[0], **keys[0])
    assert len(proposals.boxes) > 10
    assert not np.array_equal(proposals.boxes, proposals_of(square()).boxes)
    with pytest.raises(ChangedInput):
        proposals_of(square(), named[2], **keys[0])


@pytest.mark.parametrize(
    ("tables", "options", "message"),
    [
        ({}, {}, "it has no childs"),
        ({**STUMPS, "childs": [[9, 0, 0]] * 2}, OPTIONS, "childs leads out of its tree"),
        ({**STUMPS, "childs": [[1, 0, 0]] * 2}, OPTIONS, "childs leads out of its tree"),
        ({**STUMPS, "childs": [[2, 0, 0]]}, OPTIONS, "different numbers of nodes"),
        ({**STUMPS, "featureIds": [[7228, 0, 0]] * 2}, OPTIONS, "featureIds names features that there are not"),
        ({**STUMPS, "featureIds": [[0.5, 0, 0]] * 2}, OPTIONS, "featureIds holds something other"),
        ({**STUMPS, "edgeBoundaries": [[0, 0, 0], [208, 208, 208]]}, OPTIONS, "edgeBoundaries does not fit"),
        ({**STUMPS, "edgeBoundaries": [[0, 0, 0], [208, 208, 208], [417]]}, OPTIONS, "edgeBoundaries does not fit"),
        ({**STUMPS, "edgeBins": [[3328], [0] * 415]}, OPTIONS, "edgeBins names places outside"),
        (STUMPS, {**OPTIONS, "stride": 0}, "its option stride is 0"),
        (STUMPS, {**OPTIONS, "numberOfTreesToEvaluate": 3}, "its options do not fit each other"),
        (STUMPS, {name: OPTIONS[name] for name in list(OPTIONS)[:5]}, "its option gradientSmoothingRadius is missing"),
    ],
)
def test_a_model_that_would_lead_opencv_astray_is_refused(
    tmp_path: Path, tables: Any, options: Any, message: str
) -> None:
    path = write_forest(tmp_path / "model.yml", tables, options)
    with pytest.raises(StageError, match=rf"model\.yml: is not an intact structured-forests model .*{message}"):
        proposals_of(square(), replace(EDGES, model=str(path)))


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "binary", "empty"])
def test_a_damaged_model_file_is_named(tmp_path: Path, damage: str) -> None:
    content = write_forest(tmp_path / "whole.yml.gz").read_bytes()
    damaged = {
        "cut": content[: len(content) // 2],
        "flipped": content[:90] + bytes([content[90] ^ 255]) + content[91:],
        "text": b"no model",
        "binary": bytes(range(256)),
        "empty": b"",
    }[damage]
    path = tmp_path / "model.yml.gz"
    path.write_bytes(damaged)
    with pytest.raises(StageError, match=r"model\.yml\.gz: is not an intact structured-forests model"):
        proposals_of(square(), replace(EDGES, model=str(path)))


def test_a_model_cut_anywhere_is_refused(tmp_path: Path) -> None:
    """Also where the text that is left is well-formed."""
    text = gzip.decompress(write_forest(tmp_path / "whole.yml.gz").read_bytes())
    for end in range(0, len(text) - 20, 97):
        path = tmp_path / f"model-{end}.yml"
        path.write_bytes(text[:end])
        with pytest.raises(StageError, match="is not an intact"):
            forest_in(path)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    settings = replace(EDGES, model=str(tmp_path / "none.yml.gz"))
    with pytest.raises(StageError, match=r"none\.yml\.gz: no such model file; correct propose\.model"):
        stage.identity(settings, Inputs())
    with pytest.raises(StageError, match=r"is a folder, not a model file; correct propose\.model"):
        stage.identity(replace(EDGES, model=str(tmp_path)), Inputs())
    with pytest.raises(StageError, match=r"the environment variable RCNN_NOWHERE is not set; .* propose\.model"):
        stage.identity(replace(EDGES, model="$RCNN_NOWHERE/model.yml.gz"), Inputs())


# Settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"alpha": 0.4}, "alpha = 0.4 must be at least 0.5"),
        ({"beta": 0.0}, "beta = 0.0 must be more than 0"),
        ({"edge_max_side": 10_000}, "edge_max_side = 10000 must be at most 9999"),
        ({"seed": 1}, "'seed' is a setting of method = 'selective-search'"),
        ({"min_side": 9}, "'min_side' is a setting of method = 'selective-search'"),
        ({"model": "m.yml", "gradient_sigma": 1.0}, "gradient_sigma is for edges without a model"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSetting, match=message):
        build_settings(Settings, {"method": "edge-boxes", **values})


def test_its_settings_are_no_part_of_other_methods_keys() -> None:
    names = {"alpha", "beta", "gradient_sigma", "edge_max_side"}
    assert not names & set(identity_of(Settings()))
    assert names <= set(identity_of(EDGES))


def test_it_says_which_edges_it_uses(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "stages.propose"):
        stage.begin(EDGES)
    assert [record.getMessage() for record in caplog.records] == [
        "EdgeBoxes takes image gradients for edges; the paper takes those of a structured forest (propose.model)"
    ]
    assert (
        edge_boxes.announcement(replace(EDGES, model="m.yml.gz"))
        == "EdgeBoxes takes the edges of the structured forest m.yml.gz"
    )


def test_no_run_is_needed_to_know_its_columns() -> None:
    assert list(stage.schema(EDGES, Inputs()).rows) == ["boxes", "scores"]
    assert list(stage.schema(Settings(), Inputs()).rows) == ["boxes"]
