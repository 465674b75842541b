"""`rcnn submit` and what follows it on a real Slurm of one node."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.pipeline import PROJECT, command, contents, rcnn, write_recipe

CLUSTER = """
[default]
time = "00:10:00"
cpus = 1
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
images = {images}
[network]
name = "shapenet"
weights = "random"
[propose]
method = "sliding-window"
max_boxes = 5
[extract]
layers = ["pool4"]
"""
SLOW = f"""
[propose]
array = 2
options = ["--part-size", "1"]
command = '"{sys.executable}" "{PROJECT / "tests" / "slurm" / "slowly.py"}"'
"""
FAILING = """
[propose]
array = 2
setup = ['test $SLURM_ARRAY_TASK_ID != 2 || { echo "the file system is not mounted here"; exit 3; }']
[extract]
array = 2
"""
TIMEOUT = 600


class Project:
    """A recipe with a cluster.toml and a work folder whose name has a space, and `rcnn` on them."""

    def __init__(self, folder, slurm, recipe, cluster):
        self.slurm = slurm
        self.folder = folder
        self.work = folder / "the work"
        self.recipe = write_recipe(folder, recipe) if recipe else write_recipe(folder)
        self.cluster = folder / "cluster.toml"
        self.cluster.write_text(cluster)

    def call(self, name, *arguments, check=True):
        line, environment = command(name, self.recipe, *arguments, work=self.work)
        environment = {**environment, **{key: self.slurm.environment[key] for key in ("PATH", "SLURM_CONF")}}
        done = subprocess.run(line, env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=TIMEOUT)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def submit(self, *arguments, check=True):
        return self.call("submit", "--cluster", self.cluster, *arguments, check=check)

    def wait(self, name, *arguments):
        done = self.call("wait", name, *arguments, "--timeout", TIMEOUT, check=False)
        assert done.returncode == 0, done.stderr + self.report()

    def ended(self):
        return not self.slurm.call("squeue", "--noheader", f"--user={os.getuid()}")

    def parts(self, stage="propose"):
        return {path: path.stat().st_mtime_ns for path in (self.work / "caches" / stage).glob("*/part-*.h5")}

    def report(self):
        logs = "".join(f"\n--- {path.name}\n{path.read_text()}" for path in sorted((self.work / "logs").glob("*")))
        return f"{self.slurm.view()}{logs}"


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
    slurm.call("scancel", f"--user={os.getuid()}")
    slurm.until(lambda: not slurm.call("squeue", "--noheader"), 30, "the jobs of the last test have ended")


def test_a_whole_recipe_goes_through_and_is_what_a_plain_run_makes(project):
    whole = project()
    assert "no job is queued" in whole.call("cancel").stdout
    printed = whole.submit("--set", "train-svm.seed=5").stdout
    assert "9 jobs submitted" in printed
    assert f"extract@train: job {job_of(printed, 'extract@train')}, 2 tasks, after" in printed
    again = whole.submit("--set", "train-svm.seed=5").stdout
    assert again.count("not submitted again") + again.count("complete, not submitted") == 9
    assert "0 jobs submitted" in again
    alone = whole.folder / "alone"
    rcnn("run", whole.recipe, "--set", "train-svm.seed=5", "--jobs", 1, work=alone)
    whole.wait("eval")
    assert contents(whole.work) == contents(alone), whole.report()
    assert whole.call("status", "--set", "train-svm.seed=5").stdout.count("complete (") == 9
    assert "mAP" in next((whole.work / "logs").glob("small-eval-*.log")).read_text()
    assert (whole.work / "results" / "small" / "precision-recall.png").exists()
    assert whole.submit("--set", "train-svm.seed=5").stdout.count("complete, not submitted") == 9


def test_a_requeued_task_goes_on_with_its_parts(project):
    slow = project(SHORT.format(images=60), SLOW)
    job = job_of(slow.submit("--set", "propose.seed=1").stdout, "propose@train")
    slow.slurm.until(lambda: len(slow.parts()) >= 6, 60, "some parts are there")
    assert f"[job {job}: " in slow.call("status", "--set", "propose.seed=1", check=False).stdout
    slow.slurm.call("scontrol", "requeue", f"{job}_1")
    log = slow.work / "logs" / f"small-propose@train-{job}_1.log"
    slow.slurm.until(lambda: "rcnn: terminated; what is finished is kept" in log.read_text(), 30, "it ends in order")
    before = slow.parts()
    slow.wait("propose", "--set", "propose.seed=1")
    assert re.search(
        r"propose@train: \d+ images, resuming: \d+ of 60 are there", log.read_text().partition("termin")[2]
    )
    after = slow.parts()
    assert {path: after[path] for path in before} == before
    assert len(after) == 60
    assert not list(slow.work.glob("caches/propose/*/claims/part-*"))


def test_a_task_that_fails_for_good_is_told_and_only_what_is_missing_is_submitted_again(project):
    poor = project(SHORT.format(images=32), FAILING)
    printed = poor.submit().stdout
    first, second = job_of(printed, "propose@train"), job_of(printed, "extract@train")
    poor.slurm.until(lambda: poor.slurm.states().get(f"{first}_2") == "FAILED", 60, "task 2 fails")
    poor.slurm.until(lambda: poor.ended(), 60, "the rest ends")
    assert {poor.slurm.states()[f"{second}_{task}"] for task in (1, 2)} == {"CANCELLED"}
    status = poor.call("status", check=False)
    assert status.returncode == 1
    assert re.search(rf"propose@train  16 of 32 images  \[job {first}: 1 done, 1 failed\]", status.stdout), (
        status.stdout
    )
    assert f"small-propose@train-{first}_2.log: the file system is not mounted here" in status.stdout
    assert f"extract@train  missing  [job {second}: 2 cancelled]" in status.stdout
    poor.cluster.write_text(CLUSTER)
    before = poor.parts()
    again = poor.submit().stdout
    assert "1 of 2 tasks: the others have made their parts" in again
    poor.wait("extract")
    after = poor.parts()
    assert {path: after[path] for path in before} == before


def test_cancel_ends_all_jobs_and_keeps_what_is_finished(project):
    slow = project(SHORT.format(images=60), SLOW)
    slow.submit()
    slow.slurm.until(lambda: len(slow.parts()) >= 2, 60, "some parts are there")
    assert slow.call("cancel").stdout.startswith("Cancelled: ")
    slow.slurm.until(lambda: slow.ended(), 30, "nothing runs")
    assert "CANCELLED" in slow.slurm.states().values()
    assert not list(slow.work.glob("caches/propose/*/claims/part-*"))
    before = slow.parts()
    assert 2 <= len(before) < 60
    assert "[job" not in slow.call("status", check=False).stdout
    assert "no job is queued" in slow.call("cancel").stdout


def test_a_controller_that_is_restarted_loses_nothing(project):
    slow = project(SHORT.format(images=30), SLOW)
    printed = slow.submit().stdout
    slow.slurm.until(lambda: len(slow.parts()) >= 2, 60, "some parts are there")
    slow.slurm.end("slurmctld")
    try:
        status = slow.call("status", check=False)
        down = slow.submit(check=False)
    finally:
        slow.slurm.call("slurmctld")
    assert "state unknown (squeue: failed" in status.stdout or status.returncode == 0  # a slow machine: all done by now
    assert (down.returncode, down.stderr.startswith("rcnn: squeue: failed (")) == (2, True), down.stderr
    assert "0 jobs submitted" in slow.submit().stdout
    slow.wait("extract")
    assert job_of(printed, "extract@train") in slow.slurm.states()


def test_a_job_that_slurm_refuses_is_a_sentence(project):
    poor = project(SHORT.format(images=4), '[default]\npartition = "nowhere"\n')
    shutil.rmtree(poor.work, ignore_errors=True)
    done = poor.submit(check=False)
    assert done.returncode == 2
    assert re.search(
        r"rcnn: propose@train: sbatch: failed \(.*invalid partition.*\); correct its table in", done.stderr
    )
