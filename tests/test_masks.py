"""`propose.masks = true` by the real commands: the same whatever the processes and however often killed; what follows
is unchanged; and `rcnn explain` draws the regions."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from cache import Reader
from rcnn_cli.looking.explanation import Chosen, Explained, choose, explain_image
from rcnn_cli.looking.explanation_lines import tell_lines
from rcnn_cli.looking.explanation_sheet import explanation_sheet
from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import load_recipe
from stages.contract.execution import Execution
from tests.built_once import BuiltOnce
from tests.in_process import rcnn
from tests.pipeline import SMALLER, command, run_small, write_recipe

MASKS = ("--set", "propose.masks=true")
PARTS = ("--part-size", 2)


@pytest.fixture(scope="module")
def masked(built_once: BuiltOnce) -> tuple[Path, Path]:
    """(recipe, work folder) of a run without masks, and of one with masks."""

    def build(folder: Path) -> None:
        built_once.copy("small", run_small, folder)
        rcnn("run", folder / "small.toml", *MASKS, *PARTS, work=folder / "work")

    folder = built_once.folder("masked", build)
    return folder / "small.toml", folder / "work"


def caches_of(work: Path, stage: str, label: str = "small-test") -> dict[bool, Path]:
    """The folders of a stage's caches, by whether they, or what they are made from, have masks."""
    folders = list((work / "caches" / stage).glob(f"{label}.*"))
    if stage == "propose":
        return {"masks/counts" in Reader(folder).schema.columns(): folder for folder in folders}
    own = {Reader(folder).key: masks for masks, folder in caches_of(work, "propose", label).items()}
    return {own[Reader(folder).manifest["inputs"]["proposals"]]: folder for folder in folders}


def parts_of(work: Path) -> dict[str, bytes]:
    """The parts of the proposals with masks."""
    folder = caches_of(work, "propose")[True]
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*.h5"))}


def explained(chosen: Chosen, image: str, split: str | None) -> tuple[Explained, np.ndarray]:
    """An explained image, and its sheet."""
    made = explain_image(chosen, image, split, Execution())
    return made, explanation_sheet(made, tell_lines(made, None, None))


def test_masks_change_nothing_but_their_cache(masked: tuple[Path, Path]) -> None:
    _, work = masked
    for stage in ("propose", "extract"):
        folders = caches_of(work, stage)
        assert set(folders) == {True, False}, "the key tells them apart"
        plain, with_masks = (Reader(folders[masks]) for masks in (False, True))
        columns = ["boxes", "pool4"] if stage == "extract" else ["boxes", "image_size"]
        for image_id in plain.item_ids:
            for name, values in plain.read(image_id, columns).items():
                np.testing.assert_array_equal(with_masks.read(image_id, columns)[name], values)


def test_inspect_shows_the_masks(masked: tuple[Path, Path]) -> None:
    printed = rcnn("inspect", caches_of(masked[1], "propose")[True], work=masked[1]).stdout
    assert "mask_end: uint32 []" in printed
    assert "masks/counts: S1 []" in printed
    assert '"masks": true' in printed
    assert (
        "masks/counts: |S1 ["
        in rcnn("inspect", caches_of(masked[1], "propose")[True] / "data.h5", work=masked[1]).stdout
    )


def test_several_processes_and_kills_change_nothing(masked: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, work = masked
    shutil.copytree(work / "datasets", tmp_path / "work" / "datasets")
    line, environment = command("propose", recipe, *MASKS, *PARTS, "--jobs", 1, work=tmp_path / "work")
    process = subprocess.Popen(line, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    caches = tmp_path / "work" / "caches" / "propose"
    while not list(caches.glob("*/part-*.h5")) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    rcnn("propose", recipe, *MASKS, *PARTS, "--jobs", 2, work=tmp_path / "work")
    assert parts_of(tmp_path / "work") == parts_of(work)


def test_masks_of_proposals_that_are_not_kept_leave_the_features_as_they_are(
    masked: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe, work = masked
    shutil.copytree(work, tmp_path / "work", ignore=shutil.ignore_patterns("propose", "detect", "eval", "results"))
    features = {path.name: path for path in (work / "caches" / "extract").glob("small-test.*")}
    name = caches_of(work, "extract")[True].name
    shutil.rmtree(tmp_path / "work" / "caches" / "extract" / name)
    rcnn("extract", recipe, *MASKS, *PARTS, "--set", "propose.cache=false", work=tmp_path / "work")
    assert not (tmp_path / "work" / "caches" / "propose").exists()
    made, expected = Reader(tmp_path / "work" / "caches" / "extract" / name), Reader(features[name])
    for image_id, record in made.records():
        for column, values in expected.read(image_id).items():
            np.testing.assert_array_equal(record[column], values)


def test_explain_draws_the_regions(masked: tuple[Path, Path], tmp_path: Path) -> None:
    """From the cache, of a photo from the photo, with the boxes' own regions; without masks, boxes alone."""
    _, work = masked
    recipe = write_recipe(tmp_path, SMALLER.replace("max_boxes = 60", "max_boxes = 60\nmasks = true"))
    chosen = choose(Graph(load_recipe(recipe), work), None, None)
    plain = choose(Graph(load_recipe(write_recipe(tmp_path)), work), None, None)
    image = chosen.graph.dataset("test").image_ids[1]
    with_regions, sheet = explained(chosen, image, "test")
    for proposal, box in enumerate(with_regions.trace.scored.boxes):
        region = with_regions.region(proposal)
        assert region is not None
        assert region.shape == with_regions.pixels.shape[:2]
        rows, columns = np.nonzero(region)
        around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(around, box, atol=2)  # searched at another size
    without, boxes_alone = explained(plain, image, "test")
    assert without.region(0) is None
    assert sheet.shape == boxes_alone.shape
    assert 0.001 < (sheet != boxes_alone).mean() < 0.2
    photo = next((work / "datasets").glob(f"shapes-v1-*/JPEGImages/{image}.jpg"))
    of_photo, _ = explained(chosen, str(photo), None)
    assert of_photo.proposals is not None
    assert {name: values.tobytes() for name, values in of_photo.proposals.items()} == {
        name: values.tobytes() for name, values in (with_regions.proposals or {}).items()
    }
