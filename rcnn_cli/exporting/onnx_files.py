"""The networks of a detector as ONNX files, each checked against ours by onnxruntime before it is kept."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rcnn_cli.exporting.card import DetectorCard, thresholds_as_json
from rcnn_cli.exporting.model_file import OpenModels, no_cache
from rcnn_cli.outputs import OutputFolder
from rcnn_cli.running.demand import Demand
from rcnn_cli.running.runner import size
from stages.contract.errors import StageError
from stages.contract.execution import Execution
from stages.datasets.photos import Photos
from stages.images.reading import Pixels
from stages.networks.parts import NetworkPart
from stages.networks.precision import arithmetic

CARD = "card.json"
LARGEST_DIFFERENCE = 1e-4
"""Of an output, relative to its largest value, or to 1 if that is smaller."""
OPSET = 18


@dataclass(frozen=True)
class Check:
    """How far onnxruntime's outputs are from ours on several images: the largest absolute difference of each output,
    the largest absolute value of each, and the shapes of the inputs tried."""

    differences: Mapping[str, float]
    magnitudes: Mapping[str, float]
    shapes: tuple[Mapping[str, tuple[int, ...]], ...]

    @property
    def worst(self) -> tuple[str, float]:
        """The output that differs most, and by how much, relative to its largest value (or to 1)."""
        relative = {name: one / max(1.0, self.magnitudes[name]) for name, one in self.differences.items()}
        return max(relative.items(), key=lambda item: item[1])

    def as_json(self) -> dict[str, Any]:
        """For the card."""
        return {
            "largest_difference": dict(self.differences),
            "largest_value": dict(self.magnitudes),
            "on_inputs": [{name: list(shape) for name, shape in shapes.items()} for shapes in self.shapes],
        }


def check_installed() -> None:
    """Raises StageError where a package of the extra is missing."""
    import importlib.util

    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise StageError(f"--onnx: needs the package {missing[0]}; install it with `pip install 'rcnn[onnx]'`")


def parts_of(card: DetectorCard, place: Path, images: Mapping[str, Pixels]) -> dict[str, list[NetworkPart]]:
    """The networks' parts that an image passes through, by a name for their files, once for each of `images`: the same
    modules, with inputs made from that image."""
    photos = Photos()
    models = OpenModels(card, place)
    demand = Demand(place, models.described, no_cache, Execution(), photos)
    found: dict[str, list[NetworkPart]] = {}
    for node in card.nodes:
        make = node.use.stage.function("network_parts")
        if make is None:
            continue
        inputs = demand.inputs(node)
        for name, pixels in images.items():
            photos.show(name, pixels)
            for part in make(node.settings, inputs, name):
                taken = part.name in found and len(found[part.name]) == len(images)
                examples = found.setdefault(f"{node.use.name}-{part.name}" if taken else part.name, [])
                examples.append(with_fewer(part) if examples else part)
    return found


def with_fewer(part: NetworkPart) -> NetworkPart:
    """The part with half of its regions, crops or windows, where their number is free: another shape to try."""
    halved = {
        name: tensor[: max(1, len(tensor) // 2)] if 0 in part.free.get(name, {}) else tensor
        for name, tensor in part.inputs.items()
    }
    return replace(part, inputs=halved)


def write_onnx(card: DetectorCard, place: Path, images: Mapping[str, Pixels], folder: OutputFolder) -> Iterator[str]:
    """Writes NAME.onnx for each part of the networks, and card.json; yields a line for each, with the largest
    difference between onnxruntime's outputs and ours on `images`.

    Raises StageError where they differ by more than LARGEST_DIFFERENCE; then that file is not kept.
    """
    parts = parts_of(card, place, images)
    if not parts:
        raise StageError(f"{place}: [{card.detector.use.name}] runs no network that could be exported as ONNX")
    folder.check([*(f"{name}.onnx" for name in parts), CARD])
    described: dict[str, Any] = {}
    for name, examples in parts.items():
        with folder.file(f"{name}.onnx") as file:
            export_part(examples[0], file)
            check = checked(file, examples)
            refuse_difference(name, check)
        described[name] = {**described_inputs(examples[0]), **examples[0].about, "checked": check.as_json()}
        yield (
            f"Exported: {folder.path / name}.onnx, {size((folder.path / f'{name}.onnx').stat().st_size)}: onnxruntime "
            f"differs from ours by {max(check.differences.values()):.1e} at most, in values up to "
            f"{max(check.magnitudes.values()):.3g}"
        )
    about = {name: value for name, value in card.about.items() if name != "how_to_use"}
    about |= {"what": "the networks of a detector of rcnn", "classes": list(card.classes)}
    about |= {"thresholds": thresholds_as_json(card.thresholds), "parts": described}
    folder.write(CARD, json.dumps(about, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    yield f"Exported: {folder.path / CARD}: how their inputs are made"


def described_inputs(part: NetworkPart) -> dict[str, Any]:
    """The inputs' shapes, with a name for each dimension that is free, and the outputs."""
    shapes = {
        name: [part.free.get(name, {}).get(axis, length) for axis, length in enumerate(tensor.shape)]
        for name, tensor in part.inputs.items()
    }
    return {"inputs": shapes, "outputs": list(part.outputs)}


def export_part(part: NetworkPart, file: Path) -> None:
    """Writes the part as one ONNX file."""
    free = {name: dict(part.free.get(name, {})) for name in part.inputs}
    with quiet():
        torch.onnx.export(
            part.module.eval(),
            tuple(part.inputs.values()),
            file,
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            opset_version=OPSET,
            dynamic_shapes=free,
            dynamo=True,
            external_data=False,
            custom_translation_table=translations(),
            verbose=False,
        )


def translations() -> dict[Any, Any]:
    """Operators of ours that torch.onnx does not know: RoI max pooling, which is ONNX's MaxRoiPool."""
    import onnxscript
    import torchvision  # noqa: F401  registers its operators

    op = onnxscript.opset18

    def roi_pool(maps: Any, boxes: Any, spatial_scale: float, pooled_height: int, pooled_width: int) -> tuple[Any, Any]:
        pooled = op.MaxRoiPool(maps, boxes, pooled_shape=[pooled_height, pooled_width], spatial_scale=spatial_scale)
        return pooled, op.Identity(pooled)  # the second would be the cells that were largest, which nobody reads

    return {torch.ops.torchvision.roi_pool.default: roi_pool}


def checked(file: Path, examples: Sequence[NetworkPart]) -> Check:
    """onnxruntime's outputs beside ours, on the inputs of each example."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    differences = dict.fromkeys(examples[0].outputs, 0.0)
    magnitudes = dict.fromkeys(examples[0].outputs, 0.0)
    for example in examples:
        given = {name: tensor.numpy() for name, tensor in example.inputs.items()}
        for name, ours, theirs in zip(
            example.outputs, outputs_of(example), session.run(list(example.outputs), given), strict=True
        ):
            differences[name] = max(differences[name], difference(ours, theirs))
            magnitudes[name] = max(magnitudes[name], float(np.abs(ours).max(initial=0)))
    shapes = tuple({name: tuple(tensor.shape) for name, tensor in one.inputs.items()} for one in examples)
    return Check(differences, magnitudes, shapes)


def outputs_of(part: NetworkPart) -> list[NDArray[np.floating]]:
    """What the part computes from its own inputs."""
    with torch.inference_mode(), arithmetic("float32", "cpu"):
        outputs = part.module(*part.inputs.values())
    return [one.numpy() for one in (outputs if isinstance(outputs, tuple) else (outputs,))]


def difference(ours: NDArray[np.floating], theirs: NDArray[np.floating]) -> float:
    """The largest absolute difference; infinite where shapes differ or something is no number."""
    if ours.shape != theirs.shape:
        return float("inf")
    largest = np.abs(ours.astype(np.float64) - theirs).max(initial=0)
    return float(largest) if np.isfinite(largest) else float("inf")


def refuse_difference(name: str, check: Check) -> None:
    """Raises StageError where a part's outputs are not ours."""
    worst, by = check.worst
    if not by <= LARGEST_DIFFERENCE:
        raise StageError(
            f"{name}.onnx: onnxruntime's {worst} differs from ours by {by:.1e} of its largest value, more than "
            f"{LARGEST_DIFFERENCE:g}; the file was not kept: try other versions of onnx and onnxruntime"
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the exporter's progress and warnings off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
