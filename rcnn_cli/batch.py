"""The sbatch script of one node of the graph: plain text, from a node and what its tasks ask for."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rcnn_cli.cluster import Resources
from rcnn_cli.graph import Node


@dataclass(frozen=True)
class Submission:
    """What all scripts of one `rcnn submit` share: recipe, its changes, folders (absolute)."""

    recipe: Path
    name: str
    changes: tuple[str, ...]
    work: Path
    folder: Path

    @property
    def logs(self) -> Path:
        """Where the tasks' output goes."""
        return self.work / "logs"


def job_name(submission: Submission, node: Node) -> str:
    """The job's name, without characters that a file name or sbatch could take amiss."""
    return re.sub(r"[^\w.@+-]", "-", f"{submission.name}-{node.name}")


def log_pattern(submission: Submission, node: Node, resources: Resources) -> str:
    """The tasks' log file, %A and %a (or %j) for the ids of job and task."""
    return str(submission.logs / f"{job_name(submission, node)}-{'%A_%a' if resources.array > 1 else '%j'}.log")


def log_file(pattern: str, job: str, task: int) -> Path:
    """The log file of one task."""
    return Path(pattern.replace("%A", job).replace("%j", job).replace("%a", str(task)))


def sbatch_script(
    submission: Submission, node: Node, resources: Resources, tasks: Sequence[int], dependencies: Sequence[str]
) -> str:
    """The script that makes `node`, or, with an array, those shards of it that `tasks` names (from 1).

    `dependencies` are sbatch's, as "afterok:12".
    """
    lines = ["#!/bin/bash", *directives(submission, node, resources, tasks, dependencies), "", "set -e"]
    lines += [f"export OMP_NUM_THREADS={resources.cpus}", *resources.setup, ""]
    lines += ["# exec: SIGTERM (preemption, scancel, the time limit) reaches rcnn itself, which ends in order"]
    lines += [f"exec {rcnn_command(submission, node, resources)}"]
    return "\n".join(lines) + "\n"


def directives(
    submission: Submission, node: Node, resources: Resources, tasks: Sequence[int], dependencies: Sequence[str]
) -> list[str]:
    """The #SBATCH lines."""
    at_once = f"%{resources.array_at_once}" if resources.array_at_once else ""
    options = [
        ("job-name", job_name(submission, node)),
        ("chdir", str(submission.folder)),
        ("output", log_pattern(submission, node, resources)),
        ("open-mode", "append"),
        ("array", f"{ranges(tasks)}{at_once}" if resources.array > 1 else None),
        ("dependency", ",".join(dependencies) or None),
        ("kill-on-invalid-dep", "yes"),
        ("requeue" if resources.requeue else "no-requeue", ""),
        ("partition", resources.partition),
        ("account", resources.account),
        ("time", resources.time),
        ("mem", resources.memory),
        ("cpus-per-task", str(resources.cpus)),
        ("gres", f"gpu:{resources.gpus}" if resources.gpus else None),
    ]
    said = [(name, value) for name, value in options if value is not None]
    lines = [f"#SBATCH --{name}={quoted(value)}" if value else f"#SBATCH --{name}" for name, value in said]
    return lines + [f"#SBATCH {option}" for option in resources.sbatch]


def quoted(value: str) -> str:
    """A value on a line of #SBATCH, in double quotes where it has a space."""
    return f'"{value}"' if " " in value else value


def ranges(tasks: Sequence[int]) -> str:
    """Task numbers as sbatch lists them: "1-4,7"."""
    groups: list[list[int]] = []
    for task in sorted(tasks):
        if groups and task == groups[-1][-1] + 1:
            groups[-1].append(task)
        else:
            groups.append([task])
    return ",".join(f"{group[0]}-{group[-1]}" if len(group) > 1 else str(group[0]) for group in groups)


def rcnn_command(submission: Submission, node: Node, resources: Resources) -> str:
    """The command line of a task."""
    shard = f'"$SLURM_ARRAY_TASK_ID/{resources.array}"' if resources.array > 1 else "1/1"
    changes = [part for change in submission.changes for part in ("--set", change)]
    device = ["--device", "cuda"] if resources.gpus else []
    words = ["run", str(submission.recipe), "--only", node.name, *changes, "--work", str(submission.work)]
    words += ["--jobs", str(resources.cpus), *device, *resources.options]
    call = resources.command or shlex.join([sys.executable, "-m", "rcnn_cli"])
    return f"{call} {shlex.join(words)} --shard {shard}"
