"""`rcnn submit` and what follows it on a real Slurm of one node."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cache.files import read_json
from tests.in_process import rcnn
from tests.pipeline import PROJECT, command, contents, write_recipe

CLUSTER = """
[default]
partition = "main"
time = "00:10:00"
[propose]
array = 2
[extract]
array = 2
[train-svm]
array = 2
[detect]
array = 2
"""
SHORT = """
[datasets.train]
source = "shapes:train"
images = 16
[network]
name = "shapenet"
weights = "random"
[propose]
method = "sliding-window"
max_boxes = 5
[extract]
layers = ["pool4"]
"""
GATED = """
[default]
partition = "main"
[propose]
array = 2
cpus = {cpus}
options = ["--part-size", "1"]
command = '"{python}" "{program}" "{gate}" {images}'
"""
FAILING = """
[default]
partition = "main"
[propose]
array = 2
options = ["--part-size", "4"]
setup = ['test $SLURM_ARRAY_TASK_ID != 2 || { echo "the file system is not mounted here"; exit 3; }']
[extract]
array = 2
"""
LIMIT = 600  # seconds after which a test gives up waiting; far more than the slowest machine needs
TERMINATED = "rcnn: terminated; finished work is kept"


class Project:
    """A recipe and a cluster.toml in folders of difficult names, and `rcnn` on them."""

    def __init__(self, folder, slurm, recipe, cluster):
        self.slurm = slurm
        self.folder = folder
        self.work = folder / 'it\'s the "work" folder, 100%j #1 $HOME'
        (folder / "my recipes").mkdir()
        self.recipe = write_recipe(folder / "my recipes", *([recipe] if recipe else []))
        self.cluster = folder / "my cluster.toml"
        self.cluster.write_text(cluster)

    def start(self, name, *arguments):
        line, environment = command(name, self.recipe, *arguments, work=self.work)
        # what people set for Slurm's commands must neither hide the jobs nor undo what cluster.toml says
        own = {"SBATCH_JOB_NAME": "x", "SBATCH_PARTITION": "urgent", "SQUEUE_PARTITION": "urgent", "HOME": self.folder}
        return subprocess.Popen(
            [*self.slurm.as_user, *line],
            env={**environment, **self.slurm.variables, **own},
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, name, *arguments, check=True):
        return finished(self.start(name, *arguments), check)

    def submit(self, *arguments, check=True):
        return self.call("submit", "--cluster", self.cluster, *arguments, check=check)

    def status(self, *arguments):
        return self.call("status", *arguments, check=False).stdout

    def wait(self, name, *arguments):
        process = self.start("wait", name, *arguments, "--timeout", LIMIT)
        self.until(lambda: process.poll() is not None or self.slurm.is_empty(), f"{name} is complete or all jobs ended")
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.terminate()
        done = finished(process, check=False)
        assert done.returncode == 0, done.stderr + self.report()

    def until(self, holds, what):
        try:
            self.slurm.until(holds, LIMIT, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.report()}") from None

    def parts(self, stage="propose"):
        return {path: path.stat().st_mtime_ns for path in (self.work / "caches" / stage).glob("*/part-*.h5")}

    def claims(self):
        return list(self.work.glob("caches/propose/*/claims/part-*"))

    def log(self, job, task):
        path = self.work / "logs" / f"small-propose@train-{job}_{task}.log"
        return path.read_text() if path.exists() else ""

    def report(self):
        logs = "".join(f"\n--- {path.name}\n{path.read_text()}" for path in sorted((self.work / "logs").glob("*")))
        return f"{self.slurm.view()}{logs}"


class GatedProject(Project):
    """A project whose propose tasks wait in the middle of their work, with a part in hand, until the gate is opened."""

    def __init__(self, folder, slurm, cpus=1):
        self.gate = folder / "gate"
        self.gate.touch()
        program = PROJECT / "tests" / "slurm" / "gated.py"
        values = {"cpus": cpus, "python": sys.executable, "program": program, "gate": self.gate, "images": 4}
        super().__init__(folder, slurm, SHORT, GATED.format(**values))

    def until_at_gate(self, job):
        """Waits until both tasks run and are at the gate: the parts before it are written, one behind it is claimed."""
        self.until(lambda: len(self.parts()) == 4 and len(self.tasks_with_claims()) == 2, "the tasks are at the gate")
        assert self.running(job)

    def tasks_with_claims(self):
        indices = [int(path.name.removeprefix("part-").removesuffix(".h5")) for path in self.claims()]
        return {index % 2 + 1 for index in indices if index >= 4}

    def running(self, job):
        states = self.slurm.states()
        return all(states[f"{job}_{task}"] == "RUNNING" for task in (1, 2))

    def open_gate(self):
        self.gate.unlink()

    def goes_on(self, before):
        """Opens the gate and waits; True if all parts are there and those of `before` were not made again."""
        self.open_gate()
        self.wait("extract")
        after = self.parts()
        return len(after) == 16 and {path: after[path] for path in before} == before


def finished(process, check=True):
    """The outcome of a process: exit status, output, errors."""
    output, errors = process.communicate(timeout=2 * LIMIT)
    assert not check or process.returncode == 0, output + errors
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def job_of(printed, node):
    """The id of the job that `submit` names for a node."""
    found = re.search(rf"^{re.escape(node)}: job (\d+)", printed, re.MULTILINE)
    assert found, printed
    return found[1]


@pytest.fixture
def project(tmp_path, slurm):
    def make(recipe=None, cluster=CLUSTER):
        return Project(tmp_path, slurm, recipe, cluster)

    yield make
    slurm.end_jobs()


@pytest.fixture
def gated(tmp_path, slurm):
    yield lambda **options: GatedProject(tmp_path, slurm, **options)
    slurm.end_jobs()


def test_a_whole_recipe_goes_through_and_is_what_a_plain_run_makes(project):
    text = 'it\'s a "description" of $HOME'
    whole, change = project(), ("--set", "train-svm.seed=5", "--set", f"description={text}")
    assert "no job is queued" in whole.call("cancel").stdout
    printed = whole.submit(*change).stdout
    assert "9 jobs submitted" in printed
    assert f"extract@train: job {job_of(printed, 'extract@train')}, 2 tasks, after" in printed
    again = whole.submit(*change).stdout
    assert again.count("not submitted again") + again.count("complete, not submitted") == 9
    assert "0 jobs submitted" in again
    alone = whole.folder / "alone"
    rcnn("run", whole.recipe, *change, "--jobs", 1, work=alone)
    whole.wait("eval", *change)
    made = contents(whole.work)
    assert made == contents(alone), whole.report()
    assert len(made) == 9
    assert {read_json(path)["recipe"]["description"] for path in whole.work.glob("caches/*/*/manifest.json")} == {text}
    assert whole.status(*change).count("complete (") == 9
    # the job goes on to tables and pictures when its cache is complete
    log = next((whole.work / "logs").glob("small-eval-*.log"))
    whole.until(lambda: "Results, precision-recall curves" in log.read_text(), "the evaluation's results are written")
    assert "mAP" in log.read_text()
    assert (whole.work / "results" / "small" / "precision-recall.png").exists()
    assert whole.submit(*change).stdout.count("complete, not submitted") == 9


def test_two_submits_at_once_submit_once(gated):
    twice = gated()
    processes = [twice.start("submit", "--cluster", twice.cluster) for _ in range(3)]
    outputs = [finished(process).stdout for process in processes]
    submitted = [match[1] for output in outputs if (match := re.search(r"(\d+) jobs submitted", output))]
    assert len(submitted) == 3, outputs
    assert sum(map(int, submitted)) == 2, outputs
    assert len({job_of(one, "propose@train") for one in outputs}) == 1
    assert not list((twice.work / "jobs").glob("submitting*"))


def test_a_preempted_task_gives_back_its_part_and_goes_on_later(gated):
    gated = gated(cpus=2)
    job = job_of(gated.submit().stdout, "propose@train")
    gated.until_at_gate(job)
    assert f"propose@train  4 of 16 images  [job {job}: 2 running]" in gated.status()
    busy = gated.folder / "busy"
    busy.touch()
    urgent = ["--partition=urgent", "--cpus-per-task=4", "--output=/dev/null", "--parsable"]
    other = gated.slurm.call("sbatch", *urgent, f"--wrap=while test -e '{busy}'; do sleep 0.1; done").strip()
    gated.until(lambda: gated.slurm.states()[other] == "RUNNING", "the urgent job has taken the place")
    assert [gated.log(job, task).count(TERMINATED) for task in (1, 2)] == [1, 1], gated.report()
    assert gated.claims() == []
    assert re.search(rf"\[job {job}: 2 pending \(\w+\)\]", gated.status())
    before = gated.parts()
    assert len(before) == 4
    busy.unlink()
    assert gated.goes_on(before)
    assert re.search(r"resuming: \d+ of 16 are done", gated.log(job, 1).partition(TERMINATED)[2])


def test_a_task_that_dies_with_its_node_goes_on_elsewhere(gated):
    gated = gated()
    job = job_of(gated.submit().stdout, "propose@train")
    gated.until_at_gate(job)
    processes = [process for task in (1, 2) for process in gated.slurm.processes_of(f"{job}_{task}")]
    gated.slurm.end("slurmd", signal.SIGKILL)
    for process in processes:
        os.kill(process, signal.SIGKILL)
    before = gated.parts()
    assert gated.tasks_with_claims() == {1, 2}
    gated.slurm.call("scontrol", "update", f"nodename={gated.slurm.host}", "state=down", "reason=no power")
    gated.slurm.start_node()
    gated.until(lambda: gated.running(job), "the tasks run again")
    assert gated.goes_on(before)
    assert TERMINATED not in gated.log(job, 1) + gated.log(job, 2)
    assert re.search(r"resuming: \d+ of 16 are done", gated.log(job, 1))
    assert gated.claims() == []


def test_a_task_that_fails_for_good_is_told_and_only_what_is_missing_is_submitted_again(project):
    poor = project(SHORT, FAILING)
    printed = poor.submit().stdout
    first, second = job_of(printed, "propose@train"), job_of(printed, "extract@train")
    poor.until(poor.slurm.is_empty, "all jobs have ended")
    states = poor.slurm.states()
    assert [states[f"{first}_{task}"] for task in (1, 2)] == ["COMPLETED", "FAILED"]
    assert [states[f"{second}_{task}"] for task in (1, 2)] == ["CANCELLED", "CANCELLED"]
    status = poor.call("status", check=False)
    assert status.returncode == 1
    assert f"propose@train  8 of 16 images  [job {first}: 1 done, 1 failed]" in status.stdout
    assert f"small-propose@train-{first}_2.log: the file system is not mounted here" in status.stdout
    assert f"extract@train  missing  [job {second}: 2 cancelled]" in status.stdout
    poor.cluster.write_text(CLUSTER)
    before = poor.parts()
    again = poor.submit().stdout
    third = job_of(again, "propose@train")
    assert f"propose@train: job {third}, 1 of 2 tasks (the others have made their parts)" in again
    poor.wait("extract")
    after = poor.parts()
    assert {path: after[path] for path in before} == before
    assert {task for task in poor.slurm.states() if task.startswith(f"{third}_")} == {f"{third}_2"}


def test_a_task_that_is_told_to_end_has_failed_and_gives_back_its_part(gated):
    gated = gated(cpus=2)
    printed = gated.submit().stdout
    job, next_job = job_of(printed, "propose@train"), job_of(printed, "extract@train")
    gated.until_at_gate(job)
    gated.slurm.call("scancel", "--signal=TERM", "--full", f"{job}_1", f"{job}_2")
    gated.until(gated.slurm.is_empty, "all jobs have ended")
    assert gated.gate.exists()
    assert "ExitCode=143:0" in gated.slurm.call("scontrol", "show", "job", f"{job}_1")
    assert gated.claims() == []
    status = gated.status()
    assert f"[job {job}: 2 failed]" in status
    assert status.count(f".log: {TERMINATED}") == 2
    assert f"[job {next_job}: 1 cancelled]" in status
    before = gated.parts()
    assert "2 jobs submitted" in gated.submit().stdout
    assert gated.goes_on(before)


def test_cancel_ends_all_jobs_and_keeps_what_is_finished(gated):
    gated = gated()
    job = job_of(gated.submit().stdout, "propose@train")
    gated.until_at_gate(job)
    before = gated.parts()
    assert gated.call("cancel").stdout.startswith(f"Cancelled: {job}, ")
    gated.until(gated.slurm.is_empty, "nothing is queued or runs")
    assert gated.slurm.states()[f"{job}_1"] == "CANCELLED"
    assert gated.log(job, 1).count(TERMINATED) == 1
    assert gated.claims() == []
    assert gated.parts() == before
    assert "[job" not in gated.status()
    assert "no job is queued" in gated.call("cancel").stdout
    assert "2 jobs submitted" in gated.submit().stdout
    assert gated.goes_on(before)


def test_a_controller_that_is_killed_and_restarted_loses_nothing(gated):
    gated, saved = gated(), b"so that the state is written"
    printed = gated.submit().stdout
    job, next_job = job_of(printed, "propose@train"), job_of(printed, "extract@train")
    gated.until_at_gate(job)
    gated.slurm.call("scontrol", "update", f"jobid={next_job}", f"comment={saved.decode()}")
    gated.until(lambda: saved in (gated.slurm.folder / "state" / "job_state").read_bytes(), "the state is written")
    gated.slurm.end("slurmctld", signal.SIGKILL)
    try:
        asked = [gated.start("status"), gated.start("submit", "--cluster", gated.cluster)]
        before = gated.parts()
        status, submit = (finished(process, check=False) for process in asked)
    finally:
        gated.slurm.start_controller()
    assert re.search(
        rf"^propose@train  4 of 16 images  \[job {job}: state unknown "
        r"\(squeue: failed \(.*controller.*\); check with .*\)\]$",
        status.stdout,
        re.MULTILINE,
    ), status.stdout + status.stderr
    assert submit.returncode == 2
    assert re.fullmatch(
        r"rcnn: squeue: failed \(.*controller.*\); check with `scontrol ping` and try again\n", submit.stderr
    )
    assert gated.running(job)
    assert "0 jobs submitted" in gated.submit().stdout
    assert gated.goes_on(before)
    gated.until(lambda: gated.slurm.states()[next_job] == "COMPLETED", "the job that waited has run")


def test_a_job_that_slurm_refuses_is_a_sentence_and_those_before_it_stay(project):
    poor = project(SHORT, f'{CLUSTER}\npartition = "nowhere"\n'.replace("[detect]", "[extract-again]"))
    with poor.recipe.open("a") as recipe:
        recipe.write('\n[extract-again]\nstage = "extract"\nlayers = ["pool4"]\npadding = 4\n')
    done = poor.submit(check=False)
    assert done.returncode == 2
    assert re.search(
        r"^rcnn: extract-again@train: sbatch: failed \(invalid partition.*\); correct its table in .*cluster\.toml and "
        r"submit again; jobs already submitted remain$",
        done.stderr,
        re.MULTILINE,
    ), done.stderr
    poor.cluster.write_text(CLUSTER)
    again = poor.submit().stdout
    assert "1 job submitted" in again
    assert job_of(again, "extract-again@train")


def test_an_array_that_was_submitted_by_hand(project):
    alone = project(SHORT)
    slurm = alone.slurm
    line, environment = command("propose", alone.recipe, "--part-size", 1, "--shard", "array", work=alone.work)
    script = f"#!/bin/bash\nexec {shlex.join(line)}\n"
    for array, states in (("2,4,8", ["COMPLETED", "COMPLETED", "FAILED"]), ("3-9:2", ["COMPLETED"] * 4)):
        output = f"--output={alone.folder}/%A_%a.txt"
        call = ["sbatch", "--parsable", "--array", array, f"--chdir={PROJECT}", output]
        done = subprocess.run(
            call, input=script, env={**environment, **slurm.variables}, capture_output=True, text=True, check=True
        )
        job = done.stdout.strip()
        alone.until(slurm.is_empty, "the array has ended")
        assert [state for task, state in sorted(slurm.states().items()) if task.startswith(f"{job}_")] == states
        if "FAILED" in states:
            said = (alone.folder / f"{job}_8.txt").read_text()
            assert "SLURM_ARRAY_TASK_ID = 8 is not one of 3 tasks numbered without gaps" in said
    assert "propose@train  complete" in alone.status()


def test_an_ordinary_user_with_a_first_cluster_file(slurm_of_nobody):
    folder = Path(tempfile.mkdtemp(prefix="rcnn-nobody-"))
    try:
        ordinary = Project(folder, slurm_of_nobody, SHORT, CLUSTER)
        shutil.chown(folder, slurm_of_nobody.user)
        ordinary.cluster.unlink()
        ordinary.submit("--init")
        written = ordinary.cluster.read_text()
        assert "# main*      none        1      4 " in written
        assert 'partition = "main"       # the default partition' in written
        assert "2 jobs submitted" in ordinary.submit().stdout
        ordinary.wait("extract")
        assert ordinary.status().count("complete (") == 2
        assert {path.owner() for path in ordinary.parts()} == {slurm_of_nobody.user}
    finally:
        shutil.rmtree(folder)
