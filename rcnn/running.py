"""Running a recipe from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from rcnn.graphs import graph_of
from rcnn.rows import Rows
from rcnn.wording import in_python
from rcnn_cli.commands.options import make_options
from rcnn_cli.running.runner import complete, run_nodes
from rcnn_cli.running.splits import warn_of_shared_images


def run(
    recipe: str | os.PathLike[str],
    *,
    work: str | os.PathLike[str] | None = None,
    changes: Mapping[str, Any] | None = None,
    device: str = "auto",
    jobs: int | None = None,
    skip_bad_images: bool = False,
) -> dict[str, Rows]:
    """Makes every cache of a recipe that is not complete, as `rcnn run` does, and opens them all.

    What was finished before is kept, and so is what is finished when it is interrupted. Messages and progress go to the
    logger "rcnn": `logging.basicConfig(level="INFO")` shows them.

    Args:
        recipe: the path of a recipe, or the name of one that comes with rcnn.
        work: the folder of caches; by default $RCNN_WORK, else `work` in the current folder.
        changes: values of the recipe to override, {"train-svm.C": 0.01}, as with `--set` on the command line.
        device: where networks run: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
        jobs: the number of processes; by default one per core.
        skip_bad_images: skip images that cannot be read, rather than end.

    Returns the caches by their names: "extract@test", "train-svm", "eval".

    Raises Error for a recipe, setting, dataset or device that cannot be used, and for a full or damaged disk.
    """
    with in_python():
        graph = graph_of(recipe, work, changes)
        graph.check()
        graph.open_own_data()
        nodes = graph.caches()
        missing = [node for node in nodes if not complete(graph, node)]
        options = make_options(graph.makers(missing), device=device, jobs=jobs, skip_bad_images=skip_bad_images)
        warn_of_shared_images(graph, nodes)
        run_nodes(graph, nodes, options)
        return {node.name: Rows.of(graph, node) for node in nodes}
