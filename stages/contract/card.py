"""What a stage is: it reads caches, writes one cache, and can be stopped, resumed, split and re-run on its own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from stages.contract.settings import Condition


@dataclass(frozen=True)
class Input:
    """One thing that a stage reads.

    `role` is its name inside the stage, `kinds` are those of `stages.contract.kinds` that it may be. `default` lists
    the recipe's tables that provide it when the recipe does not say, the first one present wins. `annotations=False`:
    of a dataset only the images matter, so that a corrected annotation does not make this stage's cache stale.
    `crowds=True`: of a dataset's objects crowds are treated unlike other difficult ones. `only_if=(SETTING, VALUE,
    ...)`: it is read only where that setting has one of these values. `once=True`: the stage reads each item once, so
    that it may be computed then (see `Stage`).
    """

    role: str
    kinds: tuple[str, ...]
    default: tuple[str, ...] = ()
    optional: bool = False
    annotations: bool = True
    crowds: bool = False
    only_if: Condition | None = None
    once: bool = False


@dataclass(frozen=True)
class LogColumns:
    """What the log of a stage that trains a network has for each step, beside its number and the learning rate.

    `step` is what a row stands for ("epoch", "iteration"). `losses` are what the step minimised, the first of them the
    sum of all; `accuracies` are shares of right answers, from 0 to 1.
    """

    step: str
    losses: tuple[str, ...]
    accuracies: tuple[str, ...]

    @property
    def dtypes(self) -> dict[str, str]:
        """Every column with its dtype, in the order of the log."""
        measured = dict.fromkeys((*self.losses, *self.accuracies), "float32")
        return {self.step: "int32", "learning_rate": "float32", **measured}


@dataclass(frozen=True)
class Stage:
    """A stage's card: everything the graph must know of it without importing its mathematics.

    The functions of its `module`, which is imported on first use, are given an `Inputs` (`stages.contract.inputs`). It
    has `items`, `schema`, `run` and perhaps `summarise`. Its `part_size(settings, inputs)`, if it has one, takes the
    place of the card's `part_size`, the items of a part of a new cache; its `attributes(settings, inputs)`, if it has
    one, are those of data.h5: the names of what its columns count. `on_demand(settings, inputs, execution)` returns an
    `ItemReader` that computes each item when it is read: for images outside the recipe's datasets, and where the
    settings have `cache` and it is false, in place of a cache that is only read `once`.

    `split` is the dataset it works on when the recipe does not say. `follows_split=True`: it is made once for every
    split that another stage asks for (propose, extract, detect). `libraries` are the distributions whose version is
    part of the key. `reads_files=True`: the module has `identity(settings, inputs, work)`, which adds to the key what
    the settings only name (a file's checksum, remembered in the folder `work`); without it, a key is known without
    importing the stage. `example` is a recipe that has the stage. `by_item=True`: an item's record depends on the
    settings, on what its datasets and caches `by_item` have for this item alone, and on its other inputs; so it may be
    copied from a cache of other items. What is drawn from all items together is `summarise`'s; `called` says what
    people read in place of the names of its values that would not tell them enough. `log`: the stage trains a network,
    and its cache has a log of these columns, of which curves are drawn. `check(settings, network, sources)` raises
    BadSetting for settings that do not fit what is known of the inputs before anything runs: the network upstream (a
    PlannedNetwork, None where there is none) and, by role, the settings of the tables that the inputs come from. What
    makes features has a setting `layers`, what is trained on them a setting `layer`.
    """

    name: str
    summary: str
    schema_version: int
    settings: type
    makes: str
    inputs: tuple[Input, ...]
    module: str
    split: str | None = None
    follows_split: bool = False
    part_size: int = 16
    libraries: tuple[str, ...] = field(default=())
    reads_files: bool = False
    example: str = "recipes/shapes.toml"
    by_item: bool = False
    called: Mapping[str, str] = field(default_factory=dict)
    log: LogColumns | None = None
    check: Callable[[Any, Any, Mapping[str, Any]], None] | None = None

    @property
    def kinds(self) -> set[str]:
        """The kinds of all that it makes and reads."""
        return {self.makes}.union(*(wanted.kinds for wanted in self.inputs))

    def load(self) -> ModuleType:
        """The module with the stage's `items`, `schema` and `run`."""
        return importlib.import_module(self.module)

    def function(self, name: str) -> Callable[..., Any] | None:
        """The module's function `name`, or None if the stage has none."""
        return getattr(self.load(), name, None)
