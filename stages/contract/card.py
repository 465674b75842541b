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
    """One input of a stage.

    `role` is its name inside the stage; `kinds` are the kinds of `stages.contract.kinds` it accepts. `default` lists
    the recipe tables that provide it if the recipe does not say; the first one present is used. `annotations=False`:
    only a dataset's images matter, so that corrected annotations do not make the stage's cache stale. `crowds=True`:
    crowds are treated differently from other difficult objects. `masks=True`: a dataset's masks matter, and it must
    have them. `only_if=(SETTING, VALUE, ...)`: it is read only if that setting has one of these values. `once=True`:
    the stage reads each item once, so that items may be computed on demand (see `Stage`). `of_trunk=True`: what fills
    it is made by a network whose trunk is that of the stage's own. `all_items=True`: each item of the output depends on
    all items of the input, and not on its own alone (see `Stage.by_item`). `counterpart=(ROLE, OTHER)`: it is there if
    the input OTHER is, a dataset; then what fills ROLE fills it, too, by default, on that dataset.
    """

    role: str
    kinds: tuple[str, ...]
    default: tuple[str, ...] = ()
    optional: bool = False
    annotations: bool = True
    crowds: bool = False
    masks: bool = False
    only_if: Condition | None = None
    once: bool = False
    of_trunk: bool = False
    all_items: bool = False
    counterpart: tuple[str, str] | None = None


@dataclass(frozen=True)
class LogColumns:
    """The columns in the log of a stage that trains a network, besides the step number and the learning rate.

    `step` is what a row stands for ("epoch", "iteration"). `losses` are the terms being minimised, the first of them
    the total; `accuracies` are shares of correct predictions, from 0 to 1. On a validation set, what is `validated` is
    measured besides these, also shares.
    """

    step: str
    losses: tuple[str, ...]
    accuracies: tuple[str, ...]
    validated: tuple[str, ...] = ()

    @property
    def dtypes(self) -> dict[str, str]:
        """The dtype of every column, in the order of the log."""
        measured = dict.fromkeys((*self.losses, *self.accuracies), "float32")
        return {self.step: "int32", "learning_rate": "float32", **measured}

    @property
    def shares(self) -> tuple[str, ...]:
        """What is measured on a validation set besides the losses."""
        return (*self.accuracies, *self.validated)

    @property
    def validation_dtypes(self) -> dict[str, str]:
        """The dtype of every column of the table of validations."""
        return {self.step: "int32", **dict.fromkeys((*self.losses, *self.shares), "float32")}


@dataclass(frozen=True)
class Stage:
    """A stage's card: everything the graph needs to know about it without importing its implementation.

    - `split` is the dataset it works on if the recipe does not say. `follows_split=True`: it runs once for every split
      that another stage asks for (propose, extract, detect).
    - `module` is imported on first use and has `items`, `schema`, `run` and optionally `summarise`; they are given an
      `Inputs` (`stages.contract.inputs`). Optional `part_size(settings, inputs)` replaces the card's `part_size`, the
      number of items per part of a new cache; optional `attributes(settings, inputs)` gives the attributes of data.h5,
      such as class names. Optional `on_demand(settings, inputs, execution)` returns an `ItemReader` that computes each
      item as it is read: for images outside the recipe's datasets and, if the settings have `cache` and it is false, in
      place of a cache that is read only `once`.
      Optional `try_precisions(settings, inputs, execution)` computes a few regions in each precision that the device
      has and returns a `PrecisionTrial`, or None where that cannot be compared; `rcnn plan` shows it.
    - `libraries` are the distributions whose versions are part of the key. `reads_files=True`: the module has
      `identity(settings, inputs, work)`, which adds to the key what the settings only name (a file's checksum,
      remembered in the folder `work`); otherwise a key is known without importing the stage.
    - `by_item=True`: an item's record depends only on the settings, on what its datasets and `by_item` caches hold for
      this item (or for all, see `Input.all_items`), and on its other inputs, so it can be copied from a cache of other
      items.
    - `summarise` computes what depends on all items together; `called` gives more descriptive names for its values.
    - `log`: the stage trains a network, and its cache has a log with these columns, which are plotted.
    - `check(settings, network, sources)` raises BadSetting for settings that do not fit what is known before anything
      runs: the network upstream (a PlannedNetwork, or None) and, by role, the settings of the tables that provide the
      inputs (of a dataset, its table). A stage that makes features has a setting `layers`, a stage trained on them a
      setting `layer`.
    - `plans(settings, network)`: for a stage that makes a network, what a recipe says about that (a PlannedNetwork),
      from what it says about the network the stage reads; None: that it is `PlannedNetwork.fine_tuned`.
    - `example` is a recipe that contains the stage.
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
    plans: Callable[[Any, Any], Any] | None = None

    @property
    def kinds(self) -> set[str]:
        """The kinds of its output and its inputs."""
        return {self.makes}.union(*(wanted.kinds for wanted in self.inputs))

    def load(self) -> ModuleType:
        """Imports the module with the stage's `items`, `schema` and `run`."""
        return importlib.import_module(self.module)

    def function(self, name: str) -> Callable[..., Any] | None:
        """The module's function `name`, or None if the stage has none."""
        return getattr(self.load(), name, None)
