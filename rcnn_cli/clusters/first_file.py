"""`rcnn submit --init`: a first cluster.toml, its values chosen from a cluster's partitions and explained."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.files import write_atomically
from rcnn_cli.clusters.cluster_file import DEFAULT, ClusterError
from rcnn_cli.clusters.partitions import Partition
from rcnn_cli.outputs import check_writable
from rcnn_cli.recipes.recipe import Recipe
from rcnn_cli.running.device import runs_network
from stages.contract.card import Stage
from stages.contract.catalogue import catalogue
from stages.plurals import number_of

CORES = 8  # of one task; more help few stages, and wait longer for a free node
TASKS = 8  # of an array; more than a small dataset has parts bring nothing
GPU_TASKS = 4
MINUTES = 4 * 60
SMALLEST = 1024  # MiB of a node; Slurm says 1 where it was told nothing of the memory


@dataclass(frozen=True)
class Choice:
    """What a task gets of a partition: cores, the memory that goes with them in GiB (0: unknown), minutes; how many
    tasks an array has."""

    partition: Partition
    cpus: int
    memory: int
    minutes: int
    tasks: int


def write_first_file(path: Path, text: str) -> None:
    """Writes `text` to a new file. Raises ClusterError if there is one, StageError where none can be written."""
    check_writable("--cluster", path.parent)
    if path.exists() or path.is_symlink() or not write_atomically(path, [text.encode()], exclusive=True):
        raise ClusterError(f"{path}: already exists; name another file with --cluster, or move it away")


def first_file(partitions: Sequence[Partition], recipe: Recipe | None) -> str:
    """The text of a cluster.toml for the stages of a recipe, without one for all stages, on these partitions."""
    common = choose(for_processors(partitions), TASKS)
    gpus = for_gpus(partitions)
    on_gpus = choose_gpus(gpus) if gpus else None
    lines = [*overview(partitions), *table(DEFAULT, default_keys(common, on_gpus is not None))]
    explained = True
    for stage, on_network in stages_of(recipe):
        if on_network and on_gpus is not None:
            lines += table(stage.name, [*gpu_keys(on_gpus), *array_keys(stage, on_gpus.tasks)], explained)
            explained = False
        elif keys := array_keys(stage, common.tasks):
            lines += table(stage.name, keys)
    return "\n".join(lines) + "\n"


# What the stages need


def stages_of(recipe: Recipe | None) -> Iterator[tuple[Stage, bool]]:
    """Each stage of the recipe, without one every stage there is, and whether it runs a network."""
    uses = [(stage, stage.settings()) for stage in catalogue().values()]
    if recipe is not None:
        uses = [(use.stage, use.settings) for use in recipe.uses.values()]
    for stage in {stage.name: stage for stage, _ in uses}.values():
        yield stage, any(runs_network(one, settings) for one, settings in uses if one is stage)


# What the cluster has


def for_processors(partitions: Sequence[Partition]) -> Partition:
    """The partition for stages that need no GPU: the default one, unless another without GPUs has what it lacks.

    Those that allow MINUTES come first, then those without GPUs, then the default one, then the one with most cores.
    """
    return max(partitions, key=lambda one: (one.allows(MINUTES), not one.gpus, one.default, one.cpus))


def for_gpus(partitions: Sequence[Partition]) -> Partition | None:
    """The partition for networks, its nodes with GPUs alone; None if there is no GPU.

    Those that allow MINUTES come first, then the one with most GPUs, then the default one.
    """
    having = [one.with_gpus() for one in partitions if one.gpus]
    return max(having, key=lambda one: (one.allows(MINUTES), one.gpus, one.default), default=None)


def choose(partition: Partition, most: int) -> Choice:
    """What a task without a GPU gets: at most CORES and what memory goes with them on the poorest node."""
    cpus = max(1, min(CORES, *(nodes.cpus for nodes in partition.nodes)))
    tasks = sum(nodes.count * (nodes.cpus // cpus) for nodes in partition.nodes)
    return Choice(partition, cpus, memory_of(partition, cpus), minutes_of(partition), min(most, tasks))


def choose_gpus(partition: Partition) -> Choice:
    """What a task with one GPU gets: the GPU's share of its node's cores, at most CORES, and their memory."""
    cpus = max(1, min(CORES, *(nodes.cpus // nodes.gpus_each for nodes in partition.nodes)))
    return Choice(partition, cpus, memory_of(partition, cpus), minutes_of(partition), min(GPU_TASKS, partition.gpus))


def memory_of(partition: Partition, cpus: int) -> int:
    """GiB that go with `cpus` cores on the node with the least memory for each core; 0 if Slurm does not know it."""
    if any(nodes.memory < SMALLEST for nodes in partition.nodes):
        return 0
    return max(1, min(nodes.memory * cpus // max(1, nodes.cpus) for nodes in partition.nodes) // 1024)


def minutes_of(partition: Partition) -> int:
    """MINUTES, or the partition's limit if that is less."""
    return MINUTES if partition.limit is None else max(1, min(MINUTES, partition.limit))


# The text


def overview(partitions: Sequence[Partition]) -> list[str]:
    """Comments: where the file is from, and a table of the partitions."""
    head = ("partition", "time limit", "nodes", "cores each", "GB each", "GPUs each")
    rows = [head, *(row_of(partition) for partition in partitions)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    drawn = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [
        "# What `rcnn submit` asks of Slurm for each stage, written by `rcnn submit --init` from what sinfo showed.",
        "# Edit it; docs/cluster.md describes the keys.",
        "#",
        *(f"# {line}" for line in drawn),
        "# (*: the default partition)",
    ]


def row_of(partition: Partition) -> tuple[str, ...]:
    """A partition's row in the table of the comments."""
    gpus = {" + ".join(f"{count} {name}".strip() for name, count in nodes.gpus): None for nodes in partition.nodes}
    return (
        f"{partition.name}{'*' * partition.default}",
        "none" if partition.limit is None else clock(partition.limit),
        f"{partition.count}{f', {partition.out} not in service' if partition.out else ''}",
        spread([nodes.cpus for nodes in partition.nodes]),
        spread([nodes.memory // 1024 for nodes in partition.nodes]),
        " or ".join(text or "none" for text in gpus),
    )


def spread(values: Sequence[int]) -> str:
    """ "64", or "48 to 128" where they differ."""
    return str(min(values)) if min(values) == max(values) else f"{min(values)} to {max(values)}"


def clock(minutes: int) -> str:
    """Minutes as sbatch takes them: "04:00:00", "2-00:00:00"."""
    days, rest = divmod(minutes, 24 * 60)
    return f"{f'{days}-' if days else ''}{rest // 60:02d}:{rest % 60:02d}:00"


Key = tuple[str, str]
"""A line of a table, "cpus = 8", and why, for the comment after it."""


def table(name: str, keys: Sequence[Key], explained: bool = True) -> list[str]:
    """A table's lines, after an empty one; the comments begin in one column."""
    return ["", f"[{name}]", *(f"{line:<24} # {why}" if explained else line for line, why in keys)]


def default_keys(choice: Choice, has_gpus: bool) -> list[Key]:
    """The keys for all stages that have no table of their own."""
    where = "enough time and the most cores"
    if choice.partition.default:
        where = "the default partition"
    elif has_gpus and not choice.partition.gpus:
        where = "has no GPUs"
    return [
        *shared_keys(choice, where),
        ('# account = "..."', "if jobs are charged to accounts here"),
        ('# setup = ["..."]', "shell commands before rcnn, such as module load"),
        *([] if has_gpus else [("# gpus = 0", "no partition has GPUs: networks run on the processor")]),
    ]


def gpu_keys(choice: Choice) -> list[Key]:
    """The keys for a stage that runs a network."""
    types = choice.partition.gpu_types
    several = f'of any type; sbatch = ["--gres=gpu:{types[0]}:1"] asks for one' if len(types) > 1 else ""
    where = f"has {number_of(choice.partition.gpus, 'GPU')}"
    return [*shared_keys(choice, where), ("gpus = 1", several or "networks run on it")]


def array_keys(stage: Stage, tasks: int) -> list[Key]:
    """How many tasks make the stage's cache, if its images can be divided."""
    return [(f"array = {tasks}", "tasks that share the images")] if stage.follows_split and tasks > 1 else []


def shared_keys(choice: Choice, where: str) -> list[Key]:
    """partition, time, cpus and memory."""
    limit = choice.partition.limit
    most = "no limit here" if limit is None else f"at most {clock(limit)}"
    memory = (f'memory = "{choice.memory}G"', "what goes with these cores on a node")
    unknown = ('# memory = "16G"', "Slurm does not say how much the nodes have")
    return [
        (f"partition = {json.dumps(choice.partition.name)}", where),
        (f'time = "{clock(choice.minutes)}"', f"of a task, {most}; submitting again resumes what it cuts off"),
        (f"cpus = {choice.cpus}", "processes of one task"),
        memory if choice.memory else unknown,
    ]
