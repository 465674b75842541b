"""`--dask` with a real scheduler and real workers on loopback, and what ends them."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

from cache import DamagedPart, DiskFull, Writer
from cache.claims import Claims
from rcnn_cli.clusters.dask_workers import Workers
from rcnn_cli.ending import PATIENCE
from rcnn_cli.main import main
from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import build_recipe, load_recipe
from rcnn_cli.sentences import sentence
from stages.contract.errors import BadImage
from stages.contract.execution import Execution
from stages.propose.stage import SCHEMA
from tests import pipeline
from tests.built_once import BuiltOnce
from tests.in_process import rcnn
from tests.pipeline import PROJECT, command, contents, write_recipe

WHOLE = """
[datasets.train]
source = "shapes:train"
images = 8
[network]
name = "shapenet"
weights = "random"
[propose]
max_boxes = 40
resize_width = 200
[extract]
layers = ["fc5"]
[train-svm]
layer = "fc5"
[train-bbox]
layer = "fc5"
[eval]
split = "train"
[detect]
split = "train"
"""
SHORT = """
[datasets.train]
source = "shapes:train"
images = 24
[propose]
method = "{method}"
max_boxes = 5
"""
# What every Python of a worker begins with: faults that a test asks for, those named RCNN_... through its client.
BEGINNING = """
import os, signal, sys, time
from importlib import metadata

if os.environ.get("TEST_HIDE_RCNN"):
    class Hidden:
        def find_spec(name, path=None, target=None):
            if name == "rcnn_cli":
                raise ModuleNotFoundError("No module named 'rcnn_cli'", name=name)
    sys.meta_path.insert(0, Hidden)
elif sys.orig_argv[-2:] == ["rcnn_cli", "task"]:
    if os.environ.get("TEST_OPENCV"):
        installed = metadata.version
        metadata.version = lambda name: os.environ["TEST_OPENCV"] if name.startswith("opencv") else installed(name)
    from stages.propose import stage
    quickly = stage.propose
    def propose(settings, task):
        time.sleep(float(os.environ.get("RCNN_TEST_SLEEP", "0")))
        if os.environ.get("RCNN_TEST_KILL") == "worker":
            os.kill(os.getppid(), signal.SIGKILL)
            while True:
                time.sleep(0.1)
        if os.environ.get("RCNN_TEST_KILL") == "task":
            os.kill(os.getpid(), signal.SIGSEGV)
        return quickly(settings, task)
    stage.propose = propose
"""
SLOWLY = {"RCNN_TEST_SLEEP": "0.25"}
PROPOSE = ("--part-size", 1)
SECONDS = 400


class Cluster:
    """A Dask scheduler, workers, and what a test may do to them."""

    def __init__(self, folder: Path, **settings: str) -> None:
        """Starts the scheduler; `settings` are more environment variables."""
        self.folder = folder
        self.workers: list[psutil.Popen] = []
        (folder / "sitecustomize.py").write_text(BEGINNING)
        path = f"{folder}{os.pathsep}{PROJECT}"
        self.environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **settings}
        file = folder / "scheduler.json"
        given = ("--host", "127.0.0.1", "--port", 0, "--scheduler-file", file)
        self.scheduler = self.start("scheduler", *given, "--idle-timeout", "15 minutes")  # if pytest itself is killed
        until(lambda: file.exists() and file.read_text().rstrip().endswith("}"), "the scheduler listens")
        self.address = json.loads(file.read_text())["address"]

    def start(self, kind: str, *arguments: object, before: tuple[str, ...] = (), **settings: str) -> psutil.Popen:
        """Starts a scheduler or worker."""
        log = self.folder / f"{kind}-{len(self.workers)}.log"
        with log.open("w") as output:
            return psutil.Popen(
                [*before, sys.executable, "-m", f"distributed.cli.dask_{kind}", "--no-dashboard", *map(str, arguments)],
                env={**self.environment, **settings},
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def add(self, *options: object, before: tuple[str, ...] = (), **settings: str) -> psutil.Popen:
        """Starts a worker and waits until the scheduler knows it."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        given = options or ("--nthreads", 1, "--no-nanny")
        folder = ("--local-directory", self.folder / "space")
        worker = self.start("worker", self.address, "--nworkers", 1, *folder, *given, before=before, **settings)
        self.workers.append(worker)
        until(lambda: "Registered to" in log.read_text() or worker.poll() is not None, "the worker is registered")
        assert worker.poll() is None, log.read_text()
        return worker

    def stop(self) -> None:
        """Ends every process, whatever state it is in."""
        for process in (*self.workers, self.scheduler):
            kill_whole(process)


def kill_whole(process: psutil.Popen) -> None:
    """Ends a process and all that it has started, at once, as the end of a machine does."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
    process.wait()


def until(holds, what: str, seconds: float = 60.0) -> None:
    """Waits until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not so after {seconds} s: {what}"
        time.sleep(0.05)


def tasks_of(work: Path) -> list[psutil.Process]:
    """The processes that make parts of caches in a work folder: those that have been given its sign."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[-2:] == ["rcnn_cli", "task"] and process.environ().get("TEST_CLUSTER") == str(work):
                found.append(process)
    return found


@pytest.fixture(scope="module")
def clusters():
    """Makes clusters; all end with the module, whatever has happened."""
    pytest.importorskip("distributed", reason="no Dask to test with: `pip install -e '.[dask]'`")
    with contextlib.ExitStack() as all_of_them:

        def make(**settings: str) -> Cluster:
            folder = Path(all_of_them.enter_context(tempfile.TemporaryDirectory(prefix="rcnn-dask-")))
            cluster = Cluster(folder, TEST_CLUSTER=str(folder), **settings)
            all_of_them.callback(cluster.stop)
            return cluster

        yield make


@pytest.fixture(scope="module")
def pair(clusters):
    """A cluster of two workers with two threads each, for tests that do them no harm."""
    cluster = clusters()
    for _ in range(2):
        cluster.add("--nthreads", 2)
    return cluster


class Run:
    """`rcnn ... --dask` in a process of its own."""

    def __init__(self, cluster: Cluster, folder: Path, *arguments: object, **settings: str) -> None:
        line, environment = command(*arguments, "--dask", cluster.address, work=folder / "work")
        self.parts = folder / "work" / "caches" / "propose"
        self.errors = folder / "errors.txt"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                line, env={**environment, **settings}, cwd=folder, stdout=subprocess.DEVNULL, stderr=errors
            )

    def until_begun(self, parts: int = 2) -> None:
        """Waits until some parts are there, and not all."""
        until(lambda: self.count() >= parts, f"{parts} parts are there: {self.errors.read_text()}")
        assert self.count() < 24, "all parts were made before the test could do anything"

    def count(self) -> int:
        """How many parts of propose are there."""
        return len(list(self.parts.glob("*/part-*.h5")))

    def end(self, code: int) -> str:
        """What was said by the command, which must end with `code`, without a traceback."""
        try:
            self.process.wait(SECONDS)
        finally:
            self.process.kill()
        said = self.errors.read_text()
        assert (self.process.returncode, "Traceback" in said) == (code, False), said
        assert not list(self.parts.parents[1].glob(".dask-*"))
        return said


def last(said: str) -> str:
    """The last line, the sentence."""
    line = said.strip().splitlines()[-1]
    assert line.startswith("rcnn: "), said
    return line


def short(folder: Path, method: str = "sliding-window") -> Path:
    """A recipe that only proposes, for 24 images."""
    return write_recipe(folder, SHORT.format(method=method))


@pytest.fixture(scope="module")
def plain(built_once: BuiltOnce):
    """What a run without Dask makes of the short recipe in parts of one image."""

    def build(folder: Path) -> None:
        rcnn("propose", short(folder), *PROPOSE, work=folder / "work")

    return contents(built_once.folder("short", build) / "work")


def test_a_whole_recipe_is_what_a_plain_run_makes_with_a_bad_image_and_two_threads(pair, tmp_path):
    recipe = write_recipe(tmp_path, WHOLE)
    rcnn("propose", recipe, "--split", "train", work=tmp_path / "plain")
    image = sorted((tmp_path / "plain" / "datasets").rglob("JPEGImages/*.jpg"))[0]
    image.write_bytes(image.read_bytes()[:500])
    shutil.rmtree(tmp_path / "plain" / "caches")
    shutil.copytree(tmp_path / "plain" / "datasets", tmp_path / "work" / "datasets")
    rcnn("run", recipe, "--jobs", 1, "--part-size", 2, "--skip-bad-images", work=tmp_path / "plain")
    said = Run(pair, tmp_path, "run", recipe, "--jobs", 1, "--part-size", 2, "--skip-bad-images").end(0)
    assert contents(tmp_path / "work") == contents(tmp_path / "plain")
    assert re.search(r"warning: worker tcp://127.0.0.1:\d+ on \S+: \S+: skipped, it cannot be opened", said)
    assert re.search(r"worker tcp://127.0.0.1:\d+ on \S+: No CUDA device; networks run on the CPU", said) or (
        ": networks run on cuda" in said
    )
    assert not list((tmp_path / "work").rglob("claims"))


def test_an_error_in_a_task_is_the_sentence_of_a_local_run(pair, tmp_path):
    recipe = short(tmp_path)
    rcnn("propose", recipe, work=tmp_path / "work")
    shutil.rmtree(tmp_path / "work" / "caches")
    image = sorted((tmp_path / "work" / "datasets").rglob("JPEGImages/*.jpg"))[5]
    image.write_bytes(image.read_bytes()[:500])
    local = rcnn("propose", recipe, work=tmp_path / "work", check=False)
    assert (local.returncode, image.name in local.stderr) == (2, True)
    said = Run(pair, tmp_path, "propose", recipe).end(2)
    assert last(said) == local.stderr.strip().splitlines()[-1]


def test_a_damaged_part_of_an_input_is_made_again(pair, tmp_path):
    recipe = write_recipe(tmp_path, WHOLE.partition("[train-svm]")[0])
    rcnn("propose", recipe, work=tmp_path / "work")
    part = next((tmp_path / "work" / "caches" / "propose").glob("*/part-00000.h5"))
    content = bytearray(part.read_bytes())
    whole = bytes(content)
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    part.write_bytes(content)
    said = Run(pair, tmp_path, "run", "small.toml", "--work", "work", "--jobs", 1).end(0)
    assert re.search(r"warning: work/caches/\S+/part-00000.h5: damaged", said)
    assert part.read_bytes() == whole


def test_workers_copy_what_a_grown_dataset_shares_with_the_old_one(pair, plain, tmp_path):
    recipe = short(tmp_path)
    rcnn("propose", recipe, "--set", "datasets.train.images=10", "--part-size", 4, work=tmp_path / "work")
    said = Run(pair, tmp_path, "propose", recipe, *PROPOSE).end(0)
    assert "propose@train: 14 images, 10 copied from small-train." in said
    assert ", 10 copied, " in said
    found = contents(tmp_path / "work")
    assert {name: found[name] for name in plain} == plain


def test_ctrl_c_gives_everything_back_and_the_next_run_goes_on(pair, tmp_path):
    recipe = short(tmp_path)
    run = Run(pair, tmp_path, "propose", recipe, *PROPOSE, **SLOWLY)
    run.until_begun()
    interrupted = time.monotonic()
    run.process.send_signal(signal.SIGINT)
    assert "interrupted; finished work is kept" in last(run.end(130))
    until(lambda: not tasks_of(pair.folder), "the workers' processes have ended")
    took, left = time.monotonic() - interrupted, list((tmp_path / "work").rglob("claims/part-*"))
    assert not left or took > PATIENCE  # a process that takes longer is killed, its claims those of the dead
    assert all(Claims(claim.parent).owner_is_dead(claim) for claim in left)
    before = {path: path.stat().st_mtime_ns for path in run.parts.glob("*/part-*.h5")}
    assert "resuming: " in Run(pair, tmp_path, "propose", recipe).end(0)
    assert before.items() <= {path: path.stat().st_mtime_ns for path in run.parts.glob("*/part-*.h5")}.items()


@pytest.mark.parametrize("how", [kill_whole, psutil.Popen.terminate], ids=["killed", "told to end"])
def test_a_worker_may_join_and_another_go_in_the_middle(clusters, plain, tmp_path, how):
    cluster, recipe = clusters(), short(tmp_path)
    run = Run(cluster, tmp_path, "propose", recipe, *PROPOSE, **SLOWLY)
    until(lambda: "has no workers; waiting up to 5 min 00 s for one" in run.errors.read_text(), "it says that it waits")
    first = cluster.add()
    run.until_begun()
    cluster.add()
    until(lambda: len(tasks_of(cluster.folder)) == 2, "the new worker has something to do")
    until(lambda: len(list(run.parts.glob("*/claims/part-*"))) == 2, "both are making a part")
    how(first)
    run.end(0)
    assert contents(tmp_path / "work") == plain


def test_all_workers_may_be_lost_and_others_come(clusters, plain, tmp_path):
    cluster, recipe = clusters(), short(tmp_path)
    lost = [cluster.add(), cluster.add()]
    run = Run(cluster, tmp_path, "propose", recipe, *PROPOSE, **SLOWLY)
    run.until_begun()
    for worker in lost:
        kill_whole(worker)
    until(lambda: " has no workers; waiting " in run.errors.read_text(), "it says that it waits")
    cluster.add()
    run.end(0)
    assert contents(tmp_path / "work") == plain


def test_workers_that_cannot_help_are_named(clusters, tmp_path):
    cluster, recipe = clusters(), short(tmp_path, "selective-search")
    run = Run(cluster, tmp_path, "propose", recipe, "--dask-wait", 1)
    assert "no worker connected within 1.0 s; start some with `dask worker`" in last(run.end(2))

    without = cluster.add(TEST_HIDE_RCNN="1")
    said = last(Run(cluster, tmp_path, "propose", recipe).end(2))
    assert re.match(r"rcnn: worker tcp://\S+ on \S+: rcnn cannot be started \(.*No module named '?rcnn_cli'?", said), (
        said
    )
    assert f"install the version of rcnn that you run here for {sys.executable}" in said
    kill_whole(without)

    older = cluster.add(TEST_OPENCV="3.4.18")
    said = last(Run(cluster, tmp_path, "propose", recipe).end(2))
    assert re.search(
        r"worker tcp://\S+ on \S+: would make a different propose@train \(propose.opencv \d -> 3\)", said
    ), said
    kill_whole(older)


def test_a_worker_on_another_file_system_is_named(clusters, tmp_path):
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no file system of its own can be given to a worker here (unshare --mount)")
    cluster, recipe, work = clusters(), short(tmp_path), tmp_path / "work"
    work.mkdir()
    script = f'mount -t tmpfs none "{work}" && exec "$@"'
    cluster.add(before=("unshare", "--mount", "sh", "-c", script, "sh"))
    said = last(Run(cluster, tmp_path, "propose", recipe).end(2))
    assert f"cannot see the folder {work}; every worker must see it under the same path" in said
    assert f" on {socket.gethostname()}: " in said


@pytest.mark.parametrize("hidden", ["folder", "work"])
def test_a_task_that_does_not_see_the_folder_of_the_command(clusters, tmp_path, hidden):
    graph = Graph(load_recipe(short(tmp_path)), tmp_path / "work")
    node = graph.nodes["propose@train"]
    writer = Writer(graph.folder(node), graph.identity(node), ["train_00000"], SCHEMA)
    job = Workers("local", 1.0, Execution(), "none").job(graph, node, writer)
    if hidden == "folder":
        Path(job["sign"]).touch()
        job["folder"] = str(tmp_path / "nowhere")
    line, environment = command("task", work=tmp_path / "work")
    with subprocess.Popen(line, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as task:
        assert task.stdin is not None
        assert task.stdout is not None
        task.stdin.write(json.dumps({**job, "worker": "worker 7 on far", "shard": None}) + "\n")
        task.stdin.flush()
        error = pickle.loads(base64.b64decode(json.loads(task.stdout.readline())["error"]))
    folder = tmp_path / ("nowhere" if hidden == "folder" else "work")
    assert sentence(error) == (
        f"worker 7 on far: cannot see the folder {folder}; every worker must see it under the same path",
        2,
    )


def test_tasks_that_take_their_workers_down_end_the_run(clusters, tmp_path):
    cluster, recipe = clusters(DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="1"), short(tmp_path)
    for _ in range(2):
        cluster.add()
    said = last(Run(cluster, tmp_path, "propose", recipe, RCNN_TEST_KILL="worker").end(2))
    assert "the workers making a cache were killed one after another" in said
    assert all(worker.wait() == -signal.SIGKILL for worker in cluster.workers)
    until(lambda: not tasks_of(cluster.folder), "what they had started has noticed and ended")
    assert not list((tmp_path / "work").rglob("claims/part-*"))


def test_tasks_that_are_killed_themselves_are_tried_again_and_then_end_the_run(pair, tmp_path):
    said = last(Run(pair, tmp_path, "propose", short(tmp_path), "--jobs", 1, RCNN_TEST_KILL="task").end(2))
    assert re.search(r"worker tcp://\S+ on \S+: the process that made propose@train was ended by SIGSEGV", said), said


def test_a_scheduler_that_dies_in_the_middle_loses_nothing(clusters, plain, tmp_path):
    cluster, recipe = clusters(), short(tmp_path)
    cluster.add()
    run = Run(cluster, tmp_path, "propose", recipe, *PROPOSE, **SLOWLY)
    run.until_begun()
    cluster.scheduler.kill()
    said = last(run.end(2))
    assert "lost the connection to the Dask scheduler; finished work is kept" in said
    until(lambda: not tasks_of(cluster.folder), "the worker's process has ended")
    assert re.search(r"resuming: \d+ of 24 are done", rcnn("propose", recipe, work=tmp_path / "work").stderr)
    assert contents(tmp_path / "work") == plain


def test_local_workers(clusters, plain, tmp_path):
    recipe = short(tmp_path)
    done = pipeline.rcnn("propose", recipe, *PROPOSE, "--dask", "local/2", work=tmp_path / "work")
    assert contents(tmp_path / "work") == plain
    assert done.stderr.splitlines()[-1].startswith("propose@train: done (24 items")
    assert re.search(r"^propose@train: on Dask \(local/2\): \d+ parts for [12] workers?$", done.stderr, re.MULTILINE)
    assert "done" not in pipeline.rcnn("propose", recipe, "--dask", "local", work=tmp_path / "work").stderr


@pytest.fixture
def call(tmp_path, capsys, monkeypatch):
    """Calls `rcnn` in this process: (exit code, the last line of what it said)."""
    monkeypatch.setenv("RCNN_WORK", str(tmp_path / "work"))

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(one) for one in arguments])
        return ended.value.code, last(capsys.readouterr().err)

    return run


def test_where_no_scheduler_is(clusters, call, tmp_path, monkeypatch):
    monkeypatch.setattr("rcnn_cli.clusters.dask_workers.CONNECT_SECONDS", 1)
    recipe = short(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        code, said = call("propose", recipe, "--dask", f"tcp://127.0.0.1:{port}")
    assert (code, f"--dask tcp://127.0.0.1:{port}: cannot connect to a Dask scheduler" in said) == (2, True)
    code, said = call("propose", recipe, "--dask", f"127.0.0.1:{port}")
    assert (code, "cannot connect to a Dask scheduler" in said) == (2, True)
    assert not any(thread.name == "IO loop" and thread.is_alive() for thread in threading.enumerate())


@pytest.mark.parametrize("address", ["somewhere", "tcp://host", "local/0", "local/two"])
def test_an_address_that_is_none(clusters, call, tmp_path, address):
    code, said = call("run", short(tmp_path), "--dask", address)
    assert (code, said) == (2, f"rcnn: --dask {address}: must be written tcp://HOST:PORT, local or local/N")


def test_shards_and_dask_exclude_each_other(clusters, call, tmp_path):
    code, said = call("propose", short(tmp_path), "--dask", "local", "--shard", "1/2")
    assert (code, "--shard: cannot be combined with --dask" in said) == (2, True)


def test_without_the_extra(call, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, said = call("run", short(tmp_path), "--dask", "local")
    assert (code, "`pip install 'rcnn[dask]'`" in said, "`pip install -e '.[dask]'`" in said) == (2, True, True)


@pytest.mark.parametrize(
    "error", [BadImage("a.jpg", "is empty"), DiskFull("p.h5"), DamagedPart("p.h5", "torn")], ids=type
)
def test_errors_come_through_as_they_were(error):
    assert sentence(pickle.loads(pickle.dumps(error))) == sentence(error)


@pytest.mark.parametrize("path", sorted((PROJECT / "recipes").glob("*.toml")), ids=lambda path: path.name)
def test_a_recipe_goes_through_json(path):
    own = {"propose": "max_boxes=7", "windows": "max_boxes=7", "detect": "nms_iou=0.4", "classify": "flips=false"}
    table = next(name for name in own if f"[{name}]" in path.read_text())
    recipe = load_recipe(path, [f"{table}.test.{own[table]}"])
    assert build_recipe(path, json.loads(json.dumps(recipe.as_json()))) == recipe
