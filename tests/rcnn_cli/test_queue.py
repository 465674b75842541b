"""`submit`, `cancel` and `status` with a queue that the tests write themselves, in the place of Slurm's."""

import json
import os
import subprocess
import sys
import threading

import pytest

from cache.claims import Claims
from rcnn_cli.clusters.jobs import SUBMITTING
from tests.in_process import caller

RECIPE = """
[datasets.train]
source = "shapes:train"
images = 4
[network]
name = "shapenet"
weights = "random"
[propose]
method = "sliding-window"
max_boxes = 5
[extract]
layers = ["pool4"]
"""
CLUSTER = """
[default]
partition = "main"
[propose]
array = 2
"""
# Each notes its arguments; sbatch counts its jobs, squeue prints what the test says that there is
SBATCH = """
import sys
from pathlib import Path
folder = Path(__file__).parent
if (folder / "refuse").exists():
    sys.exit((folder / "refuse").read_text())
job = len(list(folder.glob("job-*"))) + 1
(folder / f"job-{job}").write_text(chr(10).join(sys.argv[1:]))
(folder / f"script-{job}").write_text(sys.stdin.read())
print(job)
"""
SQUEUE = """
import os
from pathlib import Path
assert "SQUEUE_PARTITION" not in os.environ
print((Path(__file__).parent / "queue").read_text(), end="")
"""
SCANCEL = """
import sys
from pathlib import Path
with (Path(__file__).parent / "cancelled").open("a") as log:
    print(*sys.argv[1:], file=log)
"""


class Cluster:
    """Commands of the names of Slurm's, the queue that they show, and what they were asked."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        for name, program in (("sbatch", SBATCH), ("squeue", SQUEUE), ("scancel", SCANCEL)):
            (folder / name).write_text(f"#!{sys.executable} -I\n{program}")
            (folder / name).chmod(0o755)
        self.show()

    def show(self, *tasks):
        """What squeue shows from now on: (job, task, state) or (job, task, state, name)."""
        lines = []
        for job, task, state, *name in tasks:
            array = task if task else "N/A"
            lines.append(f"{job}|{array}|{state}|None|{name[0] if name else self.name(job)}|\n")
        (self.folder / "queue").write_text("".join(lines))

    def options(self, job):
        """sbatch's options of a job, by name."""
        lines = (self.folder / f"job-{job}").read_text().splitlines()
        return dict(line.removeprefix("--").partition("=")[::2] for line in lines)

    def name(self, job):
        return self.options(job)["job-name"]

    def jobs(self):
        return len(list(self.folder.glob("job-*")))

    def cancelled(self):
        path = self.folder / "cancelled"
        return path.read_text().split() if path.exists() else []


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    made = Cluster(tmp_path / "commands")
    monkeypatch.setenv("PATH", str(made.folder))
    monkeypatch.setenv("SQUEUE_PARTITION", "urgent")
    return made


@pytest.fixture
def call(cluster, tmp_path, capsys, monkeypatch):
    """Calls `rcnn` in this process in a folder with r.toml and cluster.toml: (exit code, output, errors)."""
    (tmp_path / "r.toml").write_text(RECIPE)
    (tmp_path / "cluster.toml").write_text(CLUSTER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RCNN_WORK", raising=False)
    return caller(capsys)


def propose(call, shard):
    assert call("run", "r.toml", "--only", "propose@train", "--part-size", 1, "--shard", shard, "--jobs", 1)[0] == 0


def test_what_is_queued_is_not_submitted_again(cluster, call):
    assert "2 jobs submitted" in call("submit", "r.toml")[1]
    assert cluster.options(1)["partition"] == "main"
    assert cluster.options(2)["dependency"] == "afterok:1"
    assert (cluster.folder / "script-1").read_text() in call("submit", "r.toml", "--dry-run")[1]
    cluster.show((1, 1, "RUNNING"), (1, 2, "PENDING"), (2, 0, "PENDING"))
    assert "0 jobs submitted" in call("submit", "r.toml")[1]
    assert cluster.jobs() == 2
    assert "[job 1: 1 running, 1 pending]" in call("status", "r.toml")[1]
    assert "Cancelled: 1, 2" in call("cancel", "r.toml")[1]
    assert cluster.cancelled() == ["1", "2"]


def test_the_number_of_a_job_that_is_another_today(cluster, call):
    call("submit", "r.toml")
    cluster.show((1, 1, "RUNNING", "somebody's"), (1, 2, "RUNNING", "somebody's"), (2, 0, "RUNNING", "r-extract@train"))
    assert "[job 1: 2 ended unfinished]" in call("status", "r.toml")[1]
    assert "no job is queued or running" in call("cancel", "r.toml")[1]
    assert cluster.cancelled() == []
    assert "2 jobs submitted" in call("submit", "r.toml")[1]


def test_two_work_folders_have_jobs_of_two_names(cluster, call):
    call("submit", "r.toml")
    call("submit", "r.toml", "--work", "other")
    assert cluster.name(1) != cluster.name(3)
    assert cluster.name(1).partition(".")[0] == cluster.name(3).partition(".")[0] == "r-propose@train"


def test_a_failed_task_beside_one_that_runs(cluster, call):
    call("submit", "r.toml")
    propose(call, "1/2")
    cluster.show((1, 1, "COMPLETED"), (1, 2, "FAILED"), (2, 0, "CANCELLED"))
    assert "[job 1: 1 done, 1 failed]" in call("status", "r.toml")[1]
    printed = call("submit", "r.toml")[1]
    assert "propose@train: job 3, 1 of 2 tasks (the others have made their parts)" in printed
    assert cluster.options(3)["array"] == "2"
    assert "dependency" not in cluster.options(3)
    cluster.show((3, 2, "RUNNING"), (4, 0, "PENDING"))
    assert "[job 3: 1 running]" in call("status", "r.toml")[1]
    assert "0 jobs submitted" in call("submit", "r.toml")[1]


def test_a_task_that_runs_is_waited_for_and_what_waits_for_the_failed_job_is_replaced(cluster, call):
    call("submit", "r.toml")
    cluster.show((1, 1, "RUNNING"), (1, 2, "FAILED"), (2, 0, "PENDING"))
    printed = call("submit", "r.toml")[1]
    assert "propose@train: job 3, 2 tasks" in printed
    assert cluster.options(3)["dependency"] == "afterany:1"
    assert "extract@train: job 4, after 3" in printed
    assert cluster.cancelled() == ["2"]
    cluster.show((1, 1, "RUNNING"), (3, 1, "PENDING"), (3, 2, "PENDING"), (4, 0, "PENDING"))
    status = call("status", "r.toml")[1]
    assert "[job 1: 1 running, 1 ended unfinished]" in status
    assert "job 3: 2 pending" in status


def test_parts_that_are_all_there_but_were_not_closed(cluster, call, tmp_path):
    call("submit", "r.toml")
    for shard in ("1/2", "2/2"):
        propose(call, shard)
    next((tmp_path / "work").glob("caches/propose/*/manifest.json")).unlink()
    cluster.show((1, 1, "COMPLETED"), (1, 2, "RUNNING"), (2, 0, "PENDING"))
    assert "0 jobs submitted" in call("submit", "r.toml")[1]
    cluster.show((1, 1, "COMPLETED"), (1, 2, "COMPLETED"), (2, 0, "FAILED"))
    assert "[job 1: 1 done, 1 ended unfinished]" in call("status", "r.toml")[1]
    assert "propose@train: job 3, 1 of 2 tasks" in call("submit", "r.toml")[1]
    assert cluster.options(3)["array"] == "1"


def test_a_cache_that_another_recipe_makes(cluster, call, tmp_path):
    call("submit", "r.toml")
    (tmp_path / "other.toml").write_text(RECIPE + "padding = 4\n")
    cluster.show((1, 1, "RUNNING"), (1, 2, "RUNNING"), (2, 0, "PENDING"))
    printed = call("submit", "other.toml")[1]
    assert "propose@train: job 1 is queued or running, not submitted again" in printed
    assert "extract@train: job 3, after 1" in printed
    assert "propose@train  missing  [job 1: 2 running]" in call("status", "other.toml")[1].replace("  (", " (")
    cluster.show((1, 1, "RUNNING"), (1, 2, "RUNNING"), (2, 0, "PENDING"), (3, 0, "PENDING"))
    assert "Cancelled: 3\n" in call("cancel", "other.toml")[1]


def test_two_uses_that_are_the_same_cache(cluster, call, tmp_path):
    (tmp_path / "r.toml").write_text(RECIPE + '[extract-again]\nstage = "extract"\nlayers = ["pool4"]\n')
    printed = call("submit", "r.toml")[1]
    assert "2 jobs submitted" in printed
    assert "extract-again@train: same cache as another table's, made by job 2" in printed
    assert call("submit", "r.toml", "--dry-run")[1].count("#!/bin/bash") == 2


@pytest.mark.parametrize("printed", ["1|1|RUNN\n", "CLUSTER: north\n", "1|1|RUNNING|None|r-prop"])
def test_a_queue_that_is_not_understood(cluster, call, printed):
    call("submit", "r.toml")
    (cluster.folder / "queue").write_text(printed)
    code, _, errors = call("submit", "r.toml")
    assert (code, errors.startswith("rcnn: squeue: printed '"), errors.count("\n")) == (2, True, 1), errors
    code, shown, _ = call("status", "r.toml")
    assert (code, "propose@train  missing  [job 1: state unknown (squeue: printed" in shown) == (1, True)
    assert cluster.jobs() == 2


def test_sbatch_that_refuses_says_nothing_or_is_not_there(cluster, call):
    (cluster.folder / "refuse").write_text("sbatch: error: no such account\nsbatch: fatal: not today")
    code, _, errors = call("submit", "r.toml")
    assert code == 2
    assert (
        "rcnn: propose@train: sbatch: failed (no such account; not today); correct its table in cluster.toml" in errors
    )
    (cluster.folder / "sbatch").write_text(f"#!{sys.executable}\n")
    assert "sbatch: printed '', which is not a job id" in call("submit", "r.toml")[2]
    (cluster.folder / "sbatch").chmod(0o644)
    assert "sbatch: cannot be run (Permission denied)" in call("submit", "r.toml")[2]
    (cluster.folder / "sbatch").unlink()
    assert "sbatch: not found" in call("submit", "r.toml")[2]


def test_what_was_submitted_before_a_refusal_is_known(cluster, call, tmp_path):
    (tmp_path / "work" / "jobs").mkdir(parents=True)
    program = (cluster.folder / "sbatch").read_text()
    (cluster.folder / "sbatch").write_text(f"{program}\n(folder / 'refuse').write_text('sbatch: error: enough')")
    code, printed, errors = call("submit", "r.toml")
    assert (code, "propose@train: job 1" in printed, "extract@train: sbatch: failed (enough)" in errors) == (
        2,
        True,
        True,
    )
    (cluster.folder / "refuse").unlink()
    cluster.show((1, 1, "RUNNING"), (1, 2, "RUNNING"))
    assert "1 job submitted" in call("submit", "r.toml")[1]


def test_a_second_submit_waits_for_the_first(cluster, call, tmp_path):
    first = Claims(tmp_path / "work" / "jobs")
    assert first.try_claim(SUBMITTING)
    threading.Timer(1, first.close).start()
    printed = call("submit", "r.toml")[1]
    assert printed.startswith("waiting for another `rcnn submit` or `rcnn cancel`")
    assert "2 jobs submitted" in printed


def test_a_submit_that_was_killed_is_not_waited_for(cluster, call, tmp_path):
    program = "import sys; from pathlib import Path; from cache.claims import Claims; c = Claims(Path(sys.argv[1])); "
    program += f"print(c.try_claim({SUBMITTING!r}), flush=True); import os; os.kill(os.getpid(), 9)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    line = [sys.executable, "-c", program, tmp_path / "work" / "jobs"]
    assert subprocess.run(line, env=environment, capture_output=True, text=True).stdout == "True\n"
    assert (tmp_path / "work" / "jobs" / SUBMITTING).exists()
    printed = call("submit", "r.toml")[1]
    assert "waiting" not in printed
    assert "2 jobs submitted" in printed
    assert not (tmp_path / "work" / "jobs" / SUBMITTING).exists()


def test_status_for_machines_has_the_jobs(cluster, call):
    call("submit", "r.toml")
    cluster.show((1, 1, "RUNNING"), (1, 2, "RUNNING"), (2, 0, "PENDING"))
    states = json.loads(call("status", "r.toml", "--json")[1])
    assert [state["jobs"] for state in states] == [["job 1: 2 running"], ["job 2: 1 pending"]]
