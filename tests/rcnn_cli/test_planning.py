"""`rcnn plan`: its arithmetic by hand, and its estimates beside what the run then takes."""

import contextlib
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest

from cache import Column, Identity, Reader, Schema, Writer
from rcnn_cli.main import main
from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import load_recipe
from rcnn_cli.running.planning import (
    Stopwatch,
    bytes_in_parts,
    needed,
    seconds_per_item,
    shares_left,
    spread,
    spread_of_total,
)
from rcnn_cli.running.precisions import PrecisionComparison, relative_difference, score_change
from rcnn_cli.running.status import State
from stages.contract.execution import Count
from stages.datasets import open_classification, open_detection
from stages.features.linear_models import NEVER_DETECTED, LinearSvms
from tests.pipeline import contents

RECIPE = """
[datasets.train]
source = "shapes:train"
images = 20

[datasets.test]
source = "shapes:test"
images = 18

[network]
name = "shapenet"
weights = "random"

[propose]
method = "sliding-window"
max_boxes = 50

[extract]
layers = ["pool4"]
padding = 4

[train-svm]
layer = "pool4"
retrain_after = 200

[train-bbox]
layer = "pool4"

[detect]

[eval]
"""


@pytest.mark.parametrize(
    ("total", "count", "run", "expected"),
    [
        (10, 2, 1, [2, 7]),
        (3, 8, 1, [0, 1, 2]),
        (100, 3, 1, [16, 50, 83]),
        (10, 2, 3, [3, 4, 5, 9]),  # runs 012, 345, 678, 9: the second and the last
        (5, 9, 4, [0, 1, 2, 3, 4]),
    ],
)
def test_a_sample_is_spread_evenly(total, count, run, expected):
    assert spread(total, count, run) == expected


def test_the_rate_of_flowing_work():
    # two processes that begin after 5 s, then an item in 2 s each: 1 s an item
    events = [(7.0, 1), (7.0, 1), (9.0, 1), (9.0, 1), (11.0, 1), (11.0, 1)]
    assert seconds_per_item(events, 3.0, jobs=2) == 1.0
    # parts of two items: 4 s for the last four
    assert seconds_per_item([(4.0, 2), (6.0, 2), (8.0, 2)], 1.0, jobs=1) == 1.0
    # one event for two processes: since the work began
    assert seconds_per_item([(5.0, 4)], 1.0, jobs=2) == 1.0
    assert seconds_per_item([], 1.5, jobs=1) == 0.0


def test_the_spread_of_a_total():
    # mean 10, variance 8 / 3 of four: 2 x 100 x sqrt(8 / 3 / 4 x (1 - 0.04))
    assert spread_of_total([8, 10, 12, 10], 100) == round(200 * (8 / 12 * 0.96) ** 0.5)
    assert spread_of_total([8, 10, 12, 10], 4) == 0
    assert spread_of_total([8], 5) is None


def test_bytes_are_so_much_a_part_and_so_much_an_item(tmp_path):
    """Predicted from five items for 40 in parts of 16 and of 2, beside what a cache of 40 such items takes."""
    schema = Schema(rows={"boxes": Column("float32", (4,))})
    record = {"boxes": np.zeros((30, 4), np.float32)}

    def cache_of(name, items, part_size):
        writer = Writer(tmp_path / name, Identity("some", 1), [str(one) for one in range(items)], schema,
                        part_size=part_size)  # fmt: skip
        for part in writer.claim():
            writer.write(part, [record for _ in part.item_ids])
        writer.finish({})
        writer.release()
        return Reader(tmp_path / name), sum(path.stat().st_size for path in (tmp_path / name).glob("part-*.h5"))

    few, _ = cache_of("few", 5, 3)
    for part_size in (16, 2, 1):
        _, expected = cache_of(f"many-{part_size}", 40, part_size)
        assert bytes_in_parts(few, 40, part_size, "none") == pytest.approx(expected, rel=0.25)


def test_subsets_are_datasets_of_their_own(tmp_path):
    scenes = open_detection("shapes:train", work=tmp_path, options={"images": 6})
    few = scenes.subset([1, 4])
    assert few.image_ids == (scenes.image_ids[1], scenes.image_ids[4])
    assert few.classes == scenes.classes
    assert few.record(few.image_ids[0]) is not None
    assert len({few.images_key, scenes.images_key}) == 2
    objects = open_classification("shapes-classification:train", work=tmp_path, options={"per_class": 2, "side": 16})
    assert objects.images_key
    pair = objects.subset([0, 3])
    assert pair.labels.tolist() == [0, 1]
    assert pair.image_ids == (objects.image_ids[0], objects.image_ids[3])
    assert len({pair.images_key, objects.images_key}) == 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the recipe."""
    place = tmp_path_factory.mktemp("plan")
    (place / "r.toml").write_text(RECIPE)
    return place


@pytest.fixture
def call(folder, capsys, monkeypatch, tmp_path):
    """Calls `rcnn` in this process with one job: (exit code, output, errors)."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv("RCNN_WORK", raising=False)

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments), "--jobs", "1"])
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return run


def test_what_a_missing_cache_needs(folder):
    graph = Graph(load_recipe(folder / "r.toml", ()), folder / "none")
    assert needed(graph, ["extract@test"]) == {"extract@test", "propose@test"}
    assert needed(graph, ["train-svm"]) == {"train-svm", "extract@train", "propose@train"}
    assert needed(graph, []) == set()


def test_estimates_beside_the_run(call, folder, tmp_path):
    """Disk within 25 % for each cache of images and for the sum; boxes within the spread; nothing is left behind."""
    code, printed, errors = call("plan", "r.toml", "--sample", 6, "--json")
    assert code == 0, errors
    assert list(tmp_path.glob("rcnn-plan*")) == []
    assert not (folder / "work" / "caches").exists()
    plan = json.loads(printed)
    lines = {line["name"]: line for line in plan["caches"]}
    assert {line["state"] for line in lines.values()} == {"estimated"}
    assert plan["bytes_left"] == sum(line["bytes"] for line in lines.values())
    assert (plan["sample"], plan["jobs"], plan["device"], plan["fits"]) == (6, 1, "cpu", True)
    assert all(line["seconds"] > 0 for line in lines.values())

    call("run", "r.toml")
    found = {told["key"]: told for _, told in contents(folder / "work").values()}
    graph = Graph(load_recipe(folder / "r.toml", ()), folder / "work")
    real = {name: found[graph.identity(node).key] for name, node in graph.nodes.items()}
    sizes = {name: sum(part["bytes"] + 512 for part in told["parts"]) for name, told in real.items()}
    assert plan["bytes_left"] == pytest.approx(sum(sizes.values()), rel=0.25)
    for name, told in real.items():
        assert lines[name]["items"] == told["items"], name
        if "@" in name and name != "detect@test":  # what a detector finds depends on all it was trained on
            assert lines[name]["bytes"] == pytest.approx(sizes[name], rel=0.25), name
            assert abs(lines[name]["rows"] - told["rows"]) <= max(10, 2 * lines[name]["rows_spread"]), name


def test_complete_caches_are_told_with_their_real_size(call, folder):
    call("run", "r.toml")
    code, printed, _ = call("plan", "r.toml")
    assert code == 0
    assert printed.count("complete\n") == 8
    assert "Everything is complete; nothing to do." in printed
    code, printed, _ = call("plan", "r.toml", "--set", "train-bbox.min_overlap=0.7", "--sample", 2, "--json")
    lines = {line["name"]: line["state"] for line in json.loads(printed)["caches"]}
    changed = {"train-bbox", "detect@test", "eval"}
    assert {name for name, state in lines.items() if state == "estimated"} == changed
    assert {state for name, state in lines.items() if name not in changed} == {"complete"}


def test_what_is_done_of_a_cache_needs_not_be_done(call):
    deeper = ("--set", "extract.padding=0")
    whole = json.loads(call("plan", "r.toml", *deeper, "--sample", 2, "--json")[1])["caches"]
    call("extract", "r.toml", *deeper, "--split", "train", "--shard", "1/2")
    halved = json.loads(call("plan", "r.toml", *deeper, "--sample", 2, "--json")[1])["caches"]
    before, after = (next(one for one in lines if one["name"] == "extract@train") for lines in (whole, halved))
    assert after["detail"] == "12 of 20 images"
    assert before["bytes_left"] == before["bytes"] == after["bytes"]
    assert after["bytes_left"] == round(0.4 * after["bytes"])


def test_features_on_demand_take_no_disk(call, tmp_path):
    fresh = ("--set", "extract.padding=1", "--sample", 2, "--set", "extract.cache=false")
    _, printed, _ = call("plan", "r.toml", *fresh)
    (line,) = (line for line in printed.splitlines() if line.startswith("extract@test"))
    assert line.split(maxsplit=1)[1] == "not cached (cache = false): computed by detect@test"
    assert list(tmp_path.glob("rcnn-plan*")) == []


def test_the_same_cache_twice_is_counted_once(call, folder):
    twice = folder / "twice.toml"
    twice.write_text(RECIPE + '[detect-again]\nstage = "detect"\n')
    changes = ("--set", "detect.nms_iou=0.4", "--set", "detect-again.nms_iou=0.4")
    lines = json.loads(call("plan", "twice.toml", *changes, "--sample", 2, "--json")[1])["caches"]
    first, again = (next(one for one in lines if one["name"] == f"{name}@test") for name in ("detect", "detect-again"))
    assert (again["state"], again["detail"], again["bytes"]) == ("estimated", "is detect@test", 0)
    assert first["bytes"] > 0


def test_a_disk_without_room_is_told_aloud(call, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(total=10, used=0, free=10))
    code, printed, errors = call("plan", "r.toml", "--set", "extract.padding=2", "--sample", 1)
    assert code == 1
    assert "free in work: 10 B" in printed
    assert "work: THE DISK IS TOO SMALL: 10 B free, " in errors
    assert logging.getLogger("rcnn").level == logging.INFO


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [(KeyboardInterrupt(), 130, "rcnn: interrupted"), (SystemExit(143), 143, "rcnn: terminated")],
)
def test_an_interrupted_plan_promises_nothing(folder, capsys, monkeypatch, error, code, sentence):
    def end(*arguments):
        raise error

    monkeypatch.chdir(folder)
    monkeypatch.setattr("rcnn_cli.running.planning.make_plan", end)
    monkeypatch.setattr("sys.argv", ["rcnn", "plan", "r.toml"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert capsys.readouterr().err.splitlines()[-1] == sentence


@pytest.mark.parametrize(
    ("there", "copied", "shares"),
    [(0, 0, (1.0, 1.0)), (0, 15, (1.0, 0.25)), (10, 5, (0.5, 0.25)), (10, 10, (0.5, 0.0))],
)
def test_what_is_copied_is_written_but_not_computed(there, copied, shares):
    total = 20 if there else 0  # of a cache that nobody has begun the number of items is only estimated
    state = State("extract@test", "partial", "", (), "", "", total, there, copied)
    assert shares_left(state, 20) == pytest.approx(shares)


def test_precisions_are_compared_where_features_are_to_be_made(call):
    fresh = ("--sample", 2, "--set", "extract.padding=3")
    (comparison,) = json.loads(call("plan", "r.toml", *fresh, "--json")[1])["precisions"]
    assert (comparison["table"], comparison["chosen"], comparison["precision"]) == ("extract", "float32", "bfloat16")
    assert comparison["regions"] == 32
    assert 0 < comparison["features"]["pool4"] < 0.05  # bfloat16 has 8 significant bits
    (scores,) = comparison["scores"]
    assert scores["table"] == "train-svm"
    assert 0 < scores["median"] <= scores["largest"] < 1
    _, printed, errors = call("plan", "r.toml", *fresh)
    assert "extract@train: measuring on a sample (2 of " in errors
    assert errors.count("Measuring the network's time in each precision, on one core.") == 1
    lines = printed.splitlines()
    assert lines[-2].startswith("extract: ")
    assert " here" in lines[-2]
    assert lines[-1].startswith("bfloat16 differs from float32: features by ")
    assert lines[-1].endswith("medians, measured on 32 regions.")


def test_precisions_are_not_compared_where_features_are_complete(call):
    call("run", "r.toml")
    changed = ("--set", "train-svm.C=0.01", "--sample", 2)
    assert json.loads(call("plan", "r.toml", *changed, "--json")[1])["precisions"] == []


def test_features_on_demand_are_compared_too(call):
    fresh = ("--set", "extract.padding=1", "--sample", 2, "--set", "extract.cache=false", "--json")
    assert len(json.loads(call("plan", "r.toml", *fresh)[1])["precisions"]) == 1


def compared(chosen, ratio):
    return PrecisionComparison("extract", chosen, "bfloat16", 1, 0.01 * ratio, 0.01, {"fc7": 0.00412, "pool5": 0.1})


def test_what_is_said_of_two_precisions():
    assert compared("float32", 1.425).lines() == (
        "extract: bfloat16 takes 1.43 times as long as float32 here.",
        "bfloat16 differs from float32: features by 0.41 % (fc7), 10 % (pool5); medians, measured on 1 region.",
    )
    assert compared("bfloat16", 2).times() == (
        'bfloat16 takes 2.00 times as long as float32 here; extract.precision = "float32" would be faster'
    )
    assert compared("float32", 0.5).times() == (
        'float32 takes 2.00 times as long as bfloat16 here; extract.precision = "bfloat16" would be faster'
    )
    assert compared("float32", 1.02).times() == "bfloat16 takes as long as float32 here"


def test_differences_of_features_and_scores_by_hand():
    reference = np.array([[3, 4], [0, 0], [0, 2]], np.float32)
    values = np.array([[3, 4.5], [1, 1], [0, 2.5]], np.float32)
    assert relative_difference(reference, values) == pytest.approx((0.1 + 0.25) / 2)  # the row of zeros has none
    svms = LinearSvms(
        ("a", "b"), "fc7", np.array([[0, 2], [0, 0]], np.float32), np.array([1, NEVER_DETECTED], np.float32), 1.0
    )
    change = score_change("train-svm", svms, reference, values)
    assert (change.median, change.largest) == (pytest.approx(1), pytest.approx(2))


def test_progress_is_shown_and_recorded():
    shown = Count()
    titles = []

    @contextlib.contextmanager
    def show(label, total, unit, done=0):
        titles.append((label, total, unit))
        yield shown

    now = iter([10.0, 11.0, 12.0, 14.0])
    watch = Stopwatch(show, lambda: next(now))
    with watch.opened("extract", 4, "images") as bar:
        bar.advance(1, 30)
        bar.advance(2, 50)
    assert titles == [("extract, sample", 4, "images")]
    assert (shown.items, shown.rows) == (3, 80)
    assert (watch.first, watch.events) == (1.0, [(2.0, 1), (4.0, 2)])
