"""The detector and evaluation that a command uses by default: the same for every command."""

from __future__ import annotations

from rcnn_cli.recipes.graph import Graph, Node
from stages.contract.errors import StageError
from stages.contract.settings import nearest

DETECTOR, EVALUATION = "detect", "eval"
"""The tables that are the main ones if a recipe has them."""


def tables_that_make(graph: Graph, kind: str) -> list[str]:
    """The recipe's tables whose stage makes `kind`, e.g. "detections", in the order of the file."""
    return graph.recipe.making(kind)


def detector_of(node: Node) -> Node:
    """The node whose detections an evaluation reads."""
    source = node.sources["detections"]
    assert isinstance(source, Node)
    return source


def main_detector(graph: Graph) -> str | None:
    """The recipe's main detector: the table [detect] if there is one, else the first detector in the file."""
    names = tables_that_make(graph, "detections")
    return DETECTOR if DETECTOR in names else next(iter(names), None)


def detector_node(graph: Graph, name: str | None = None) -> Node:
    """The detector with this name (a table's, or a cache's such as "detect@val"), by default the main one.

    If it runs on several splits, the one of its main evaluation is taken, else the test set, else the first. Raises
    StageError if there is none.
    """
    nodes = graph.making("detections")
    if not nodes:
        raise StageError(f"{graph.recipe.path}: has no detector; add the tables [train-svm] and [detect]")
    requested = name or main_detector(graph)
    chosen = [node for node in nodes if requested in (node.use.name, node.name)]
    if not chosen:
        raise StageError(
            f"{graph.recipe.path}: has no detector '{name}'{nearest(str(name), tables_that_make(graph, 'detections'))}"
        )
    evaluated = [detector_of(node) for node in evaluations_of(graph)]
    return min(chosen, key=lambda node: (node not in evaluated[:1], node not in evaluated, node.split != "test"))


def evaluations_of(graph: Graph) -> list[Node]:
    """The recipe's evaluations, complete or not: the main one first, the others in the order of the file.

    The main one is an evaluation of the main detector: [eval] if that is one, else the first in the file. If the main
    detector has none, it is [eval], else the first. Reports and figures assign letters and colours in this order.
    """
    order, main = tables_that_make(graph, "evaluation"), main_detector(graph)
    nodes = sorted(graph.making("evaluation"), key=lambda node: order.index(node.use.name))
    first = min(
        nodes,
        key=lambda node: (detector_of(node).use.name != main, node.use.name != EVALUATION),
        default=None,
    )
    return sorted(nodes, key=lambda node: node is not first)


def choice_told(graph: Graph, node: Node) -> str:
    """Which of several detectors was taken: "detector: detect (of detect, detect-without-bbox; --detector chooses)"; ""
    if the recipe has only one."""
    names = tables_that_make(graph, "detections")
    return f"detector: {node.use.name} (of {', '.join(names)}; --detector chooses)" if len(names) > 1 else ""
