"""What rcnn asks of Slurm: sbatch, squeue and scancel, and nothing that needs an accounting database."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rcnn_cli.cluster import ClusterError

ENDED = frozenset(
    ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED")
    + ("TIMEOUT",)
)
NEVER = "DependencyNeverSatisfied"
PATIENCE_SECONDS = 120


@dataclass(frozen=True)
class TaskState:
    """A task as squeue shows it: "RUNNING", the reason why a pending one waits, the job's name."""

    state: str
    reason: str
    name: str

    @property
    def active(self) -> bool:
        """Whether the task runs or will run."""
        return self.state not in ENDED and self.reason != NEVER


Queue = Mapping[tuple[str, int], TaskState]


def read_queue() -> Queue:
    """The states of this user's tasks by (job id, task), those included that ended lately. A plain job is task 1."""
    fields = "--format=%F|%K|%T|%r|%j"
    text = call(["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", fields])
    queue = {}
    for line in text.splitlines():
        job, task, state, reason, name = line.strip().split("|", 4)
        queue[job, int(task) if task.isdigit() else 1] = TaskState(state, reason, name)
    return queue


def submit_script(script: str) -> str:
    """The id of the job that sbatch makes of a script. Raises ClusterError with what sbatch says."""
    return call(["sbatch", "--parsable"], script, patience=None).strip().partition(";")[0]


def cancel_jobs(jobs: Sequence[str]) -> None:
    """Ends jobs; one that has ended already is no error."""
    call(["scancel", *jobs])


def call(line: Sequence[str], given: str = "", patience: float | None = PATIENCE_SECONDS) -> str:
    """What a command of Slurm prints. Raises ClusterError if it is not there or fails."""
    try:
        done = subprocess.run(line, input=given, capture_output=True, text=True, timeout=patience)
    except FileNotFoundError as error:
        raise ClusterError(f"{line[0]}: is not installed here; run this where Slurm's commands are") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{line[0]}: gave no answer in {patience} s; ask `scontrol ping` and try again") from error
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise ClusterError(f"{line[0]}: failed ({said})")
    return done.stdout
