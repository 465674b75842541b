"""A Slurm cluster's partitions as sinfo shows them: time limits, nodes, cores, memory, GPUs."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rcnn_cli.clusters.cluster_file import ClusterError
from rcnn_cli.clusters.slurm import call

SINFO = ["sinfo", "--noheader", "--exact", "--format=%P|%a|%l|%D|%c|%m|%T|%G|"]
"""One row per partition and kind of node; the last | shows that a row is complete. Partitions that this user may not
use are left out by sinfo."""
OUT = ("down", "drain", "fail", "error", "unknown", "inval", "future", "maint", "perfctrs", "power_down")
"""How the states of nodes begin that take no jobs now."""
TIME = re.compile(r"(?:(?P<days>\d+)-)?(?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+)")
ENDLESS = ("infinite", "unlimited", "n/a")
COMMA = re.compile(r",(?![^(]*\))")


@dataclass(frozen=True)
class Nodes:
    """`count` nodes that are alike: the cores, MiB of memory and GPUs (by type, "" for none named) of each."""

    count: int
    cpus: int
    memory: int
    gpus: tuple[tuple[str, int], ...] = ()

    @property
    def gpus_each(self) -> int:
        """The GPUs of each of the nodes, of whatever type."""
        return sum(count for _, count in self.gpus)


@dataclass(frozen=True)
class Partition:
    """A partition with its nodes that take jobs; `out` others are down, drained or reserved for maintenance.

    `limit`: the longest time of a job in minutes, None for no limit. `default`: jobs go there that name no partition.
    """

    name: str
    default: bool
    limit: int | None
    nodes: tuple[Nodes, ...]
    out: int = 0

    @property
    def count(self) -> int:
        """The number of nodes that take jobs."""
        return sum(nodes.count for nodes in self.nodes)

    @property
    def cpus(self) -> int:
        """The cores of all nodes together."""
        return sum(nodes.count * nodes.cpus for nodes in self.nodes)

    @property
    def gpus(self) -> int:
        """The GPUs of all nodes together."""
        return sum(nodes.count * nodes.gpus_each for nodes in self.nodes)

    @property
    def gpu_types(self) -> list[str]:
        """The names of the types of GPU, the most frequent first."""
        types: Counter[str] = Counter()
        for nodes in self.nodes:
            types.update({name: nodes.count * count for name, count in nodes.gpus if name})
        return [name for name, _ in types.most_common()]

    def with_gpus(self) -> Partition:
        """The partition without its nodes that have no GPU."""
        return replace(self, nodes=tuple(nodes for nodes in self.nodes if nodes.gpus_each))

    def allows(self, minutes: int) -> bool:
        """Whether a job may take this long."""
        return self.limit is None or self.limit >= minutes


def read_partitions() -> list[Partition]:
    """The partitions that are up and have a node that takes jobs, in sinfo's order.

    Raises ClusterError if sinfo is missing, fails or prints something else, or if there is no such partition.
    """
    partitions = parse_partitions(
        call(SINFO, otherwise="run this on a login node of the cluster, and check with `scontrol ping`")
    )
    if not partitions:
        raise ClusterError("sinfo: shows no partition with a node that takes jobs; see what `sinfo` prints")
    return partitions


def parse_partitions(text: str) -> list[Partition]:
    """The partitions in what SINFO prints, as `read_partitions`. Raises ClusterError, naming the line."""
    found: dict[str, Partition] = {}
    for row in text.splitlines():
        of_row, up = parse_row(row)
        if up:
            known = found.get(of_row.name, replace(of_row, nodes=(), out=0))
            nodes = alike_together((*known.nodes, *of_row.nodes))
            found[known.name] = replace(known, nodes=nodes, out=known.out + of_row.out)
    return [partition for partition in found.values() if partition.nodes]


def parse_row(row: str) -> tuple[Partition, bool]:
    """(the partition with the nodes of this row, whether it is up). Raises ClusterError."""
    values = row.strip().split("|")
    try:
        name, state, limit, count, cpus, memory, nodes_state, gres, end = values
        each = Nodes(int(count), int(cpus.rstrip("+")), int(memory.rstrip("+")), parse_gpus(gres))
        minutes = parse_limit(limit)
        if end or not name:
            raise ValueError
    except ValueError as error:
        raise ClusterError(
            f"sinfo: printed {row!r}, which is not a partition; see what `{shlex.join(SINFO)}` prints"
        ) from error
    out = nodes_state.lower().startswith(OUT)
    nodes = () if out or not each.count else (each,)
    partition = Partition(name.rstrip("*"), name.endswith("*"), minutes, nodes, each.count if out else 0)
    return partition, state == "up"


def parse_limit(text: str) -> int | None:
    """A time limit, "2-00:00:00", "12:00:00" or "30:00", in whole minutes; None for no limit. Raises ValueError."""
    if text.lower() in ENDLESS:
        return None
    found = TIME.fullmatch(text)
    if found is None:
        raise ValueError(text)
    part = {name: int(value or 0) for name, value in found.groupdict().items()}
    return 24 * 60 * part["days"] + 60 * part["hours"] + part["minutes"]


def parse_gpus(gres: str) -> tuple[tuple[str, int], ...]:
    """The GPUs of a node's generic resources, "gpu:a100:4(S:0-1),nvme:1", by type; () for none. Raises ValueError."""
    types: Counter[str] = Counter()
    for one in COMMA.split(gres):
        kind, *rest = one.partition("(")[0].split(":")
        if kind == "gpu":
            has_count = bool(rest) and rest[-1].isdigit()
            types[":".join(rest[:-1] if has_count else rest)] += int(rest[-1]) if has_count else 1
    return tuple((name, count) for name, count in types.items() if count)


def alike_together(nodes: Sequence[Nodes]) -> tuple[Nodes, ...]:
    """The nodes with those in one entry that differ in nothing but their state."""
    counts: Counter[Nodes] = Counter()
    for one in nodes:
        counts[replace(one, count=0)] += one.count
    return tuple(replace(one, count=count) for one, count in counts.items())
