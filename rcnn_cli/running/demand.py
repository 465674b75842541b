"""Computing on demand: what a node of a graph makes of each image when it is read, without caches of its own.

The graph may be a recipe's (`rcnn_cli.running.runner`) or that of an exported detector (`rcnn_cli.exporting`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rcnn_cli.recipes.graph import Described, Node
from stages.contract.errors import BadSetting, StageError
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.contract.kinds import DATASETS

if TYPE_CHECKING:
    from stages.datasets.photos import Photos

Computed = dict[str, Any]
"""The readers that compute on demand, by the names of their nodes: whatever reads a node is given the same one."""


@dataclass(frozen=True)
class Demand:
    """A graph whose nodes are computed on demand.

    `place` is the file that it is from, for messages. `described` opens a dataset or network that a table describes;
    `cached(node, source)` opens the cache of `source` for `node`, or returns None if there is none and it is to be
    computed as well. With `photos`, these take the place of the datasets, and all that follows the split is computed
    from them. `computed` are the readers that there are already.
    """

    place: Path
    described: Callable[[Described], Any]
    cached: Callable[[Node, Node], Any]
    execution: Execution
    photos: Photos | None = None
    computed: Computed = field(default_factory=dict)

    def inputs(self, node: Node) -> Inputs:
        """What the stage is given. Raises as `input`."""
        return Inputs({role: self.input(node, role) for role in node.sources})

    def input(self, node: Node, role: str) -> Any:
        """What the stage is given in one role. Raises as `cached`."""
        source = node.sources[role]
        if isinstance(source, Described):
            of_photos = self.photos is not None and source.section == DATASETS
            return self.photos if of_photos else self.described(source)
        if self.photos is not None and source.use.stage.follows_split:
            return self.reader(source)
        cached = self.cached(node, source)
        return replace(self, photos=None).reader(source) if cached is None else cached

    def reader(self, node: Node) -> Any:
        """What the node makes: an `ItemReader` that computes each image's record when it is read, and what that needs,
        down to the first input that is cached. A node that several of these read has one reader.

        Raises IncompleteCache for an input that is not complete, StageError where the stage, or its method, cannot.
        """
        if node.name in self.computed:
            return self.computed[node.name]
        compute = node.use.stage.function("on_demand")
        if compute is None:
            advice = "set cache = true" if self.photos is None else "choose a detector that does not need it"
            raise StageError(
                f"{self.place}: [{node.use.name}] cannot be computed on demand (its stage has no `on_demand`); {advice}"
            )
        inputs = self.inputs(node)
        try:
            self.computed[node.name] = compute(node.settings, inputs, self.execution)
            return self.computed[node.name]
        except BadSetting as error:
            raise StageError(f"{self.place}: [{node.table}] {error}") from None
