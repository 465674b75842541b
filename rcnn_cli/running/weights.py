"""`rcnn weights`: imports network weights and shows the content of weights files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rcnn_cli.outputs import check_output_file
from stages.contract.errors import StageError

if TYPE_CHECKING:
    from stages.networks.weights_file import WeightsRecord


def import_file(
    source: str,
    network: str,
    output: Path,
    preprocessing: str | None,
    mean: str | None,
    scores: str | None,
    classes: str | None = None,
    dropout: str | None = None,
) -> str:
    """Imports `source` as weights of `network` into the file `output`; returns a description. Raises StageError."""
    from stages.networks.importer import import_weights
    from stages.networks.weights_file import write_weights

    check_output_file("-o", output, [Path(source)], is_imported)
    names = [name.strip() for name in classes.split(",")] if classes else []
    imported = import_weights(source, network, preprocessing, parsed_mean(mean), scores, names, dropout)
    write_weights(output, imported.state, imported.record)
    shapes = [tuple(tensor.shape) for tensor in imported.state.values()]
    return "\n".join(
        (
            *described(output, imported.record),
            f"  {counted(shapes)}",
            *(f"  {note}" for note in imported.notes),
            f'In a recipe: [network] name = "{network}", weights = "{output}"',
        )
    )


def is_imported(path: Path) -> bool:
    """Whether `rcnn weights import` wrote the file."""
    from stages.networks.weights_file import read_record

    try:
        return read_record(path) is not None
    except (StageError, OSError):
        return False


def parsed_mean(text: str | None) -> list[float]:
    """Comma-separated numbers; [] for None. Raises StageError."""
    try:
        return [float(number) for number in text.split(",")] if text else []
    except ValueError as error:
        raise StageError(f"--mean {text}: must be three numbers, for example 103.939,116.779,123.68") from error


def show_file(path: Path) -> str:
    """A description of a weights file: its origin and each tensor's name and shape. Reads it all. Raises StageError."""
    from stages.networks.caffemodel import read_caffemodel
    from stages.networks.importer import is_state_dict
    from stages.networks.overfeat_weights import layout, released_network
    from stages.networks.weights import read_state
    from stages.networks.weights_file import read_record

    if (released := released_network(path)) is not None:
        return "\n".join(
            (
                f"{path}: as large as the weights of {released.name}, which have no header",
                *shape_lines(layout(released)),
            )
        )
    record = read_record(path)
    if record is not None or is_state_dict(path):
        shapes = {name: tuple(tensor.shape) for name, tensor in read_state(path).items()}
        lines = described(path, record) if record else [f"{path}: a state dict"]
    else:
        layers = read_caffemodel(path).layers
        shapes = {f"{name}[{i}]": blob.shape for name, blobs in layers.items() for i, blob in enumerate(blobs)}
        lines = [f"{path}: a .caffemodel, its layers in order: {' '.join(layers)}"]
    return "\n".join((*lines, *shape_lines(shapes)))


def shape_lines(shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """The tensors' names and shapes, and how many numbers they hold, as lines of text."""
    width = max(map(len, shapes))
    lines = [f"  {name:<{width}}  {' x '.join(map(str, shape)) or 1}" for name, shape in shapes.items()]
    return [*lines, f"  {counted(shapes.values())}"]


def described(path: Path, record: WeightsRecord) -> list[str]:
    """The recorded origin and preprocessing of imported weights, as lines of text."""
    preprocessing = record.preprocessing
    return [
        f"{path}: weights of {record.network} with {record.classes:,} classes",
        f"  from {record.source_file}, a {record.source_format}, SHA-256 {record.source_sha256}",
        f"  preprocessing {preprocessing.name}: {preprocessing.order.upper()}, x {preprocessing.scale:.6g}, "
        f"minus {preprocessing.mean}, divided by {preprocessing.std}",
        *described_detector(record),
        *(f"  {change}" for change in record.changes),
        f"  tensors: SHA-256 {record.tensors}",
    ]


def described_detector(record: WeightsRecord) -> list[str]:
    """A detector's heads and classes, as lines of text."""
    lines = []
    if (proposals := record.heads.proposals) is not None:
        lines.append(
            f"  region proposal network: scales {proposals.scales}, ratios {proposals.ratios} (height / width)"
        )
    if (regions := record.heads.regions) is not None:
        lines.append(
            f"  class scores and box deltas of regions, {regions.pooling}-pooled to {regions.side} x {regions.side}"
        )
    if record.class_names:
        lines.append(f"  classes: {', '.join(record.class_names)}")
    return lines


def counted(shapes: Iterable[Sequence[int]]) -> str:
    """The number of parameters in tensors of these shapes, as text."""
    return f"{sum(map(math.prod, shapes)):,} numbers"
