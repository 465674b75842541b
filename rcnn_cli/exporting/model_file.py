"""A trained detector as one .safetensors file: writing it, reading it, and detecting with it.

The metadata has the card, a JSON text under the key `rcnn.detector`; tensors are named TABLE/COLUMN as the columns of
the table's cache, so a network's weights are TABLE/weights/NAME with the names of its state dict.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.errors import CacheError
from cache.files import SEAL, cannot, seal_of, write_atomically
from cache.identity import canonical_json
from rcnn_cli.exporting.card import KEY, MALFORMED, DetectorCard, Held, card_of_json, card_text, damaged, said, stage_of
from rcnn_cli.looking.image_detector import ImageDetector
from rcnn_cli.looking.showing import Showing, shown_by
from rcnn_cli.looking.thresholds import with_thresholds
from rcnn_cli.recipes.graph import Described, Node
from rcnn_cli.running.demand import Demand
from stages.contract.errors import StageError
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.contract.kinds import KINDS
from stages.contract.settings import build_settings, identity_of
from stages.input_files import read_whole
from stages.networks.weights_file import KEY as WEIGHTS_KEY
from stages.networks.weights_file import read_header

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger("rcnn")

SUFFIX = ".safetensors"
ADVICE = "name a file that `rcnn export` wrote"


def is_model_file(path: Path) -> bool:
    """Whether a file's name is that of an exported detector, and not of a recipe."""
    return path.suffix == SUFFIX


def is_exported(path: Path) -> bool:
    """Whether `rcnn export` wrote the file."""
    try:
        return bool(sealed_card(path))
    except (StageError, OSError):
        return False


# Writing


def write_model(path: Path, card: DetectorCard) -> None:
    """Writes the file atomically; the same detector gives the same bytes. Raises CacheError or DiskFull."""
    from safetensors.numpy import save

    value = card.as_json()
    for name, held in card.held.items():
        value["held"][name][SEAL] = held.content.digest
    tensors = {
        f"{name}/{column}": values
        for name, held in card.held.items()
        for column, values in held.content.columns.items()
    }
    write_atomically(path, [save(tensors, {KEY: card_text({**value, SEAL: seal_of(value)})})])


# Reading


def read_card(path: Path) -> DetectorCard:
    """The card alone, without tensors: of a large file only the beginning is read. Raises StageError."""
    return card_of_json(sealed_card(path), path)


def sealed_card(path: Path, raw: bytes | None = None) -> dict[str, Any]:
    """The card's JSON in a file (or in its bytes), as it was written. Raises StageError for any other file."""
    check_exists(path)
    header = read_header(path, raw, ADVICE, "export or fetch it again")
    if header is None:
        raise StageError(f"{path}: is not a .safetensors file; name one that `rcnn export` wrote")
    metadata = header.get("__metadata__", {})
    if KEY not in metadata:
        if WEIGHTS_KEY in metadata:
            raise StageError(
                f"{path}: holds the weights of a network, not a detector; name it in a recipe's [network], or show it "
                "with `rcnn weights show`"
            )
        raise StageError(f"{path}: is a .safetensors file of another program; name one that `rcnn export` wrote")
    try:
        value = json.loads(metadata[KEY])
        sealed = value.pop(SEAL) == seal_of(value)
        canonical_json(value)  # refuses numbers that are not finite
    except MALFORMED as error:
        raise damaged(path, f"its card cannot be read: {said(error)}") from error
    if not sealed:
        raise damaged(path, "its card has changed since it was written")
    return dict(value)


def check_exists(path: Path) -> None:
    """Raises StageError where no such file exists."""
    try:
        path.stat()
    except FileNotFoundError:
        raise StageError(f"{path}: no such file; {ADVICE}") from None
    except (OSError, ValueError):
        return  # whoever reads it says what is wrong


def read_model(path: Path) -> DetectorCard:
    """The detector in a file, each tensor checked against the card. Raises StageError."""
    check_exists(path)
    try:
        raw = read_whole(path)
    except OSError as error:
        raise StageError(f"{path}: " + cannot("be read", error, ADVICE)) from error
    card = card_of_json(sealed_card(path, raw), path)
    tensors = tensors_in(raw, path)
    held = {name: with_tensors(name, one, tensors, path) for name, one in card.held.items()}
    if tensors:
        raise damaged(path, f"it holds a tensor '{next(iter(tensors))}' that its card does not describe")
    return replace(card, held=held)


def tensors_in(raw: bytes, path: Path) -> dict[str, np.ndarray]:
    """The tensors in the bytes of a safetensors file. Raises StageError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(raw))
    except (SafetensorError, *MALFORMED) as error:
        raise damaged(path, said(error)) from error


def with_tensors(name: str, held: Held, tensors: dict[str, np.ndarray], path: Path) -> Held:
    """A model of the card with its tensors, which are taken out of `tensors`. Raises StageError unless they are those
    that were written, and the settings those of a stage that is known."""
    prefix = f"{name}/"
    own = {key.removeprefix(prefix): tensors.pop(key) for key in list(tensors) if key.startswith(prefix)}
    try:
        content = held.content.with_columns(own)
    except CacheError as error:
        raise damaged(path, f"{name}: {error}") from error
    if content.digest != held.digest:
        raise damaged(path, f"the tensors of {name} have changed since they were written")
    stage = stage_of(content, path)
    if stage is None:
        return replace(held, content=content)
    fields = {one.name for one in dataclasses.fields(stage.settings)}
    known = {key: value for key, value in content.settings.items() if key in fields}
    settings = identity_of(build_settings(stage.settings, known, f"{path}: [{name}]"))
    return replace(held, content=replace(content, settings={**content.settings, **settings}))


# Detecting


@dataclass
class OpenModels:
    """What a file holds, as stages are given it: each opened once."""

    card: DetectorCard
    path: Path
    opened: dict[str, Any] = field(default_factory=dict)

    def described(self, source: Described) -> Any:
        """What fills the inputs that name it."""
        if source.name not in self.opened:
            self.opened[source.name] = KINDS[self.card.held[source.name].kind].open_cache(self.reader(source.name))
        return self.opened[source.name]

    def reader(self, name: str) -> Any:
        """The cache that it holds under this name."""
        from cache.held import HeldReader

        held = self.card.held[name]
        return HeldReader(held.content, self.path, held.digest)


def detector_of_file(
    path: Path, execution: Execution, threshold: float | None = None, precision: float | None = None
) -> ImageDetector:
    """The detector in a file that `rcnn export` wrote: the graph of its card, computed on demand; `threshold` and
    `precision` as in `showing_of`, in place of the thresholds that it may hold. Nothing but this file is read.

    Raises StageError for a file that is damaged, of another version or of another program, and for a precision without
    an evaluation.
    """
    from stages.datasets.photos import Photos
    from stages.detect.trace import suppression_across_tiles

    card, photos = read_model(path), Photos()
    tell_versions(card, path)
    models = OpenModels(card, path)
    demand = Demand(path, models.described, no_cache, execution.in_worker, photos)
    try:
        reader = demand.reader(card.detector)
        classes = tuple(reader.manifest["summary"]["classes"])
    except (*MALFORMED, RuntimeError) as error:
        raise damaged(path, f"its parts do not fit each other: {said(error)}") from error
    if classes != card.classes:
        raise damaged(path, "the classes of its card are not those that it detects")
    showing, origin = showing_of_model(models, threshold, precision), origin_of(card, path)
    return ImageDetector(reader, photos, showing, origin, suppression_across_tiles(card.detector.settings))


def no_cache(node: Node, source: Node) -> Any:
    """A file's nodes are all computed."""
    return None


def origin_of(card: DetectorCard, path: Path) -> dict[str, str]:
    """What names the detector in results."""
    return {"model": str(path), "detector": card.detector.name}


def showing_of_model(models: OpenModels, threshold: float | None, precision: float | None) -> Showing:
    """How the detections are shown: unless a threshold or a precision is asked for, by the thresholds that the file
    holds, else by its evaluation. Raises StageError for a precision without one."""
    from stages.eval.report import read_curves

    card = models.card
    if precision is not None and not card.evaluation:
        raise StageError(
            f"--precision: {models.path} was exported without an evaluation, so no precision is known; pass --threshold"
        )
    curves = read_curves(models.reader(card.evaluation)) if card.evaluation else {}
    showing = shown_by(card.detector.settings, card.classes, curves, card.measured, threshold, precision)
    if card.thresholds is None or threshold is not None or precision is not None:
        return showing
    return with_thresholds(showing, card.thresholds, models.path)


def tell_versions(card: DetectorCard, path: Path) -> None:
    """Warns where libraries that decide results are others than those that the detector was exported with."""
    for node in card.nodes:
        stage = node.use.stage
        if not stage.reads_files:
            continue
        here, there = stage.load().identity(node.settings, Inputs(), None), card.made_with[node.name]
        for name in sorted({*here, *there}):
            if here.get(name) != there.get(name):
                log.warning(
                    "%s: %s was exported with %s %s, here it is %s; detections may differ from those measured",
                    path, stage.name, name, there.get(name, "absent"), here.get(name, "absent"),
                )  # fmt: skip
