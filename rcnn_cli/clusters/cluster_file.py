"""cluster.toml: the resources that each stage requests from the batch system, validated into frozen dataclasses.

[default]               # for every stage, unless one of the tables below sets the key
[extract]               # for all uses of the stage `extract`
[extract-windows]       # for one use, by its table's name in the recipe
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.files import cannot
from rcnn_cli.recipes.graph import Node
from rcnn_cli.recipes.recipe import NOT_TOML, Recipe, read_tables
from stages.contract.catalogue import catalogue
from stages.contract.errors import StageError
from stages.contract.settings import build_settings, nearest, setting

DEFAULT = "default"
OWN_OPTIONS = frozenset(
    ("-a", "-d", "-D", "-J", "-o", "-W", "--array", "--chdir", "--dependency", "--job-name", "--kill-on-invalid-dep")
    + ("--open-mode", "--output", "--parsable", "--test-only", "--wait", "--wrap")
)


class ClusterError(StageError):
    """A cluster.toml, or an answer from the batch system, that no job can be made from; names file and key."""


@dataclass(frozen=True)
class Resources:
    """What one task of a stage requests. None: nothing is requested and the cluster's default applies."""

    partition: str | None = setting(None, "The partition.", source="sbatch --partition")
    account: str | None = setting(None, "The account to charge.", source="sbatch --account")
    time: str | None = setting(None, "The time limit of one task.", source="sbatch --time")
    memory: str | None = setting(None, "The memory of one task.", source="sbatch --mem")
    cpus: int = setting(
        1, "The cores of one task, also passed as --jobs.", at_least=1, source="sbatch --cpus-per-task, rcnn --jobs"
    )
    gpus: int = setting(
        0,
        "The GPUs of one task; if there are any, it runs with --device cuda.",
        at_least=0,
        source="sbatch --gres=gpu:N, rcnn --device",
    )
    array: int = setting(1, "The number of shards that the stage is divided into.", at_least=1, source="sbatch --array")
    array_at_once: int = setting(
        0,
        "How many shards may run at once; 0: as many as the cluster allows.",
        at_least=0,
        source="sbatch --array=...%K",
    )
    requeue: bool = setting(True, "Whether a preempted task is requeued.", source="sbatch --requeue")
    sbatch: tuple[str, ...] = setting((), "Extra options for sbatch.")
    setup: tuple[str, ...] = setting((), "Shell commands to run before rcnn: modules, a virtual environment.")
    options: tuple[str, ...] = setting((), "Extra options for rcnn, e.g. --batch-size.")
    command: str | None = setting(None, "The command that starts rcnn; none: that of the Python running `rcnn submit`.")


@dataclass(frozen=True)
class Cluster:
    """A validated cluster.toml: each table merged with [default]."""

    path: Path
    tables: Mapping[str, Resources]

    def resources(self, node: Node) -> Resources:
        """What a task of this node requests: the table of its use, else of its stage, else [default]."""
        names = (node.use.name, node.use.stage.name, DEFAULT)
        return next(self.tables[name] for name in names if name in self.tables)


def load_cluster(path: Path, recipe: Recipe) -> Cluster:
    """Reads cluster.toml for a recipe. Raises ClusterError or BadSetting, naming the nearest valid key."""
    try:
        tables = read_tables(path)
    except FileNotFoundError as error:
        raise ClusterError(f"{path}: there is no such file; docs/cluster.md has an example") from error
    except UnicodeDecodeError as error:
        raise ClusterError(f"{path}: is not UTF-8 text ({error}); save it with that encoding") from error
    except OSError as error:
        raise ClusterError(f"{path}: " + cannot("be read", error, "name a text file in TOML")) from error
    except NOT_TOML as error:
        raise ClusterError(f"{path}: is not valid TOML ({error}); correct that line") from error
    known = [DEFAULT, *catalogue(), *recipe.uses]
    for name, table in tables.items():
        if name not in known:
            raise ClusterError(
                f"{path}: [{name}] is neither a stage nor a table of {recipe.path}{nearest(name, known)}"
            )
        if not isinstance(table, dict):
            raise ClusterError(f"{path}: '{name}' must be a table, [{name}]")
    common = tables.get(DEFAULT, {})
    if "array" in common:
        raise ClusterError(
            f"{path}: [default] must not set array, which cannot suit every stage; set it in [propose], [extract], ..."
        )
    return Cluster(path, {name: build(path, name, common, tables.get(name, {})) for name in {DEFAULT: None, **tables}})


def build(path: Path, name: str, common: Mapping[str, Any], table: Mapping[str, Any]) -> Resources:
    """A table merged with [default]. Raises ClusterError for text that would not fit on one line of a script."""
    place = f"{path}: [{name}]"
    resources: Resources = build_settings(Resources, {**common, **table}, place)
    for key in ("partition", "account", "time", "memory", "command", "sbatch"):
        value = getattr(resources, key)
        for text in value if isinstance(value, tuple) else (value,):
            if text is not None and (not text.strip() or "\n" in text):
                raise ClusterError(f"{place}: {key} = {text!r} must be one line of text")
    for option in resources.sbatch:
        check_option(f"{place}: sbatch = {option!r}", option)
    return resources


def check_option(place: str, option: str) -> None:
    """Raises ClusterError for what is not an sbatch option, or one that `rcnn submit` sets itself."""
    try:
        words = shlex.split(option)
    except ValueError as error:
        raise ClusterError(f"{place} has an unclosed quotation mark; quote it as in a shell") from error
    name = words[0].partition("=")[0]
    if not name.startswith("-"):
        raise ClusterError(f'{place} is not an sbatch option; write it with its dashes, as in "--constraint=a100"')
    if name in OWN_OPTIONS or name[:2] in OWN_OPTIONS:
        raise ClusterError(
            f"{place}: rcnn submit sets {name} itself; leave it out (`array` in the table divides a stage into tasks)"
        )
