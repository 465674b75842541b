"""What rcnn asks of Slurm: sbatch, squeue and scancel, and nothing that needs an accounting database."""

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
# Of the variables by which people set defaults for these commands, those that would hide or keep jobs from rcnn
MISLEADING = ("SQUEUE_", "SCANCEL_", "SBATCH_WAIT", "SBATCH_TEST_ONLY")
PREFIX = re.compile(r"^\w+: (error|fatal): ")


@dataclass(frozen=True)
class TaskState:
    """A task as squeue shows it: "RUNNING", the reason why a pending one waits, the job's name."""

    state: str
    reason: str
    name: str

    @property
    def ended(self) -> bool:
        """Whether the task is no longer in the queue."""
        return self.state in ENDED

    @property
    def active(self) -> bool:
        """Whether the task runs or will run."""
        return not self.ended and self.reason != NEVER


Queue = Mapping[tuple[str, int], TaskState]


def read_queue() -> Queue:
    """The states of this user's tasks by (job id, task), those included that ended lately. A plain job is task 1.

    Raises ClusterError where Slurm does not answer, or not as expected.
    """
    fields = "--format=%F|%K|%T|%r|%j|"  # the last stroke shows that a line is whole
    line = ["squeue", "--noheader", "--all", "--array", "--states=all", f"--user={os.getuid()}", fields]
    queue = {}
    for found in call(line, otherwise="ask `scontrol ping` and try again").splitlines():
        values = found.strip().split("|", 4)
        if len(values) < 5 or not values[0].isdigit() or not values[4].endswith("|"):
            raise ClusterError(f"squeue: printed {found!r}, which is not a task; see what `{shlex.join(line)}` prints")
        job, task, state, reason, name = values
        queue[job, int(task) if task.isdigit() else 1] = TaskState(state, reason, name.removesuffix("|"))
    return queue


def submit_script(script: Script) -> str:
    """The id of the job that sbatch makes of a script. Raises ClusterError with what sbatch says."""
    printed = call(["sbatch", "--parsable", *script.arguments], script.text, patience=None).strip().partition(";")[0]
    if not re.fullmatch(r"\d+", printed):
        raise ClusterError(f"sbatch: printed {printed!r}, which is not a job id")
    return printed


def cancel_jobs(jobs: Sequence[str]) -> None:
    """Ends jobs; one that has ended already is no error."""
    call(["scancel", *jobs])


def call(
    line: Sequence[str], given: str = "", *, patience: float | None = PATIENCE_SECONDS, otherwise: str = ""
) -> str:
    """What a command of Slurm prints. Raises ClusterError if it is not there or fails; `otherwise` is the advice."""
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
        raise ClusterError(f"{line[0]}: " + cannot("be run", error, "ask whoever administers this cluster")) from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{line[0]}: gave no answer within {patience} s{advice}") from error
    if done.returncode:
        said = "; ".join(PREFIX.sub("", one).strip() for one in done.stderr.splitlines() if one.strip())
        said = said or f"exit status {done.returncode}"
        raise ClusterError(f"{line[0]}: failed ({said}){advice}")
    return done.stdout
