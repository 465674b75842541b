"""The real commands on a small recipe: run, resume, split, repair, explain. What is to be killed or interrupted runs in
a process of its own, the rest in this one."""

import contextlib
import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import h5py
import psutil
import pytest

from cache.parts import write_part
from tests.built_once import BuiltOnce
from tests.in_process import rcnn
from tests.pipeline import SMALLER, STAGES, command, contents, run_small, write_recipe

KILLS = 6


@pytest.fixture(scope="module")
def finished(built_once: BuiltOnce, tmp_path_factory):
    """(recipe, work folder, what was printed) of an undisturbed run with one process."""
    folder = built_once.copy("small", run_small, tmp_path_factory.mktemp("run"))
    return folder / "small.toml", folder / "work", (folder / "printed.txt").read_text()


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, to be spoilt."""
    recipe, work, _ = finished
    shutil.copytree(work, tmp_path / "work")
    return recipe, tmp_path / "work"


def test_a_run_ends_in_a_table_files_and_pictures(finished):
    _, work, printed = finished
    assert "mAP, 11-point" in printed
    results = work / "results" / "small"
    assert (results / "precision-recall.png").stat().st_size > 10_000
    assert (results / "eval" / "detections.png").stat().st_size > 10_000
    summary = json.loads((results / "eval" / "results.json").read_text())
    assert 0 <= summary["map_11"] <= 1
    assert len(list((results / "eval").glob("comp4_det_test_*.txt"))) == 10
    heading, *rows = csv.reader((results / "eval" / "confusion.csv").read_text().splitlines())
    assert heading[0] == "true class"
    objects = {name: result["positives"] for name, result in summary["classes"].items()}
    assert {row[0]: sum(map(int, row[1:-1])) for row in rows[:-1]} == objects
    for name in ("confusion", "thresholds", "calibration"):
        assert (results / "eval" / f"{name}.png").stat().st_size > 5_000
        assert len((results / "eval" / f"{name}.csv").read_text().splitlines()) > 1


def test_the_threshold_of_the_confusion_matrix_makes_no_new_cache(copied):
    recipe, work = copied
    table = work / "results/small/eval/confusion.csv"
    before = table.read_text()
    rcnn("eval", recipe, "--confusion-threshold", 1000, work=work)
    assert len(list((work / "caches" / "eval").iterdir())) == 1
    rows = list(csv.reader(table.read_text().splitlines()))[1:]
    assert all(set(row[1:-2]) == {"0"} for row in rows)
    assert {row[-1] for row in rows[:-1]} == {"1000.0"}
    rcnn("eval", recipe, work=work)
    assert table.read_text() == before


def test_a_second_run_does_nothing_and_says_so(finished):
    recipe, work, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (work / "caches").rglob("*.h5")}
    again = rcnn("run", recipe, work=work)
    assert "everything is complete; nothing to do" in again.stdout
    assert again.stderr.count(", skipped: ") == 9
    assert {path: path.stat().st_mtime_ns for path in (work / "caches").rglob("*.h5")} == before


def test_status_of_a_finished_recipe_is_success_and_a_changed_setting_is_told(finished):
    recipe, work, _ = finished
    assert rcnn("status", recipe, work=work).stdout.count("complete (") == 9
    changed = rcnn("status", recipe, "--set", "extract.padding=0", work=work, check=False)
    assert changed.returncode == 1
    lines = [" ".join(line.split()) for line in changed.stdout.splitlines()]
    assert "extract@test missing (extract.padding 4 -> 0)" in lines
    assert "train-svm missing (features changed upstream)" in lines
    states = json.loads(rcnn("status", recipe, "--json", work=work).stdout)
    assert {state["state"] for state in states} == {"complete"}


def test_any_hdf5_reader_sees_one_file(finished):
    _, work, _ = finished
    folder = next((work / "caches" / "extract").glob("small-train.*"))
    with h5py.File(folder / "data.h5") as file:
        assert len(file["image_ids"]) == 12
        assert file["pool4"].shape[0] == file["offsets"][-1] == len(file["boxes"])
        assert file["pool4"].dtype == "float16"


def test_sigkill_at_random_moments_of_a_run_changes_nothing(finished, tmp_path):
    """Of the whole command, its start included; test_chaos.py kills each stage at work, twenty times in all."""
    recipe, work, _ = finished
    shutil.copytree(work / "datasets", tmp_path / "work" / "datasets")
    moment, killed = random.Random(1), 0
    for _ in range(KILLS):
        line, environment = command("run", recipe, "--jobs", 1, work=tmp_path / "work")
        process = subprocess.Popen(
            line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            process.wait(moment.uniform(0.5, 4.5))
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
    assert killed >= 2
    rcnn("run", recipe, work=tmp_path / "work")
    assert contents(tmp_path / "work") == contents(work)


@pytest.mark.parametrize(("shards", "jobs"), [(2, 2), (5, 1)])
def test_shards_and_several_processes_change_nothing(finished, tmp_path, shards, jobs):
    recipe, work, _ = finished
    shutil.copytree(work / "datasets", tmp_path / "work" / "datasets")
    for stage in STAGES:
        for index in range(1, shards + 1):
            options = ("--shard", f"{index}/{shards}", "--jobs", jobs)
            rcnn(stage, recipe, *options, work=tmp_path / "work")
    assert contents(tmp_path / "work") == contents(work)


def test_two_runs_at_once_share_the_work(finished, tmp_path):
    recipe, work, _ = finished
    line, environment = command("run", recipe, "--jobs", 1, work=tmp_path / "work")
    processes = [subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                 for _ in range(2)]  # fmt: skip
    for process in processes:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, output + errors
    assert contents(tmp_path / "work") == contents(work)


@pytest.mark.parametrize("stage", ["propose", "extract", "detect"])
def test_a_flipped_byte_is_named_and_its_part_alone_made_again(copied, finished, stage):
    recipe, work = copied
    part = next((work / "caches" / stage).glob("small-t*")) / "part-00000.h5"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 4
    part.write_bytes(content)
    verified = rcnn("cache", "verify", work=work, check=False)
    assert verified.returncode == 1
    assert f"damaged  {part}" in verified.stdout
    status = rcnn("status", recipe, work=work, check=False)
    assert "damaged part 0" in status.stdout
    again = rcnn("run", recipe, work=work)
    assert "resuming" in again.stderr or "images" in again.stderr
    assert contents(work) == contents(finished[1])


def test_damage_that_shows_only_on_reading_is_repaired_on_the_way(copied, finished):
    recipe, work = copied
    folder = next((work / "caches" / "extract").glob("small-train.*"))
    with h5py.File(folder / "part-00001.h5", "r") as file:
        place = 512 + file["pool4"].id.get_chunk_info(0).byte_offset + 100
    part = folder / "part-00001.h5"
    content = bytearray(part.read_bytes())
    content[place] ^= 1
    part.write_bytes(content)
    shutil.rmtree(next((work / "caches" / "train-svm").iterdir()))
    again = rcnn("run", recipe, work=work)
    assert "part-00001.h5: damaged" in again.stderr
    assert contents(work) == contents(finished[1])


def test_a_lost_plan_is_written_again_without_making_any_part_again(copied, finished):
    recipe, work = copied
    folder = next((work / "caches" / "extract").glob("small-train.*"))
    (folder / "plan.json").unlink()
    shutil.rmtree(next((work / "caches" / "train-svm").iterdir()))
    before = {path: path.stat().st_mtime_ns for path in folder.glob("part-*.h5")}
    rcnn("run", recipe, work=work)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("part-*.h5")} == before
    assert contents(work) == contents(finished[1])


def test_a_stage_command_sets_a_damaged_part_of_its_unfinished_cache_aside(copied, finished):
    recipe, work = copied
    folder = next((work / "caches" / "train-bbox").iterdir())
    (folder / "manifest.json").unlink()
    os.truncate(folder / "part-00003.h5", 1000)
    again = rcnn("train-bbox", recipe, work=work)
    assert "part-00003.h5: damaged" in again.stderr
    assert "resuming: 9 of 10 are done" in again.stderr
    assert contents(work) == contents(finished[1])


def test_a_flipped_bit_in_a_readable_header_is_found_by_verify(copied, finished):
    recipe, work = copied
    part = next((work / "caches" / "extract").glob("small-train.*")) / "part-00001.h5"
    content = bytearray(part.read_bytes())
    content[content.index(b'"stage": "extract"') + 11] ^= 1
    part.write_bytes(content)
    assert f"damaged  {part}" in rcnn("cache", "verify", work=work, check=False).stdout
    rcnn("run", recipe, work=work)
    assert contents(work) == contents(finished[1])


def test_plans_manifests_views_and_parts_of_another_cache_are_named_and_mended(copied, finished):
    """Nothing that is sound is made again, and no damaged number is shown."""
    recipe, work = copied
    folder = {one: next((work / "caches").glob(one)) for one in
              ("extract/small-train.*", "eval/*", "detect/*", "train-svm/*", "propose/small-test.*")}  # fmt: skip
    plan, manifest = folder["extract/small-train.*"] / "plan.json", folder["eval/*"] / "manifest.json"
    for path, place in ((plan, b'"train_00003'), (manifest, b'"map_11": 0.0')):
        changed = bytearray(path.read_bytes())
        changed[changed.index(place) + len(place) - 1] ^= 1
        path.write_bytes(changed)
    (folder["detect/*"] / "data.h5").unlink()
    os.truncate(folder["train-svm/*"] / "data.h5", 700)
    foreign = folder["propose/small-test.*"] / "part-00000.h5"
    header, content = json.loads(foreign.read_bytes()[:512]), foreign.read_bytes()[512:]
    kept = {name: header[name] for name in ("stage", "part", "items", "compression")}
    write_part(foreign, {**kept, "key": header["key"][::-1]}, content)
    before = {path: path.stat().st_mtime_ns for path in work.rglob("part-*.h5")}

    status = rcnn("status", recipe, work=work, check=False)
    assert status.returncode == 1
    for words in (
        "damaged plan.json",
        "damaged manifest.json",
        "data.h5 (the file is missing)",
        "bytes of",
        "damaged part 0",
    ):
        assert words in status.stdout
    told = rcnn("run", recipe, work=work).stderr
    for path in (plan, manifest, folder["detect/*"] / "data.h5", folder["train-svm/*"] / "data.h5"):
        assert str(path) in told
    assert contents(work) == contents(finished[1])
    assert {path: path.stat().st_mtime_ns for path in before if path.exists()} == before | {
        foreign: foreign.stat().st_mtime_ns
    }
    assert "0 damaged files" in rcnn("cache", "verify", work=work).stdout
    flipped = bytearray(manifest.read_bytes())
    flipped[-100] ^= 1
    manifest.write_bytes(flipped)
    verified = rcnn("cache", "verify", work=work, check=False)
    assert (verified.returncode, "1 damaged file;" in verified.stdout) == (1, True)
    assert f"damaged  {manifest}" in verified.stdout


def test_a_stage_alone_says_what_must_be_run_first(finished, tmp_path):
    recipe = finished[0]
    done = rcnn("detect", recipe, work=tmp_path / "work", check=False)
    assert done.returncode == 2
    assert "needs extract@test, which is not complete" in done.stderr
    assert "Traceback" not in done.stderr


def test_force_makes_a_cache_anew(copied, finished):
    recipe, work = copied
    before = {path.name: path.stat().st_mtime_ns for path in (work / "caches" / "train-bbox").rglob("part-*.h5")}
    done = rcnn("train-bbox", recipe, "--force", work=work)
    assert "--force removes" in done.stderr
    after = {path.name: path.stat().st_mtime_ns for path in (work / "caches" / "train-bbox").rglob("part-*.h5")}
    assert all(after[name] > before[name] for name in before)
    assert contents(work) == contents(finished[1])


def test_settings_are_options_of_their_stage(copied):
    recipe, work = copied
    strict = rcnn("eval", recipe, "--iou", 0.7, work=work)
    assert "@ 0.7" in strict.stdout
    assert len(list((work / "caches" / "eval").iterdir())) == 2
    wrong = rcnn("eval", recipe, "--iou", 1.5, work=work, check=False)
    assert (wrong.returncode, "iou = 1.5 must be at most 1" in wrong.stderr) == (2, True)


def test_a_table_more_diagnoses_the_errors_from_the_caches_that_are_there(copied):
    recipe, work = copied
    recipe = write_recipe(work, SMALLER + "[diagnose]\n")
    told = rcnn("diagnose", recipe, "--iou", 0.6, work=work)
    assert "top-ranked false positives" in told.stdout
    assert len(list((work / "caches" / "diagnose").iterdir())) == 1
    assert len(list((work / "caches" / "detect").iterdir())) == 1
    results = work / "results" / "small" / "diagnose"
    assert {path.name for path in results.iterdir()} == {
        "made-from.json", "diagnosis.json", "false-positives.csv", "characteristics.csv",
        "false-positives.png", "sensitivity.png", "characteristics.png",
    }  # fmt: skip
    summary = json.loads((results / "diagnosis.json").read_text())
    assert (summary["iou"], len(summary["classes"])) == (0.6, 10)
    wrong = rcnn("diagnose", recipe, "--similar", '[["disc", "disk"]]', work=work, check=False)
    assert (wrong.returncode, "'disk', which is not a class of the dataset, did you mean 'disc'?" in wrong.stderr) == (
        2,
        True,
    )


def test_detections_are_drawn(copied):
    recipe, work = copied
    rcnn("detect", recipe, "--draw", work=work)
    assert len(list((work / "results" / "small" / "detect@test").glob("*.jpg"))) == 8


def test_predict_on_any_image(copied, tmp_path):
    recipe, work = copied
    photo = next((work / "datasets").rglob("JPEGImages/*.jpg"))
    rcnn("predict", recipe, photo, "--threshold", -1, "-o", tmp_path / "out", work=work)
    found = json.loads((tmp_path / "out" / f"{photo.stem}.json").read_text())
    assert found["image"] == photo.name
    assert (tmp_path / "out" / f"{photo.stem}.png").stat().st_size > 1000


def test_predict_agrees_with_the_cached_stages(copied, tmp_path):
    """The same image through memory and through caches: the same detections."""
    recipe, work = copied
    ids = next((work / "datasets").rglob("ImageSets/Main/test.txt")).read_text().split()
    photo = next((work / "datasets").rglob(f"JPEGImages/{ids[0]}.jpg"))
    rcnn("predict", recipe, photo, "-o", tmp_path / "out", work=work)
    predicted = json.loads((tmp_path / "out" / f"{photo.stem}.json").read_text())["detections"]
    folder = next((work / "caches" / "detect").iterdir())
    with h5py.File(folder / "data.h5") as file:
        scores = file["score"][: file["offsets"][1]]
    assert len(predicted) > 0
    assert sorted(one["score"] for one in predicted) == pytest.approx(sorted(scores.tolist()), abs=1e-4)


def test_inspect_and_the_list_of_caches(finished):
    recipe, work, _ = finished
    folder = next((work / "caches" / "extract").glob("small-train.*"))
    assert "pool4: float16" in rcnn("inspect", folder, work=work).stdout
    assert "intact" in rcnn("inspect", folder / "part-00000.h5", work=work).stdout
    assert '"padding": 4' in rcnn("inspect", recipe, work=work).stdout
    assert rcnn("cache", "ls", work=work).stdout.count("complete ") == 9


def test_gc_deletes_what_no_recipe_refers_to(copied):
    recipe, work = copied
    rcnn("eval", recipe, "--iou", 0.7, work=work)
    listed = rcnn("cache", "gc", recipe, work=work, check=False)
    assert listed.returncode != 0
    assert listed.stdout.count("caches/eval/") == 1
    rcnn("cache", "gc", recipe, "--yes", work=work)
    assert len(list((work / "caches" / "eval").iterdir())) == 1
    assert rcnn("status", recipe, work=work).returncode == 0


def has_workers(process):
    """Whether a process has started workers of joblib."""
    for child in psutil.Process(process).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "LokyProcess" in " ".join(child.cmdline()):
                return True
    return False


def assert_told_what_is_kept(errors, work):
    """The numbers of the last sentence are those of the parts that are there."""
    found = re.search(
        r"; finished work is kept, of ([\w-]+)@?(\w*) (\d+) of (\d+) (\w+) \((\d+) of (\d+) parts?\)", errors
    )
    assert found is not None, errors
    stage, split, items, total, item, parts, of = found.groups()
    (folder,) = (work / "caches" / stage).glob(f"small-{split}.*" if split else "small*")
    plan = json.loads((folder / "plan.json").read_text())
    there = [int(path.name[5:10]) for path in folder.glob("part-?????.h5")]
    size = plan["part_size"]
    assert (int(parts), int(of)) == (len(there), -(-len(plan["item_ids"]) // size))
    assert int(items) == sum(len(plan["item_ids"][part * size : (part + 1) * size]) for part in there)
    assert int(total) == len(plan["item_ids"])
    assert item.startswith(plan["schema"]["item"])


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("cache", ["propose@train", "extract@train", "train-svm"])
def test_ctrl_c_while_worker_processes_start_is_one_sentence(cache, delay, copied):
    recipe, work = copied
    shutil.rmtree(work / "caches" / cache.partition("@")[0])
    line, environment = command("run", recipe, "--jobs", 2, "--only", cache, "--part-size", 2, work=work)
    process = subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                               start_new_session=True)  # fmt: skip
    while process.poll() is None and not has_workers(process.pid):
        time.sleep(0.002)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; finished work is kept" in errors
    assert_told_what_is_kept(errors, work)
    assert "Traceback" not in errors
    assert "KeyboardInterrupt" not in errors
    assert "Warning" not in errors


@pytest.mark.parametrize("stage", ["propose", "extract"])
def test_sigterm_says_how_much_is_kept(stage, copied):
    recipe, work = copied
    shutil.rmtree(work / "caches" / stage)
    line, environment = command("run", recipe, "--jobs", 1, "--only", f"{stage}@train", "--part-size", 2, work=work)
    process = subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while process.poll() is None and not list((work / "caches" / stage).glob("*/part-*.h5")):
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "rcnn: terminated; finished work is kept" in errors
    assert_told_what_is_kept(errors, work)


THREAD_THAT_FAILS_AFTER_A_SIGNAL = """
import os, signal, sys, threading, warnings
from rcnn_cli.ending import set_up_logging, stop

def fail():
    raise KeyError("its queue is gone")

set_up_logging(verbose="--verbose" in sys.argv)
signal.signal(signal.SIGINT, stop)
try:
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(60)
except KeyboardInterrupt:
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    warnings.warn("tasks were cancelled")
    print("interrupted in order", file=sys.stderr)
"""


def test_after_ctrl_c_threads_of_libraries_are_heard_only_with_verbose():
    line = [sys.executable, "-c", THREAD_THAT_FAILS_AFTER_A_SIGNAL]
    assert subprocess.run(line, capture_output=True, text=True, check=True).stderr == "interrupted in order\n"
    told = subprocess.run([*line, "--verbose"], capture_output=True, text=True, check=True).stderr
    assert "its queue is gone" in told
    assert "tasks were cancelled" in told


def test_ctrl_c_is_a_sentence_and_the_run_goes_on(copied, finished):
    recipe, work = copied
    for stage in ("extract", "train-svm", "train-bbox", "detect", "eval"):
        shutil.rmtree(work / "caches" / stage)
    line, environment = command("run", recipe, "--jobs", 2, work=work)
    process = subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                               start_new_session=True)  # fmt: skip
    assert process.stderr is not None
    for message in process.stderr:
        if message.startswith("extract@train: "):
            break
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; finished work is kept" in errors
    assert_told_what_is_kept(errors, work)
    rcnn("run", recipe, work=work)
    assert contents(work) == contents(finished[1])
