"""Calls to Slurm's sbatch, squeue, scancel and sinfo; nothing that needs an accounting database."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cache.files import cannot
from rcnn_cli.clusters.cluster_file import ClusterError
from rcnn_cli.clusters.slurm_scripts import Script

ENDED = frozenset(
    ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED")
    + ("TIMEOUT",)
)
NEVER = "DependencyNeverSatisfied"
PATIENCE_SECONDS = 120
# Variables that set defaults for these commands and would hide jobs from rcnn or keep it from submitting
MISLEADING = ("SQUEUE_", "SCANCEL_", "SINFO_", "SBATCH_WAIT", "SBATCH_TEST_ONLY")
PREFIX = re.compile(r"^\w+: (error|fatal): ")


@dataclass(frozen=True)
class TaskState:
    """A task as squeue shows it: state ("RUNNING"), the reason why a pending task waits, the job's name."""

    state: str
    reason: str
    name: str

    @property
    def ended(self) -> bool:
        """Whether the task is no longer in the queue."""
        return self.state in ENDED

    @property
    def active(self) -> bool:
        """Whether the task is running or will run."""
        return not self.ended and self.reason != NEVER


Queue = Mapping[tuple[str, int], TaskState]


def read_queue() -> Queue:
    """The states of this user's tasks, including recently ended ones, by (job id, task). A plain job is task 1.

    Raises ClusterError if Slurm does not answer, or not as expected.
    """
    fields = "--format=%F|%K|%T|%r|%j|"  # the last | shows that the line is complete
    line = ["squeue", "--noheader", "--all", "--array", "--states=all", f"--user={os.getuid()}", fields]
    queue = {}
    for row in call(line, otherwise="check with `scontrol ping` and try again").splitlines():
        values = row.strip().split("|", 4)
        if len(values) < 5 or not values[0].isdigit() or not values[4].endswith("|"):
            raise ClusterError(f"squeue: printed {row!r}, which is not a task; see what `{shlex.join(line)}` prints")
        job, task, state, reason, name = values
        queue[job, int(task) if task.isdigit() else 1] = TaskState(state, reason, name.removesuffix("|"))
    return queue


def submit_script(script: Script) -> str:
    """Submits a script; returns the job's id. Raises ClusterError with sbatch's message."""
    printed = call(["sbatch", "--parsable", *script.arguments], script.text, patience=None).strip().partition(";")[0]
    if not re.fullmatch(r"\d+", printed):
        raise ClusterError(f"sbatch: printed {printed!r}, which is not a job id")
    return printed


def cancel_jobs(jobs: Sequence[str]) -> None:
    """Cancels jobs; one that has already ended is not an error. Raises ClusterError."""
    call(["scancel", *jobs])


def call(
    line: Sequence[str], given: str = "", *, patience: float | None = PATIENCE_SECONDS, otherwise: str = ""
) -> str:
    """A Slurm command's output. Raises ClusterError if it is missing or fails, with the advice `otherwise`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(MISLEADING)}
    advice = f"; {otherwise}" if otherwise else ""
    try:
        done = subprocess.run(
            line,
            input=given,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=patience,
            env=environment,
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{line[0]}: not found; run this on a machine with Slurm's commands in PATH") from error
    except OSError as error:
        raise ClusterError(f"{line[0]}: " + cannot("be run", error, "ask the cluster's administrator")) from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{line[0]}: no answer within {patience} s{advice}") from error
    if done.returncode:
        reason = "; ".join(PREFIX.sub("", text).strip() for text in done.stderr.splitlines() if text.strip())
        reason = reason or f"exit status {done.returncode}"
        raise ClusterError(f"{line[0]}: failed ({reason}){advice}")
    return done.stdout
