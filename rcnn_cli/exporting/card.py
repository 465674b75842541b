"""The card of an exported detector: what it is, how an image passes through it, and what its tensors are.

The card is data from elsewhere: whatever it says is checked against the installed stages, their settings and the
tensors, no file that it names is opened, and nothing of it is ever run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cache.files import SEAL
from cache.held import Content
from rcnn_cli.looking.thresholds import Thresholds, finite
from rcnn_cli.recipes.graph import Described, Node
from rcnn_cli.recipes.recipe import Use
from stages.contract.card import Input, Stage
from stages.contract.catalogue import catalogue
from stages.contract.errors import StageError
from stages.contract.kinds import DATASETS, KINDS
from stages.contract.settings import build_settings, changes_result, holds, named_files
from stages.detections.json_values import BOXES

FORMAT = 1
KEY = "rcnn.detector"
"""The entry of the file's metadata."""
PHOTOS = "photos"
"""What fills the inputs of a dataset: the images that are to be looked at."""
HELD = "held"
"""The section of what the file holds, in place of a recipe's tables."""
KNOWN = frozenset(
    ["format", "what", "classes", "score", "boxes", "evaluation", "measured", "thresholds", "nodes", "held"]
)
"""The entries of a card that are not only for people."""

MALFORMED = (LookupError, ValueError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading a card that is not one raises."""


@dataclass(frozen=True)
class Held:
    """A model that the file holds: its kind, the content of its cache, and that cache's key (empty if it had none).

    `digest` is the SHA-256 (hex) of the content as read from a file; what was not read has none."""

    kind: str
    content: Content
    key: str = ""
    digest: str = ""

    def as_json(self) -> dict[str, Any]:
        """All but the tensors."""
        return {"kind": self.kind, "key": self.key, **self.content.described()}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Held:
        """The inverse of `as_json`. Raises one of MALFORMED."""
        if value["kind"] not in KINDS:
            raise ValueError(f"nothing of the kind '{value['kind']}' is known")
        return Held(value["kind"], Content.from_json(value), str(value["key"]), str(value[SEAL]))


@dataclass(frozen=True)
class DetectorCard:
    """An exported detector: `nodes` are those that an image passes through, inputs first, the detector last; `held`
    the models that they read, by name.

    `measured` names its evaluation, which is `held` under the name in `evaluation`; both empty without one.
    `thresholds`, if given, say which detections are drawn. `about` is for people: recipe, data, versions, a note.
    """

    nodes: tuple[Node, ...]
    held: Mapping[str, Held]
    classes: tuple[str, ...]
    score: str
    evaluation: str = ""
    measured: Mapping[str, str] = field(default_factory=dict)
    made_with: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    thresholds: Thresholds | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def detector(self) -> Node:
        """The node whose detections are the result."""
        return self.nodes[-1]

    def as_json(self) -> dict[str, Any]:
        """The card as it is written."""
        return {
            "format": FORMAT,
            "what": "a trained object detector of rcnn",
            **self.about,
            "classes": list(self.classes),
            "score": self.score,
            "boxes": BOXES,
            "evaluation": self.evaluation,
            "measured": dict(self.measured),
            "thresholds": thresholds_as_json(self.thresholds),
            "nodes": [{**node_as_json(node), "made_with": dict(self.made_with[node.name])} for node in self.nodes],
            "held": {name: held.as_json() for name, held in self.held.items()},
        }


def node_as_json(node: Node) -> dict[str, Any]:
    """A node as the card has it: its stage, the settings that change the result, and what fills its inputs."""
    inputs = {
        role: source.name if isinstance(source, Node | Described) else source for role, source in node.sources.items()
    }
    return {
        "table": node.use.name,
        "split": node.split,
        "stage": node.use.stage.name,
        "schema_version": node.use.stage.schema_version,
        "settings": changes_result(node.settings),
        "inputs": inputs,
    }


def thresholds_as_json(chosen: Thresholds | None) -> dict[str, Any] | None:
    """Thresholds as the card has them: their rule and each class's lowest score, None where nothing counts."""
    if chosen is None:
        return None
    return {"rule": chosen.rule, "scores": dict(zip(chosen.classes, map(finite, chosen.scores), strict=True))}


def thresholds_of_json(value: Any, classes: tuple[str, ...]) -> Thresholds | None:
    """The inverse of `thresholds_as_json`, in the order of `classes`. Raises one of MALFORMED."""
    if value is None:
        return None
    rule, scores = value["rule"], value["scores"]
    if not isinstance(rule, str) or not rule.isprintable() or set(scores) != set(classes):
        raise ValueError("its thresholds are not those of its classes")
    if not all(score is None or is_float32(score) for score in scores.values()):
        raise ValueError("a threshold is not a number")
    numbers = [np.inf if scores[name] is None else scores[name] for name in classes]
    return Thresholds(classes, np.array(numbers, np.float32), rule, scored="", recipe="", detector="", key="")


def is_float32(value: Any) -> bool:
    """Whether a value of JSON is a number in the range of float32."""
    return type(value) in (int, float) and abs(value) <= float(np.finfo(np.float32).max)


def card_of_json(value: Any, path: Path) -> DetectorCard:
    """The card in the file `path`. Raises StageError in a sentence for any other value."""
    if not isinstance(value, dict) or not isinstance(value.get("format"), int):
        raise damaged(path, "its card is not one")
    if value["format"] > FORMAT:
        raise StageError(
            f"{path}: was written by a newer version of rcnn (format {value['format']}); install that version"
        )
    try:
        held = {name: Held.from_json(entry) for name, entry in value["held"].items()}
        nodes = nodes_of_json(value["nodes"], held, path)
        classes = tuple(value["classes"])
        if not all(isinstance(name, str) for name in classes):
            raise TypeError("its classes are not names")
        evaluation = value["evaluation"]
        if evaluation and held[evaluation].kind != "evaluation":
            raise ValueError(f"'{evaluation}' is not an evaluation")
        measured = {str(name): str(words) for name, words in value["measured"].items()} if evaluation else {}
        chosen = thresholds_of_json(value.get("thresholds"), classes)
        made_with = {node.name: dict(entry["made_with"]) for node, entry in zip(nodes, value["nodes"], strict=True)}
        about = {name: words for name, words in value.items() if name not in KNOWN}
        return DetectorCard(
            nodes, held, classes, str(value["score"]), str(evaluation), measured, made_with, chosen, about
        )
    except MALFORMED as error:
        raise damaged(path, f"its card is not valid: {said(error)}") from error


def nodes_of_json(entries: Any, held: Mapping[str, Held], path: Path) -> tuple[Node, ...]:
    """The nodes of a card, of which each reads only those before it and what is `held`. Raises StageError, or one of
    MALFORMED."""
    nodes: dict[str, Node] = {}
    stages = catalogue()
    for entry in entries:
        stage = stages.get(entry["stage"])
        place = f"{path}: [{entry['table']}]"
        if stage is None:
            raise StageError(f"{place} is a use of the stage '{entry['stage']}', which this version of rcnn lacks")
        if not stage.follows_split or stage.function("on_demand") is None:
            raise StageError(f"{place} is a use of {stage.name}, which cannot be computed on demand")
        if entry["schema_version"] != stage.schema_version:
            raise StageError(
                f"{place} was made by version {entry['schema_version']} of {stage.name}, and this rcnn has version "
                f"{stage.schema_version}; install the rcnn that its card names under versions, or export it again"
            )
        if not isinstance(entry["table"], str) or not isinstance(entry["split"], str):
            raise TypeError("a table has no name")
        settings = build_settings(stage.settings, entry["settings"], place)
        if files := named_files(settings):
            raise StageError(
                f"{place} reads the file {next(iter(files.values()))!r}; a model that names files is not used: ask for "
                "one that was exported by rcnn"
            )
        sources = {
            wanted.role: source
            for wanted in stage.inputs
            if (source := source_of(wanted, settings, entry["inputs"], nodes, held)) is not None
        }
        node = Node(Use(entry["table"], stage, settings), entry["split"], sources)
        nodes[node.name] = node
    if not nodes or next(reversed(nodes.values())).use.stage.makes != "detections":
        raise ValueError("it does not end with a detector")
    return tuple(nodes.values())


def source_of(
    wanted: Input, settings: Any, inputs: Mapping[str, str], nodes: Mapping[str, Node], held: Mapping[str, Held]
) -> Node | Described | None:
    """What fills an input: a node before this one, what the file holds, the photos, or nothing. Raises ValueError for
    anything of another kind and for a required input that nothing fills."""
    if wanted.only_if is not None and not holds(settings, wanted.only_if):
        return None
    if any(KINDS[kind].described_by == DATASETS for kind in wanted.kinds):
        return Described(DATASETS, PHOTOS)
    name = inputs.get(wanted.role, "")
    if not name and wanted.optional:
        return None
    if name in nodes and nodes[name].use.stage.makes in wanted.kinds:
        return nodes[name]
    if name in held and held[name].kind in wanted.kinds:
        return Described(HELD, name)
    raise ValueError(f"the input {wanted.role} is '{name}', which does not make {' or '.join(wanted.kinds)}")


def stage_of(content: Content, path: Path) -> Stage | None:
    """The stage that made what the file holds; None for what a recipe described. Raises StageError for an unknown
    one."""
    if not content.stage:
        return None
    stage = catalogue().get(content.stage)
    if stage is None:
        raise StageError(f"{path}: holds what the stage '{content.stage}' made, which this version of rcnn lacks")
    return stage


def damaged(path: Path, what: str) -> StageError:
    """The error for a file that is not as it was written."""
    return StageError(f"{path}: is damaged ({what}); fetch it again, or export it again")


def said(error: Exception) -> str:
    """An error of MALFORMED in words."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return " ".join(str(error).split())[:200] or type(error).__name__


def card_text(value: Mapping[str, Any]) -> str:
    """A card as the text that is stored and hashed."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
