"""`rcnn export`: the trained detector of a recipe as one file."""

from __future__ import annotations

import platform
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cache import Reader
from cache.held import Content, HeldReader
from rcnn_cli.exporting.card import HELD, PHOTOS, DetectorCard, Held
from rcnn_cli.exporting.model_file import SUFFIX, is_exported
from rcnn_cli.looking.showing import Showing, evaluation_for, measured_on
from rcnn_cli.looking.thresholds import (
    Thresholds,
    models_key,
    read_thresholds_file,
    warn_of_another_detector,
    with_thresholds,
)
from rcnn_cli.outputs import OutputFolder, check_output_file
from rcnn_cli.recipes.graph import Described, Graph, Node, installed_version, kind_of
from rcnn_cli.recipes.recipe import sources_of
from rcnn_cli.running.runner import VERSIONS, complete, needed, size
from rcnn_cli.running.splits import trainings_of
from stages.contract.card import Input
from stages.contract.errors import StageError
from stages.contract.inputs import Inputs
from stages.contract.kinds import DATASETS, KINDS
from stages.contract.settings import named_files
from stages.images.reading import Pixels
from stages.plurals import number_of
from stages.tables import percent

FOLDERS = re.compile(r"(?<![^:])[^:]*/(?=[^:/])")
"""The folders at the beginning of each part of a source."""


def check_output(output: Path, graph: Graph) -> None:
    """Raises StageError, before anything is read, where the file cannot be written or is someone else's."""
    if output.suffix != SUFFIX:
        raise StageError(f"-o {output}: must end in {SUFFIX}, as in -o {output.with_suffix(SUFFIX).name}")
    check_output_file("-o", output, [graph.recipe.path], is_exported)


def export_networks(graph: Graph, node: Node, card: DetectorCard, folder: Path) -> Iterator[str]:
    """Writes the networks of a detector as ONNX files into `folder`, tried on two images of its dataset; yields a line
    for each. Raises as `write_onnx`."""
    from rcnn_cli.exporting.onnx_files import write_onnx

    yield from write_onnx(card, graph.recipe.path, images_to_try(graph, node), OutputFolder(folder))


def images_to_try(graph: Graph, node: Node) -> dict[str, Pixels]:
    """An image of the detector's dataset and a part of another, upright if the first is wide, wide if it is upright."""
    dataset = graph.dataset(node.dataset)
    first, last = (dataset.read_image(dataset.image_ids[place]) for place in (0, -1))
    height, width = last.shape[:2]
    wide = first.shape[1] > first.shape[0]
    part = last[:, : 3 * height // 4] if wide else last[: 3 * width // 4]
    return {"whole": first, "part": np.ascontiguousarray(part)}


def exported_line(card: DetectorCard, output: Path) -> str:
    """What was written, on one line, for people."""
    figures = card.about["figures"]
    measured = f", mAP {percent(figures['map'])} % on {figures['dataset']}" if figures else ""
    return (
        f"Exported: {output}, {size(output.stat().st_size)}: {number_of(len(card.classes), 'class')}{measured} "
        f"(`rcnn predict {shlex.quote(str(output))} photo.jpg`)"
    )


def card_of_recipe(graph: Graph, node: Node, note: str = "", thresholds: Path | None = None) -> DetectorCard:
    """The detector that the node of a recipe trained, with all that it needs, and the `thresholds` in a file.

    Raises IncompleteCache where it is not trained, StageError where it cannot detect in other images, and for
    thresholds that are not of its classes and its kind of score.
    """
    names = {other.name for other in node.image_path()}
    path = [other for other in graph.nodes.values() if other.name in names]
    for other in path:
        check_exportable(graph, other)
    showing = showing_of_recipe(graph, node)
    chosen = None if thresholds is None else thresholds_in(thresholds, showing, models_key(graph, node))
    held: dict[str, Held] = {}
    nodes: dict[str, Node] = {}
    for other in path:
        roles = {wanted.role: wanted for wanted in other.use.stage.inputs}
        sources = {
            role: held_source(graph, other, roles[role], source, nodes, held) for role, source in other.sources.items()
        }
        nodes[other.name] = Node(other.use, other.split, sources)
    evaluation = evaluation_for(graph, node)
    if evaluation is not None:
        held[evaluation.name] = held_evaluation(graph, evaluation)
    return DetectorCard(
        tuple(nodes.values()),
        held,
        showing.classes,
        showing.score,
        evaluation.name if evaluation is not None else "",
        measured_words(graph, evaluation),
        {other.name: made_with(other) for other in path},
        chosen,
        about(graph, node, held, evaluation, note),
    )


def check_exportable(graph: Graph, node: Node) -> None:
    """Raises StageError where the node cannot be computed for any image by whoever has the file alone."""
    for name, value in named_files(node.settings).items():
        raise StageError(
            f"{graph.recipe.path}: [{node.table}] reads the file {value} ({name}), which does not go into an export; "
            f"set it up without that file, as in [{node.use.name}.{node.split}], and run it again"
        )
    if node.use.stage.function("on_demand") is None:
        raise StageError(
            f"{graph.recipe.path}: [{node.use.name}] cannot be computed on demand (its stage has no `on_demand`); "
            "choose a detector that does not need it"
        )


def held_source(
    graph: Graph,
    node: Node,
    wanted: Input,
    source: Node | Described,
    nodes: Mapping[str, Node],
    held: dict[str, Held],
) -> Node | Described:
    """What fills an input of the node in the file: another of its `nodes`, the photos, or a model, added to those that
    are `held`. Raises IncompleteCache for one that is not trained."""
    if isinstance(source, Node):
        if source.use.stage.follows_split:
            return nodes[source.name]
        if source.name not in held:
            held[source.name] = held_model(graph, node, source)
        return Described(HELD, source.name)
    if source.section == DATASETS:
        return Described(DATASETS, PHOTOS)
    if source.table not in held:
        described = graph.described(source)
        kind = kind_of(described, wanted, source)
        assert kind.content is not None
        held[source.table] = Held(kind.name, kind.content(described))
    return Described(HELD, source.table)


def held_model(graph: Graph, node: Node, source: Node) -> Held:
    """A model that a stage trained, from its cache. Raises IncompleteCache."""
    if not complete(graph, source):
        raise needed(graph, node, source)
    reader = Reader(graph.folder(source))
    return Held(source.use.stage.makes, Content.of(reader), reader.key)


def held_evaluation(graph: Graph, evaluation: Node) -> Held:
    """An evaluation, its curves condensed."""
    from stages.eval.condensed import condensed_content
    from stages.eval.report import read_curves

    reader = Reader(graph.folder(evaluation))
    return Held(evaluation.use.stage.makes, condensed_content(read_curves(reader), reader.manifest), reader.key)


def showing_of_recipe(graph: Graph, node: Node) -> Showing:
    """How the detector's detections are shown unless something else is asked for."""
    from rcnn_cli.looking.image_detector import detector_of_recipe
    from stages.contract.execution import Execution

    return detector_of_recipe(graph, node, Execution()).showing


def thresholds_in(path: Path, showing: Showing, key: str) -> Thresholds:
    """The thresholds in a file of `rcnn thresholds`; warns if they were chosen for a detector with another `key` than
    this. Raises StageError as `with_thresholds`, and for what a card cannot hold."""
    chosen = read_thresholds_file(path)
    cuts = with_thresholds(showing, chosen, path).cuts
    for name, score in zip(showing.classes, cuts, strict=True):
        if np.isneginf(score):
            raise StageError(f"{path}: the threshold of '{name}' is {score}; write a number, or inf to leave it out")
    if not chosen.rule.isprintable():
        raise StageError(f"{path}: rule = {chosen.rule!r} has characters that are not printed; leave them out")
    warn_of_another_detector(key, chosen, path)
    return replace(chosen, classes=showing.classes, scores=cuts, rule=chosen.rule or path.name)


def measured_words(graph: Graph, evaluation: Node | None) -> dict[str, str]:
    """What names the evaluation, without the folders of this machine."""
    if evaluation is None:
        return {}
    return {name: without_folders(words) for name, words in measured_on(graph, evaluation).items()}


def made_with(node: Node) -> dict[str, Any]:
    """What decides the node's results beside its settings and inputs: implementations and versions of libraries."""
    stage = node.use.stage
    return stage.load().identity(node.settings, Inputs(), None) if stage.reads_files else {}


def about(graph: Graph, node: Node, held: Mapping[str, Held], evaluation: Node | None, note: str) -> dict[str, Any]:
    """What the card says to people: where the detector is from, and how good it was found to be."""
    recipe = graph.recipe
    training = [other.dataset for other in trainings_of(graph, node)]
    return {
        "recipe": {"name": recipe.name, "description": recipe.description, "detector": node.use.name},
        "key": models_key(graph, node),
        "trained_on": {name: data_of(graph, name) for name in dict.fromkeys(training)},
        "figures": figures_of(graph, evaluation),
        "networks": {name: network_words(one) for name, one in held.items() if KINDS[one.kind].on_device},
        "note": note,
        "versions": {
            name: platform.python_version() if name == "python" else installed_version(name)
            for name in ("rcnn", "python", *VERSIONS)
        },
        "how_to_use": [
            "pip install rcnn",
            "rcnn inspect FILE.safetensors",
            "rcnn predict FILE.safetensors photo.jpg",
            "safetensors.numpy.load_file: tensors TABLE/weights/NAME are a network's state dict",
        ],
    }


def network_words(held: Held) -> dict[str, Any]:
    """What someone needs to know to use a network's tensors without rcnn: architecture, outputs, preprocessing."""
    network = KINDS[held.kind].open_cache(HeldReader(held.content, Path(), held.key))
    return {
        "architecture": network.name,
        "input_size": network.card.input_size,
        "outputs": list(network.class_names) or network.classes,
        "preprocessing": network.preprocessing.as_json(),
    }


def data_of(graph: Graph, name: str) -> str:
    """A dataset's source as the recipe has it, without the folders of this machine."""
    return ", ".join(map(without_folders, sources_of(graph.recipe.datasets[name])))


def without_folders(source: str) -> str:
    """A dataset's source with the last part of a path alone: "voc:VOC2007:trainval"."""
    return FOLDERS.sub("", source)


def figures_of(graph: Graph, evaluation: Node | None) -> dict[str, Any]:
    """The mean AP that an evaluation found, as a share, with its bootstrap interval if it has one."""
    if evaluation is None:
        return {}
    summary = Reader(graph.folder(evaluation)).manifest["summary"]
    bootstrap = summary.get("bootstrap", {})
    return {
        "evaluation": evaluation.use.name,
        "dataset": evaluation.dataset,
        "map": summary["map"],
        "metric": summary["metric"],
        "iou": summary["iou"],
        **({"interval": bootstrap["map"], "confidence": bootstrap["confidence"]} if bootstrap else {}),
    }
