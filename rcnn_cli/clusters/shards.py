"""`--shard`: I/N, or `array`, which takes the shard from the batch system's array job.

Only `--shard array` looks at the batch system's variables: a job's environment must not divide a command that did not
ask for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cache import Shard
from stages.contract.errors import StageError

ARRAY = "array"


def parse_shard(text: str | None, environment: Mapping[str, str]) -> Shard:
    """The shard named by "3/16", "array" or "array/16". Raises StageError or CacheError."""
    if not text:
        return Shard()
    word, slash, width = text.strip().partition("/")
    if word != ARRAY:
        return Shard.parse(text)
    if slash and not re.fullmatch(r"[1-9]\d*", width):
        raise StageError(f"--shard {text}: must be written array/N with N >= 1, for example array/16")
    return array_shard(text, environment, int(width) if slash else None)


def array_shard(text: str, environment: Mapping[str, str], width: int | None) -> Shard:
    """The shard of this array-job task; with `width`, its task number in an array 1-`width`. Raises StageError."""
    tasks = (find(environment) for find in (slurm_task, grid_engine_task, lsf_task, pbs_task))
    task = next((task for task in tasks if task is not None), None)
    if task is None:
        raise StageError(
            f"--shard {text}: this is not an array-job task (no SLURM_ARRAY_TASK_ID, SGE_TASK_ID, LSB_JOBINDEX, "
            "PBS_ARRAY_INDEX or PBS_ARRAYID); write --shard I/N"
        )
    count = width or task.count
    index = number(environment, task.variable) if width else task.place
    if count is None or index is None:
        raise StageError(
            f"--shard {text}: {task.variable} does not say how many tasks there are; write --shard array/N"
        )
    if not 1 <= index <= count:
        raise StageError(
            f"--shard {text}: {task.variable} = {environment[task.variable]} is not one of {count} tasks "
            "numbered without gaps; submit the array 1-N and write --shard array/N"
        )
    return Shard(index, count)


@dataclass(frozen=True)
class Task:
    """A task of an array job: its place (from 1) among `count` tasks (None: unknown), as `variable` gives it."""

    variable: str
    place: int
    count: int | None


def slurm_task(environment: Mapping[str, str]) -> Task | None:
    """The task in Slurm, with any first index and step."""
    index = number(environment, "SLURM_ARRAY_TASK_ID")
    if index is None:
        return None
    count = number(environment, "SLURM_ARRAY_TASK_COUNT")
    first = number(environment, "SLURM_ARRAY_TASK_MIN")
    step = number(environment, "SLURM_ARRAY_TASK_STEP") or 1
    return Task("SLURM_ARRAY_TASK_ID", place(index, 1 if first is None else first, step), count)


def grid_engine_task(environment: Mapping[str, str]) -> Task | None:
    """The task in Grid Engine ("undefined" outside array jobs), with any first index and step."""
    index = number(environment, "SGE_TASK_ID")
    if index is None:
        return None
    first = number(environment, "SGE_TASK_FIRST") or 1
    step = number(environment, "SGE_TASK_STEPSIZE") or 1
    last = number(environment, "SGE_TASK_LAST")
    return Task("SGE_TASK_ID", place(index, first, step), None if last is None else (last - first) // step + 1)


def lsf_task(environment: Mapping[str, str]) -> Task | None:
    """The task in LSF (0 outside array jobs), with any step; LSF does not give the first index, assumed to be 1."""
    index = number(environment, "LSB_JOBINDEX")
    if not index:
        return None
    step = number(environment, "LSB_JOBINDEX_STEP") or 1
    last = number(environment, "LSB_JOBINDEX_END")
    return Task("LSB_JOBINDEX", place(index, 1, step), None if last is None else (last - 1) // step + 1)


def pbs_task(environment: Mapping[str, str]) -> Task | None:
    """The task in PBS Pro, OpenPBS or Torque, counted from 1; they do not give the number of tasks."""
    for variable in ("PBS_ARRAY_INDEX", "PBS_ARRAYID"):
        index = number(environment, variable)
        if index is not None:
            return Task(variable, index, None)
    return None


def place(index: int, first: int, step: int) -> int:
    """The place, from 1, of `index` in first, first + step, ...; 0 if it is not among them."""
    steps, remainder = divmod(index - first, step)
    return 0 if remainder else steps + 1


def number(environment: Mapping[str, str], name: str) -> int | None:
    """An environment variable as an integer; None if it is not one."""
    text = environment.get(name, "")
    return int(text) if re.fullmatch(r"\d+", text) else None
