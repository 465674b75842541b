"""`cache = false` of extract and propose, by the real commands: what is made from features or proposals that are not
kept is the same, bytes and keys."""

import os
import shutil
import signal
import subprocess
import time

import pytest

from tests.built_once import BuiltOnce
from tests.in_process import rcnn
from tests.pipeline import command, contents, run_small

FALSE = ("--set", "extract.cache=false")
NO_PROPOSALS = ("--set", "propose.cache=false")
PARTS = ("--part-size", 2)


@pytest.fixture(scope="module")
def cached(built_once: BuiltOnce):
    """(recipe, work folder) of a run that caches everything, in parts of two items."""

    def build(folder):
        built_once.copy("small", run_small, folder)
        for stage in (folder / "work" / "caches").iterdir():
            if stage.name != "pretrain":  # which has one item
                shutil.rmtree(stage)
        rcnn("run", folder / "small.toml", *PARTS, work=folder / "work")

    folder = built_once.folder("small-parts", build)
    return folder / "small.toml", folder / "work"


@pytest.fixture
def trained(cached, tmp_path):
    """(recipe, a copy of the work folder without what is made from the test set's features)."""
    recipe, work = cached
    shutil.copytree(work, tmp_path / "work", ignore=shutil.ignore_patterns("detect", "eval", "results"))
    shutil.rmtree(next((tmp_path / "work" / "caches" / "extract").glob("small-test.*")))
    return recipe, tmp_path / "work"


@pytest.fixture
def without_proposals(trained):
    """As `trained`, without any proposals either."""
    shutil.rmtree(trained[1] / "caches" / "propose")
    return trained


def assert_same_but_for_features(work, cached):
    expected, found = contents(cached), contents(work)
    (missing,) = set(expected) - set(found)
    assert (cached / "caches" / "extract" / missing).exists()
    assert missing.startswith("small-test.")
    assert found == {name: value for name, value in expected.items() if name != missing}


@pytest.mark.parametrize("jobs", [1, 2])
def test_detections_are_the_same_and_no_features_are_kept(trained, cached, jobs):
    recipe, work = trained
    done = rcnn("run", recipe, "--jobs", jobs, *PARTS, *FALSE, work=work)
    assert "mAP, 11-point" in done.stdout
    assert "extract@train: cached despite" not in done.stderr  # it is complete: nothing is said
    assert_same_but_for_features(work, cached[1])
    status = rcnn("status", recipe, *FALSE, work=work)
    assert "extract@test   not cached (cache = false): computed by detect@test" in status.stdout
    assert "everything is complete" in rcnn("run", recipe, *FALSE, work=work).stdout


def test_a_killed_detection_goes_on_where_it_was(trained, cached):
    recipe, work = trained
    line, environment = command("detect", recipe, "--jobs", 1, *PARTS, *FALSE, work=work)
    process = subprocess.Popen(line, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    while not (there := written(work)) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    rcnn("run", recipe, *PARTS, *FALSE, work=work)
    assert there.items() < written(work).items()
    assert_same_but_for_features(work, cached[1])


def written(work):
    """The parts of the detections and when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in (work / "caches" / "detect").glob("*/part-*[0-9].h5")}


def test_shards_and_run_only(trained, cached):
    recipe, work = trained
    done = rcnn("run", recipe, "--only", "extract@test", *FALSE, work=work)
    assert "extract@test: not cached (cache = false): computed by detect@test" in done.stderr
    for shard in ("2/2", "1/2"):
        rcnn("run", recipe, "--only", "detect@test", "--shard", shard, "--jobs", 1, *PARTS, *FALSE, work=work)
    rcnn("run", recipe, "--only", "eval", *PARTS, *FALSE, work=work)
    assert_same_but_for_features(work, cached[1])


def test_a_damaged_part_upstream_is_made_again(trained, cached):
    recipe, work = trained
    part = next((work / "caches" / "propose").glob("small-test.*")) / "part-00001.h5"
    os.truncate(part, 1000)
    done = rcnn("run", recipe, *PARTS, *FALSE, work=work)
    assert f"{part}: damaged" in done.stderr
    assert_same_but_for_features(work, cached[1])


def test_features_that_are_there_are_read(cached, tmp_path):
    """With the features of another run complete, no network is needed: the images may be gone."""
    recipe, work = cached
    shutil.copytree(work, tmp_path / "work", ignore=shutil.ignore_patterns("detect", "eval"))
    for weights in (tmp_path / "work" / "caches" / "pretrain").glob("*/part-*.h5"):
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)
    done = rcnn("run", recipe, "--only", "detect@test", *PARTS, *FALSE, work=tmp_path / "work")
    assert "damaged" not in done.stderr
    assert "detect@test: done" in done.stderr


def test_wait_and_submit_know_it(trained, tmp_path):
    recipe, work = trained
    refused = rcnn("wait", recipe, "extract@test", *FALSE, work=work, check=False)
    assert refused.returncode == 2
    assert "computed by detect@test; wait for that" in refused.stderr
    rcnn("wait", recipe, "extract", "--timeout", 0, *FALSE, work=work)
    cluster = tmp_path / "cluster.toml"
    cluster.write_text("[detect]\ngpus = 1\n")
    scripts = rcnn("submit", recipe, "--dry-run", "--cluster", cluster, *FALSE, work=work).stdout
    assert scripts.count("#!/bin/bash") == 2
    assert "extract@test" not in scripts
    assert "--set extract.cache=false" in scripts


def test_features_of_proposals_that_are_not_kept(without_proposals, cached):
    """They are the same, in shards and by several processes; what has to read the proposals says where they are not."""
    recipe, work = without_proposals
    extract = ("extract", recipe, "--split", "test", "--jobs", 2, *PARTS, *NO_PROPOSALS)
    rcnn(*extract, "--shard", "2/2", work=work)
    assert "extract@test: 4 images, resuming: 4 of 8 are done" in rcnn(*extract, work=work).stderr
    expected, found = contents(cached[1]), contents(work)
    assert {name: expected[name] for name in found} == found
    assert not (work / "caches" / "propose").exists()
    status = rcnn("status", recipe, *NO_PROPOSALS, work=work, check=False).stdout
    assert "propose@test   not cached (cache = false): computed by extract@test" in status
    refused = rcnn("recall", recipe, *NO_PROPOSALS, work=work, check=False)
    assert refused.returncode == 2
    assert (
        "propose@test: not cached (cache = false): computed by extract@test; to measure recall, set "
        "propose.cache = true and run it" in refused.stderr
    )
    of_split = rcnn("recall", recipe, "--set", "propose.test.cache=false", work=work, check=False).stderr
    assert "; to measure recall, set propose.test.cache = true and run it" in of_split


def test_detections_with_neither_proposals_nor_features_kept(without_proposals, cached):
    recipe, work = without_proposals
    rcnn("run", recipe, *PARTS, *FALSE, *NO_PROPOSALS, work=work)
    expected, found = contents(cached[1]), contents(work)
    not_kept = [*(cached[1] / "caches/propose").iterdir(), *(cached[1] / "caches/extract").glob("small-test.*")]
    assert set(expected) - set(found) == {folder.name for folder in not_kept}
    assert {name: expected[name] for name in found} == found
