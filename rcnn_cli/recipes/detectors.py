"""Which of a recipe's detectors and evaluations a command takes that is told of none: the same for every command."""

from __future__ import annotations

from rcnn_cli.recipes.graph import Graph, Node
from stages.contract.errors import StageError
from stages.contract.settings import nearest

DETECTOR, EVALUATION = "detect", "eval"
"""The tables that are the main ones where a recipe has them."""


def tables_that_make(graph: Graph, kind: str) -> list[str]:
    """The recipe's tables whose stage makes this ("detections", say), in the order of the file."""
    return graph.recipe.making(kind)


def detector_of(node: Node) -> Node:
    """The node whose detections an evaluation reads."""
    source = node.sources["detections"]
    assert isinstance(source, Node)
    return source


def main_detector(graph: Graph) -> str | None:
    """The recipe's main detector: the table [detect] if it has one, else the first that detects in the file."""
    names = tables_that_make(graph, "detections")
    return DETECTOR if DETECTOR in names else next(iter(names), None)


def detector_node(graph: Graph, name: str | None = None) -> Node:
    """The detector with this name (a table's, or a cache's as "detect@val"), by default the main one.

    Of several splits that of its main evaluation is taken, else the test set's, else the first. Raises StageError where
    there is none.
    """
    nodes = graph.making("detections")
    if not nodes:
        raise StageError(f"{graph.recipe.path}: has no detector; add the tables [train-svm] and [detect]")
    wanted = name or main_detector(graph)
    chosen = [node for node in nodes if wanted in (node.use.name, node.name)]
    if not chosen:
        raise StageError(
            f"{graph.recipe.path}: has no detector '{name}'{nearest(str(name), tables_that_make(graph, 'detections'))}"
        )
    evaluated = [detector_of(node) for node in evaluations_of(graph)]
    return min(chosen, key=lambda node: (node not in evaluated[:1], node not in evaluated, node.split != "test"))


def evaluations_of(graph: Graph) -> list[Node]:
    """The recipe's evaluations, complete or not: the main one first, the others in the order of the file.

    The main one is the main detector's: [eval] if that is one, else the first in the file. Where none is the main
    detector's, it is [eval], else the first. Reports and figures give letters and colours in this order.
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
    """Which detector was taken, where the recipe has several: "detector: detect (of detect, detect-without-bbox;
    --detector chooses)"; "" where it has one."""
    names = tables_that_make(graph, "detections")
    return f"detector: {node.use.name} (of {', '.join(names)}; --detector chooses)" if len(names) > 1 else ""
