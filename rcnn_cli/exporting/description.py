"""An exported detector's card as text, for `rcnn inspect`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rcnn_cli.exporting.card import BOXES, DetectorCard, Held, node_as_json, thresholds_as_json
from rcnn_cli.exporting.model_file import read_model
from rcnn_cli.looking.inspection import shortened
from rcnn_cli.recipes.graph import Node
from rcnn_cli.running.runner import size
from stages.plurals import number_of

LONGEST = 600


def describe_model(path: Path) -> str:
    """What the file holds, in about a screenful; every tensor is checked. Raises StageError."""
    card = read_model(path)
    return "\n".join(
        [
            f"{path}: a trained detector of {number_of(len(card.classes), 'class')}, {size(path.stat().st_size)}",
            *about_lines(card),
            "an image passes through",
            *map(node_line, card.nodes),
            "held",
            *(held_line(name, held) for name, held in card.held.items()),
            f"rcnn predict {shlex.quote(str(path))} photo.jpg",
        ]
    )


def about_lines(card: DetectorCard) -> list[str]:
    """What the card says of the detector as a whole."""
    return [
        f"classes: {one_line(list(card.classes))}",
        f"scores: {one_line(card.score)}; boxes: {BOXES}",
        *thresholds_lines(card),
        *(f"{name.replace('_', ' ')}: {one_line(value)}" for name, value in card.about.items() if value),
    ]


def thresholds_lines(card: DetectorCard) -> list[str]:
    """The scores from which detections are drawn, if the file holds any."""
    told = thresholds_as_json(card.thresholds)
    if told is None:
        return []
    scores = {name: "none" if score is None else score for name, score in told["scores"].items()}
    return [f"thresholds ({one_line(told['rule'])}): {one_line(scores)}"]


def node_line(node: Node) -> str:
    """A node: its table, what fills its inputs, its settings."""
    told = node_as_json(node)
    return f"  {one_line(node.name)}: {one_line(told['inputs'])} {one_line(told['settings'])}"


def held_line(name: str, held: Held) -> str:
    """A model: its kind, what made it, how many tensors and numbers it has."""
    arrays = held.content.columns.values()
    made = f"made by {held.content.stage}" if held.content.stage else "described by the recipe"
    key = f", cache {held.key}" if held.key else ""
    numbers = f"{number_of(len(arrays), 'tensor')}, {sum(array.size for array in arrays):,} numbers"
    return f"  {one_line(name)}: {held.kind}, {one_line(made)}{one_line(key)}, {numbers}"


def one_line(value: Any) -> str:
    """A value of the card on one line that a terminal can show, whoever wrote it."""
    text = value if isinstance(value, str) else words_of(value)
    return shortened("".join(one if one.isprintable() else "?" for one in text), LONGEST)


def words_of(value: Any) -> str:
    """A list as names, a table as "name value" pairs, anything else as JSON."""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {one if isinstance(one, str) else json.dumps(one)}" for name, one in value.items())
    return json.dumps(value, ensure_ascii=False)
