"""`rcnn ablate` and `rcnn tune`, the real commands on a small recipe: what is shared, what fails, what goes on."""

import csv
import json
import re
import signal
import subprocess
import tomllib

import pytest

from tests import in_process
from tests.built_once import BuiltOnce
from tests.pipeline import SMALL, command, contents

QUICK = (
    SMALL.replace("epochs = 3", "epochs = 1")
    .replace("resize_width = 240\n", "")
    .replace("[propose]", '[propose]\nmethod = "sliding-window"')
)
GRID = """
title = "Regression, and an error"
recipe = "small.toml"
classes = true
metrics = { mAP = "map", "boxes per image" = "propose@test:boxes_per_image" }
protocol = "Small."
seeds = [0, 1]
seed_settings = ["train-svm.seed"]
[cells.plain]
paper = 58.5
paper_source = "R-CNN Table 2"
protocol = "VOC 2007"
[cells."no regression"]
remove = ["train-bbox"]
[cells.wrong]
set.train-svm.inputs.features = "extract@test"
"""
# Different caches by stage: (in all, needed by several runs). The two runs of a cell share what the seed of the SVMs
# does not reach; `plain` and `no regression` share the SVMs too.
STAGES = {
    "pretrain": (1, 1), "propose": (2, 2), "extract": (2, 2), "train-svm": (4, 2),
    "train-bbox": (1, 1), "detect": (6, 0), "eval": (6, 0),
}  # fmt: skip
MADE = {**{name: count for name, (count, _) in STAGES.items()}, "train-svm": 2, "detect": 4, "eval": 4}  # not `wrong`


def call(work, *arguments):
    """Calls `rcnn` in this process: (exit code, standard output, standard error)."""
    done = in_process.rcnn(*arguments, work=work, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def world(built_once: BuiltOnce, tmp_path_factory):
    """A folder with the recipe, the grid and their run."""
    return built_once.copy("grid", build, tmp_path_factory.mktemp("grid"))


@pytest.fixture(scope="module")
def finished(world):
    """The work folder and what was printed of a run that Ctrl-C stopped on the way and that was started again."""
    printed = (world / "printed.json").read_text()
    return world / "work", *json.loads(printed.replace("WORLD", str(world)))


def build(world):
    (world / "small.toml").write_text(QUICK)
    (world / "g.toml").write_text(GRID)
    work = world / "work"
    planned = json.loads(call(work, "ablate", world / "g.toml", "--dry-run", "--json")[1])
    line, environment = command("ablate", world / "g.toml", "--jobs", 1, work=work)
    process = subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    before = []
    assert process.stderr is not None
    assert process.stdout is not None
    for message in process.stderr:
        before.append(message)
        if message.startswith("extract@train: 12 images"):
            process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    interrupted = process.returncode, "".join(before), process.stdout.read()
    again = call(work, "ablate", world / "g.toml", "--jobs", 1)
    printed = json.dumps([planned, interrupted, again])
    (world / "printed.json").write_text(printed.replace(str(world), "WORLD"))


def test_the_plan_counts_what_is_shared(finished):
    _, planned, _, _ = finished
    assert planned["runs"] == 6
    assert planned["caches_without_sharing"] == 2 * (9 + 8 + 9)
    found = {name: (one["caches"], one["shared"]) for name, one in planned["stages"].items()}
    assert found == STAGES
    assert all(one["complete"] == 0 and one["missing"] == one["caches"] for one in planned["stages"].values())


def test_ctrl_c_stops_all_in_order_and_the_next_run_goes_on(finished):
    _, _, (code, errors, printed), (_, _, again) = finished
    assert code == 130
    assert "interrupted; finished work is kept" in errors
    assert "[2/6]" not in errors
    assert printed == ""
    assert "[1/6] plain, seed 0: reuses pretrain, propose@train" in again


def test_exactly_the_shared_caches_are_made_and_each_once(finished):
    work, _, _, (_, _, errors) = finished
    made = {stage: len(list((work / "caches" / stage).glob("*/manifest.json"))) for stage in STAGES}
    assert made == MADE
    assert "[2/6] no regression, seed 0: reuses pretrain, propose@train, extract@train, train-svm, " in errors
    assert "makes detect@test, eval\n" in errors


def test_a_cell_that_fails_shows_why_and_the_others_go_on(finished):
    _, _, _, (code, printed, _) = finished
    assert code == 1
    lines = {line.split("  ")[0]: line for line in printed.split("\n\n")[1].splitlines()}
    assert "failed: seed 0: train-svm: train-svm: the features cover " in lines["wrong"]
    assert lines["wrong"].endswith("use the same split for [train-svm] and the features it reads")
    assert "±" in lines["plain"]
    assert "58.5  [1]" in lines["plain"]
    assert lines["no regression"].endswith("no [train-bbox]")
    assert "[1] R-CNN Table 2: VOC 2007" in printed
    assert "Mean ± sample standard deviation over train-svm.seed = 0, 1" in printed
    assert "Traceback" not in printed


def test_the_table_is_written_for_people_and_programs(finished):
    work = finished[0]
    rows = json.loads((work / "ablations" / "g.json").read_text())["rows"]
    assert [row["failed"] is None for row in rows] == [True, True, False]
    plain = rows[0]["values"]["mAP"]
    of_seeds = [rows[0]["seeds"][seed]["mAP"] for seed in ("0", "1")]
    assert plain["mean"] == pytest.approx(sum(of_seeds) / 2)
    assert plain["deviation"] == pytest.approx(abs(of_seeds[0] - of_seeds[1]) / 2**0.5)
    assert rows[0]["values"]["boxes per image"] == {"mean": 60.0, "deviation": None, "count": 1}
    summary = json.loads((work / rows[0]["caches"][0] / "manifest.json").read_text())["summary"]
    assert of_seeds[0] == pytest.approx(100 * summary["map"])
    assert len(rows[0]["classes"]) == 10
    lines = list(csv.DictReader((work / "ablations" / "g.csv").open()))
    assert float(lines[0]["mAP"]) == plain["mean"]
    assert (lines[0]["paper"], lines[1]["settings"], lines[2]["mAP"]) == ("58.5", "no [train-bbox]", "")
    assert "| plain | " in (work / "ablations" / "g.md").read_text()


def test_a_second_run_makes_nothing_and_prints_the_same(world, finished):
    work, _, _, (_, printed, _) = finished
    before = contents(work)
    code, again, errors = call(work, "ablate", world / "g.toml")
    assert (code, again) == (1, printed)
    assert errors.count("; makes nothing\n") == 4
    assert contents(work) == before
    planned = json.loads(call(work, "ablate", world / "g.toml", "--dry-run", "--json")[1])
    assert {name: one["missing"] for name, one in planned["stages"].items() if one["missing"]} == {
        "train-svm": 2, "detect": 2, "eval": 2,
    }  # fmt: skip


def test_a_recipe_that_no_cell_can_have_is_said_before_anything_runs(world, finished):
    (world / "bad.toml").write_text('recipe = "small.toml"\n[cells.a]\nset.extract.paddin = 1\n[cells.b]\n')
    code, printed, _ = call(finished[0], "ablate", world / "bad.toml", "--dry-run")
    assert code == 1
    assert "a: cannot be run: " in printed
    assert "unknown setting 'paddin', did you mean 'padding'?" in printed


def test_a_cell_that_changes_nothing_is_told(world, finished):
    (world / "twins.toml").write_text('recipe = "small.toml"\n[cells.a]\n[cells.b]\nset.train-svm.C = 0.001\n')
    _, _, errors = call(finished[0], "ablate", world / "twins.toml", "--dry-run")
    assert "'b' is the same as 'a': what they change does not affect the result" in errors


def test_gc_keeps_the_caches_of_a_grid(world, finished):
    code, printed, errors = call(finished[0], "cache", "gc", world / "g.toml")
    assert (code, "every cache is in use by" in printed) == (0, True), errors


def test_metrics_in_tables_of_the_summary(world, finished):
    work = finished[0]
    cells = "[cells.with]\nset.eval.coco = true\n[cells.without]\n"
    names = 'metrics = { AP = "coco.AP", disc = "classes.disc.ap_area", objects = "classes.disc.positives" }\n'
    (world / "coco.toml").write_text(f'recipe = "small.toml"\n{names}{cells}')
    code, printed, errors = call(work, "ablate", world / "coco.toml", "--jobs", 1)
    assert code == 1
    assert "makes eval\n" in errors  # all that it reads is there
    reason = "metrics: 'coco.AP': eval does not measure by COCO's rules; set eval.coco = true"
    assert f"without: cannot be run: {reason}" in errors  # before anything runs
    assert printed.count(reason) == 1
    (row, _) = json.loads((work / "ablations" / "coco.json").read_text())["rows"]
    summary = json.loads((work / row["caches"][0] / "manifest.json").read_text())["summary"]
    found = {name: value["mean"] for name, value in row["values"].items()}
    disc = summary["classes"]["disc"]
    assert found == {"AP": 100 * summary["coco"]["AP"], "disc": 100 * disc["ap_area"], "objects": disc["positives"]}
    (world / "coco.toml").write_text(f'recipe = "small.toml"\nmetrics.AP = "coco.APP"\n{cells}')
    code, printed, _ = call(work, "ablate", world / "coco.toml")
    assert (code, "metrics: eval has no number 'coco.APP', did you mean 'coco.AP'?" in printed) == (1, True)
    (world / "coco.toml").write_text(f'recipe = "small.toml"\nmetrics.AP = "AP"\n{cells}')
    code, printed, _ = call(work, "ablate", world / "coco.toml")
    assert (code, "eval has no number 'AP'" in printed, "classes." in printed) == (1, True, False)


def test_a_metric_of_another_evaluation(world, finished):
    """It is made for the cell, and nothing else that the cell's own evaluation does not need."""
    work = finished[0]
    strict = '[cells.strict.set.eval-strict]\nstage = "eval"\niou = 0.7\n'
    unread = '[cells.strict.set.eval-unread]\nstage = "eval"\niou = 0.9\n'
    names = 'metrics = { mAP = "map", "at 0.7" = "eval-strict:map" }\n'
    (world / "strict.toml").write_text(f'recipe = "small.toml"\n{names}{strict}{unread}')
    code, _, errors = call(work, "ablate", world / "strict.toml", "--jobs", 1)
    assert (code, "makes eval-strict\n" in errors) == (0, True)
    (row,) = json.loads((work / "ablations" / "strict.json").read_text())["rows"]
    found = {name: value["mean"] for name, value in row["values"].items()}
    assert found["at 0.7"] < found["mAP"]


RECALL = """
recipe = "small.toml"
evaluation = "propose"
[metrics]
"20" = "recall.20.0.5"
all = "recall.all.average"
boxes = "boxes_per_image"
[cells.windows]
[cells."more windows"]
set.propose.max_boxes = 200
[cells.evaluated]
evaluation = "eval"
"""


def test_recall_of_proposals_as_a_table_and_a_figure(world, finished):
    work = finished[0]
    (world / "recall.toml").write_text(RECALL)
    code, printed, errors = call(work, "ablate", world / "recall.toml", "--jobs", 1)
    reason = "metrics: 'recall.20.0.5': eval has no proposals; name a table of them as the evaluation"
    assert (code, f"evaluated: cannot be run: {reason}" in errors) == (1, True)
    assert errors.count("makes propose@test\n") == 1
    assert "AP:" not in printed
    rows = json.loads((work / "ablations" / "recall.json").read_text())["rows"]
    few, many = ({name: value["mean"] for name, value in row["values"].items()} for row in rows[:2])
    assert (few["boxes"], many["boxes"]) == (60, 200)
    assert 0 < few["all"] < many["all"] < 100
    measured = call(work, "recall", world / "small.toml", "--counts", 20, "--json")[1]
    recall = {(row["proposals"], row["group"]): row for row in json.loads(measured)[0]["recall"]}
    assert few["20"] == pytest.approx(100 * recall[20, "all"]["recall"]["0.5"])
    assert few["all"] == pytest.approx(100 * recall[None, "all"]["average_recall"])
    assert (work / "ablations" / "recall.png").read_bytes().startswith(b"\x89PNG")
    (world / "recall.toml").write_text(RECALL.replace('"propose"', '"evel"'))
    _, printed, _ = call(work, "ablate", world / "recall.toml", "--dry-run")
    assert "has no evaluation [evel], did you mean 'eval'?" in printed


OWN = """
title = "Two detectors"
[metrics]
mAP = "map"
"at 0.7" = "eval-strict:map"
recall = "extract@test:recall.all.0.5"
training = "training_minutes"
caches = "cache_megabytes"
"of proposals" = "propose@test:cache_megabytes"
[set.eval-strict]
stage = "eval"
iou = 0.7
inputs.detections = "detect"
[cells.regression]
recipe = "small.toml"
[cells."no regression"]
recipe = "plain.toml"
"""


def test_recipes_side_by_side_with_what_they_cost(world, finished):
    work = finished[0]
    (world / "plain.toml").write_text(re.sub(r"\[train-bbox\][^[]*", "", QUICK))
    (world / "own.toml").write_text(OWN)
    code, printed, errors = call(work, "ablate", world / "own.toml", "--jobs", 1)
    assert code == 0, errors
    assert printed.startswith("Two detectors\n")
    rows = json.loads((work / "ablations" / "own.json").read_text())["rows"]
    assert [row["recipe"] for row in rows] == [str(world / "small.toml"), str(world / "plain.toml")]
    with_bbox, without = ({name: value["mean"] for name, value in row["values"].items()} for row in rows)
    manifests = {path.parent.name: json.loads(path.read_text()) for path in work.glob("caches/*/*/manifest.json")}
    evaluated = manifests[rows[1]["caches"][0].rpartition("/")[2]]
    by_key = {manifest["key"]: manifest for manifest in manifests.values()}

    def upstream(manifest):
        yield manifest
        for key in manifest["inputs"].values():
            if key in by_key:
                yield from upstream(by_key[key])

    caches = {manifest["key"]: manifest for manifest in upstream(evaluated)}
    assert {manifest["stage"] for manifest in caches.values()} == set(STAGES) - {"train-bbox"}
    assert without["caches"] == pytest.approx(sum(manifest["bytes"] for manifest in caches.values()) / 1e6)
    of_training = [m for m in caches.values() if m["split"] == "train" or m["stage"] in ("pretrain", "train-svm")]
    assert without["training"] == pytest.approx(sum(manifest["seconds"] for manifest in of_training) / 60)
    assert with_bbox["caches"] > without["caches"] > without["of proposals"] > 0
    assert with_bbox["training"] > without["training"] > 0
    assert with_bbox["at 0.7"] <= with_bbox["mAP"]
    measured = json.loads(call(work, "recall", world / "small.toml", "--counts", 20, "--json")[1])
    every = {(row["proposals"], row["group"]): row for row in measured[0]["recall"]}[None, "all"]
    assert without["recall"] == with_bbox["recall"] == pytest.approx(100 * every["recall"]["0.5"])  # objects left out
    code, _, errors = call(work, "ablate", world / "own.toml", "--recipe", world / "small.toml")
    assert (code, "names its own recipe; leave the option out" in errors) == (2, True)
    (world / "own.toml").write_text(OWN.replace("eval-strict:map", "eval-strickt:map"))
    _, printed, _ = call(work, "ablate", world / "own.toml", "--dry-run")
    assert "'eval-strickt' is not a cache of this recipe, did you mean 'eval-strict'?" in printed


# Tuning

VAL = ("--set", "datasets.val.source=shapes:val", "--set", "datasets.val.images=8")
SEARCH = ("--negative-overlap", "0,0.3", "--c", "0.001", "--nms-iou", "0.1,0.5")


def test_tune_writes_the_best_of_the_validation_split_into_a_recipe_that_runs(world, finished):
    work = finished[0]
    commented = QUICK.replace("[detect]", "[detect]  # the detector\nnms_iou = 0.3  # as in the paper")
    (world / "commented.toml").write_text(commented)
    output = world / "tuned.toml"
    code, printed, errors = call(work, "tune", world / "commented.toml", *VAL, *SEARCH, "--jobs", 1, "-o", output)
    assert code == 0, errors
    rows = json.loads((work / "ablations" / "tune-commented.json").read_text())["rows"]
    found = {row["cell"]: row["values"]["mAP"]["mean"] for row in rows}
    assert list(found) == ["0 / 0.001 / 0.1", "0 / 0.001 / 0.5", "0.3 / 0.001 / 0.1", "0.3 / 0.001 / 0.5"]
    assert len(set(found.values())) > 1
    overlap, _, nms = max(found, key=found.__getitem__).split(" / ")
    text = output.read_text()
    tuned = tomllib.loads(text)
    assert (tuned["train-svm"]["negative_overlap"], tuned["detect"]["nms_iou"]) == (float(overlap), float(nms))
    assert {name: table for name, table in tuned.items() if name not in ("train-svm", "detect")} == {
        name: table for name, table in tomllib.loads(commented).items() if name not in ("train-svm", "detect")
    }
    assert "on the split 'val' (shapes:val)" in text.splitlines()[0]
    assert "# the detector" in text
    assert f"nms_iou = {float(nms)}  # as in the paper" in text
    assert "--set datasets.val.images=8" in text
    code, printed, errors = call(work, "run", output, "--jobs", 1)
    assert (code, "mAP, 11-point" in printed) == (0, True)
    assert "extract@train: complete" in errors


def test_tune_never_replaces_a_file_unasked(world, finished):
    (world / "mine.toml").write_text("# mine")
    code, _, errors = call(finished[0], "tune", world / "small.toml", *VAL, "-o", world / "mine.toml")
    assert (code, "already exists; choose another file with -o, or pass --force" in errors) == (2, True)
    assert (world / "mine.toml").read_text() == "# mine"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--split", "test"), "settings must not be chosen on test images"),
        ((), "has no dataset 'val' to choose settings on; add [datasets.val]"),
        (("--set", "datasets.val.source=shapes:test", "--set", "datasets.val.images=8"), "are also in 'test'"),
        (("--set", "datasets.val.source=shapes:train", "--set", "datasets.val.images=12"), "are also in 'train'"),
        ((*VAL, "--c", "1,x"), "--c 1,x: must be finite numbers separated by commas"),
        ((*VAL, "--c", "1,inf"), "--c 1,inf: must be finite numbers separated by commas"),
        ((*VAL, "--negative-overlap", "1.5"), "negative_overlap = 1.5 must be at most 1"),
        ((*VAL, "--evaluation", "evel"), "has no evaluation [evel], did you mean 'eval'?"),
        ((*VAL, "-o", "/none/x.toml"), "the folder /none does not exist"),
    ],
)
def test_what_tune_refuses(world, finished, arguments, words):
    code, _, errors = call(finished[0], "tune", world / "small.toml", *arguments)
    assert code == 2
    assert words in errors
    assert len(errors.strip().splitlines()) == 1 or "drew shapes" in errors


def test_a_failing_combination_leaves_no_recipe(world, finished):
    output = world / "unwritten.toml"
    code, printed, errors = call(
        finished[0], "tune", world / "small.toml", *VAL, *SEARCH, "--set", "train-svm.layer=fc9", "-o", output
    )
    assert code == 1
    assert "small.toml: [train-svm] layer = 'fc9': shapenet has no layer 'fc9', did you mean 'fc6'?" in printed
    assert "no settings chosen and no recipe written" in errors
    assert not output.exists()
