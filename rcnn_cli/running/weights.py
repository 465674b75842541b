"""`rcnn weights`: import the weights of networks, and show what a file of weights holds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rcnn_cli.outputs import check_output_file
from stages.contract.errors import StageError

if TYPE_CHECKING:
    from stages.networks.weights_file import WeightsRecord


def import_file(
    source: str, network: str, output: Path, preprocessing: str | None, mean: str | None, scores: str | None
) -> str:
    """Imports `source` as weights of `network` and writes them to `output`; says what was imported."""
    from stages.networks.importer import import_weights
    from stages.networks.weights_file import write_weights

    check_output_file("-o", output, [Path(source)], is_imported)
    imported = import_weights(source, network, preprocessing, parsed_mean(mean), scores)
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
    """Whether a file is one that `rcnn weights import` wrote."""
    from stages.networks.weights_file import read_record

    try:
        return read_record(path) is not None
    except (StageError, OSError):
        return False


def parsed_mean(text: str | None) -> list[float]:
    """Three numbers with commas between them; none for None."""
    try:
        return [float(one) for one in text.split(",")] if text else []
    except ValueError as error:
        raise StageError(f"--mean {text}: must be three numbers, as 103.939,116.779,123.68") from error


def show_file(path: Path) -> str:
    """What a file of weights holds: where it comes from, and the name and shape of each tensor; all is read."""
    from stages.networks.caffemodel import read_caffemodel
    from stages.networks.importer import is_state_dict
    from stages.networks.weights import read_state
    from stages.networks.weights_file import read_record

    record = read_record(path)
    if record is not None or is_state_dict(path):
        shapes = {name: tuple(tensor.shape) for name, tensor in read_state(path).items()}
        lines = described(path, record) if record else [f"{path}: a state dict"]
    else:
        layers = read_caffemodel(path)
        shapes = {f"{name}[{i}]": blob.shape for name, blobs in layers.items() for i, blob in enumerate(blobs)}
        lines = [f"{path}: a .caffemodel, its layers in order: {' '.join(layers)}"]
    width = max(map(len, shapes))
    lines += [f"  {name:<{width}}  {' x '.join(map(str, shape)) or 1}" for name, shape in shapes.items()]
    return "\n".join((*lines, f"  {counted(shapes.values())}"))


def described(path: Path, record: WeightsRecord) -> list[str]:
    """What imported weights say of themselves."""
    one = record.preprocessing
    return [
        f"{path}: weights of {record.network} with {record.classes:,} classes",
        f"  from {record.source_file}, a {record.source_format}, SHA-256 {record.source_sha256}",
        f"  preprocessing {one.name}: {one.order.upper()}, x {one.scale:.6g}, minus {one.mean}, divided by {one.std}",
        f"  tensors: SHA-256 {record.tensors}",
    ]


def counted(shapes: Iterable[Sequence[int]]) -> str:
    """How many numbers there are."""
    return f"{sum(map(math.prod, shapes)):,} numbers"
