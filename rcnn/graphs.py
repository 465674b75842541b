"""The graph of a recipe, as Python's arguments name it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rcnn.wording import as_changes
from rcnn_cli.commands.options import load_graph
from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.packaged import find_recipe


def graph_of(
    recipe: str | os.PathLike[str], work: str | os.PathLike[str] | None, changes: Mapping[str, Any] | None
) -> Graph:
    """The graph of a recipe's file, or of the recipe of that name which comes with rcnn, with `changes` applied.

    Raises RecipeError or BadSetting for a recipe that is not valid, StageError for a work folder that cannot be made.
    """
    graph: Graph = load_graph(find_recipe(Path(recipe)), as_changes(changes), None if work is None else Path(work))
    return graph
