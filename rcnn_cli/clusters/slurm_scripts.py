"""The sbatch script of a node: plain text, made from the node and the resources that its tasks request."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rcnn_cli.clusters.cluster_file import ClusterError, Resources
from rcnn_cli.recipes.graph import Node

PLAIN = re.compile(r"[\w@%+=:,./<>-]*")


@dataclass(frozen=True)
class Submission:
    """What all scripts of one `rcnn submit` share: the recipe, its --set changes, absolute folders, and --log-to.

    Raises ClusterError for a folder that sbatch cannot write logs to, such as one with a backslash in its name.
    """

    recipe: Path
    name: str
    changes: tuple[str, ...]
    work: Path
    folder: Path
    log_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for folder in (self.work, self.folder):
            if "\\" in str(folder) or not str(folder).isprintable():
                raise ClusterError(
                    f"{str(folder)!r}: sbatch cannot use a folder with a backslash or a control character in its name; "
                    "choose another --work, or submit from another folder"
                )

    @property
    def logs(self) -> Path:
        """The folder for the tasks' output."""
        return self.work / "logs"


@dataclass(frozen=True)
class Script:
    """What sbatch is given: the script and, as arguments, a copy of the options in it.

    In the script alone, variables such as SBATCH_PARTITION in the environment of `rcnn submit` would override them.
    """

    text: str
    arguments: tuple[str, ...]


def readable_name(submission: Submission, node: Node) -> str:
    """ "recipe-extract@train", without characters that file names or sbatch do not allow."""
    return re.sub(r"[^\w.@+-]", "-", f"{submission.name}-{node.name}")


def job_name(submission: Submission, node: Node, key: str) -> str:
    """The job's name, which ends in eight hexadecimal digits derived from the cache and its work folder.

    A cluster that has lost its state numbers jobs from 1 again; the name then shows that a recorded id is another job.
    """
    digest = hashlib.sha256(os.fsencode(f"{submission.work}\n{key}")).hexdigest()[:8]
    return f"{readable_name(submission, node)}.{digest}"


def log_pattern(submission: Submission, node: Node, resources: Resources) -> str:
    """The tasks' log file, with %A and %a (or %j) for the ids of job and task."""
    folder, ids = str(submission.logs).replace("%", "%%"), "%A_%a" if resources.array > 1 else "%j"
    return f"{folder}/{readable_name(submission, node)}-{ids}.log"


def log_file(pattern: str, job: str, task: int) -> Path:
    """The log file of one task."""
    values = {"%%": "%", "%A": job, "%j": job, "%a": str(task)}
    return Path(re.sub("%[%Aja]", lambda match: values[match[0]], pattern))


def sbatch_script(
    submission: Submission,
    node: Node,
    key: str,
    resources: Resources,
    tasks: Sequence[int],
    dependencies: Sequence[str],
) -> Script:
    """The script that makes `node` or, with an array, its shards `tasks` (from 1).

    `key` is the cache's; `dependencies` are in sbatch's form, e.g. "afterok:12".
    """
    options = sbatch_options(submission, node, key, resources, tasks, dependencies)
    lines = ["#!/bin/bash", *[f"#SBATCH {quoted(option)}" for option in options]]
    lines += [f"#SBATCH {option}" for option in resources.sbatch]
    lines += ["", "set -e", f"export OMP_NUM_THREADS={resources.cpus}", *resources.setup, ""]
    lines += ["# exec: SIGTERM (preemption, scancel, the time limit) reaches rcnn itself, which shuts down cleanly"]
    lines += [f"exec {rcnn_command(submission, node, resources)}"]
    arguments = [*options, *[word for option in resources.sbatch for word in shlex.split(option)]]
    return Script("\n".join(lines) + "\n", tuple(arguments))


def sbatch_options(
    submission: Submission,
    node: Node,
    key: str,
    resources: Resources,
    tasks: Sequence[int],
    dependencies: Sequence[str],
) -> list[str]:
    """The sbatch options, except those given verbatim in cluster.toml."""
    at_once = f"%{resources.array_at_once}" if resources.array_at_once else ""
    options = [
        ("job-name", job_name(submission, node, key)),
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
    return [f"--{name}={value}" if value else f"--{name}" for name, value in options if value is not None]


def quoted(option: str) -> str:
    """An option for an #SBATCH line, its value in double quotes if sbatch would otherwise split it."""
    name, equals, value = option.partition("=")
    if PLAIN.fullmatch(value):
        return option
    return f'{name}{equals}"{value.replace(chr(92), chr(92) * 2).replace(chr(34), chr(92) + chr(34))}"'


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
    words += ["--jobs", str(resources.cpus), *device]
    words += ["--log-to", ",".join(submission.log_to)] if submission.log_to and node.use.stage.log else []
    words += resources.options
    call = resources.command or shlex.join([sys.executable, "-m", "rcnn_cli"])
    return f"{call} {shlex.join(words)} --shard {shard}"
