"""cluster.toml: what each stage asks of the batch system, validated into frozen dataclasses.

[default]               # for every stage that does not say otherwise
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
    """A cluster.toml, or an answer of the batch system, that does not allow a job; names the file and the key."""


@dataclass(frozen=True)
class Resources:
    """What one task of a stage asks for. None: nothing is said and the cluster's own default holds."""

    partition: str | None = setting(None, "The partition.", source="sbatch --partition")
    account: str | None = setting(None, "The account that is charged.", source="sbatch --account")
    time: str | None = setting(None, "The time limit of one task.", source="sbatch --time")
    memory: str | None = setting(None, "The memory of one task.", source="sbatch --mem")
    cpus: int = setting(
        1, "The cores of one task, and its --jobs.", at_least=1, source="sbatch --cpus-per-task, rcnn --jobs"
    )
    gpus: int = setting(
        0,
        "The GPUs of one task; with any, it runs with --device cuda.",
        at_least=0,
        source="sbatch --gres=gpu:N, rcnn --device",
    )
    array: int = setting(1, "The number of shards the stage is split into.", at_least=1, source="sbatch --array")
    array_at_once: int = setting(
        0,
        "How many of them may run at once; 0: as many as the cluster allows.",
        at_least=0,
        source="sbatch --array=...%K",
    )
    requeue: bool = setting(True, "Whether a preempted task is queued again.", source="sbatch --requeue")
    sbatch: tuple[str, ...] = setting((), "Extra options for sbatch.")
    setup: tuple[str, ...] = setting((), "Lines of shell before rcnn: modules, a virtual environment.")
    options: tuple[str, ...] = setting((), "Extra options for rcnn, for example --batch-size.")
    command: str | None = setting(None, "The command that starts rcnn; none: the Python that runs `rcnn submit`.")


@dataclass(frozen=True)
class Cluster:
    """A validated cluster.toml: each table merged with [default]."""

    path: Path
    tables: Mapping[str, Resources]

    def resources(self, node: Node) -> Resources:
        """What a task of this node asks for: the table of its use, else of its stage, else [default]."""
        names = (node.use.name, node.use.stage.name, DEFAULT)
        return next(self.tables[name] for name in names if name in self.tables)


def load_cluster(path: Path, recipe: Recipe) -> Cluster:
    """Reads cluster.toml for a recipe. Raises ClusterError or BadSetting, naming the nearest valid key."""
    try:
        found = read_tables(path)
    except FileNotFoundError as error:
        raise ClusterError(f"{path}: there is no such file; docs/cluster.md has an example") from error
    except UnicodeDecodeError as error:
        raise ClusterError(f"{path}: is not text in UTF-8 ({error}); save it with that encoding") from error
    except OSError as error:
        raise ClusterError(f"{path}: " + cannot("be read", error, "name a text file in TOML")) from error
    except NOT_TOML as error:
        raise ClusterError(f"{path}: is not valid TOML ({error}); correct that line") from error
    known = [DEFAULT, *catalogue(), *recipe.uses]
    for name, table in found.items():
        if name not in known:
            raise ClusterError(
                f"{path}: [{name}] is neither a stage nor a table of {recipe.path}{nearest(name, known)}"
            )
        if not isinstance(table, dict):
            raise ClusterError(f"{path}: '{name}' must be a table, [{name}]")
    common = found.get(DEFAULT, {})
    if "array" in common:
        raise ClusterError(f"{path}: [default] array cannot suit every stage; set it in [propose], [extract], ...")
    return Cluster(path, {name: build(path, name, common, found.get(name, {})) for name in {DEFAULT: None, **found}})


def build(path: Path, name: str, common: Mapping[str, Any], table: Mapping[str, Any]) -> Resources:
    """One table over [default]. Raises ClusterError for text that would not stay on its line of the script."""
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
    """Raises ClusterError for what is no option of sbatch, or one that decides what `rcnn submit` itself must know."""
    try:
        words = shlex.split(option)
    except ValueError as error:
        raise ClusterError(f"{place} has an unclosed quotation mark; quote it as in a shell") from error
    name = words[0].partition("=")[0]
    if not name.startswith("-"):
        raise ClusterError(f'{place} is not an sbatch option; write it with its dashes, as in "--constraint=a100"')
    if name in OWN_OPTIONS or name[:2] in OWN_OPTIONS:
        raise ClusterError(
            f"{place}: rcnn submit sets {name} itself; leave it out (the table's `array` splits a stage)"
        )
