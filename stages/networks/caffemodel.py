"""Reading Caffe's binary model files (.caffemodel), in all three formats.

These are layers inside layer connections (2013, R-CNN's own release), `layers` (2014) and `layer` (since then). The
part of caffe.proto with names, weights and dropout is declared here for the protobuf library, so neither Caffe nor a
model definition is needed. OpenCV's importer finds no weights in files from 2013.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.files import cannot
from stages.contract.errors import StageError
from stages.input_files import read_whole

Blobs = list[NDArray[np.float32]]

# message: field: (number, type, repeated); numbers as in caffe.proto, that of scale_train as in caffe-fast-rcnn's
PROTOCOL: dict[str, dict[str, tuple[int, str, bool]]] = {
    "Net": {"layers": (2, "Layer2014", True), "layer": (100, "Layer", True)},
    "Layer": {
        "name": (1, "string", False),
        "type": (2, "string", False),
        "bottom": (3, "string", True),
        "blobs": (7, "Blob", True),
        "dropout_param": (108, "Dropout", False),
    },
    "Layer2014": {
        "layer": (1, "Layer2013", False),
        "bottom": (2, "string", True),
        "name": (4, "string", False),
        "type": (5, "int64", False),
        "blobs": (6, "Blob", True),
        "dropout_param": (12, "Dropout", False),
    },
    "Layer2013": {"name": (1, "string", False), "blobs": (50, "Blob", True)},
    "Blob": {
        "num": (1, "int64", False),
        "channels": (2, "int64", False),
        "height": (3, "int64", False),
        "width": (4, "int64", False),
        "data": (5, "float", True),
        "shape": (7, "Shape", False),
        "double_data": (8, "double", True),
    },
    "Shape": {"dim": (1, "int64", True)},
    "Dropout": {"dropout_ratio": (1, "float", False), "scale_train": (2, "bool", False)},
}
DROPOUT = ("Dropout", 6)
"""The type of a dropout layer, since 2014 a name, before that a number."""


@dataclass(frozen=True)
class Dropout:
    """Dropout as a .caffemodel records it: `ratio` is the share of the outputs that is dropped in training. Unless they
    are `scaled` by 1 / (1 - ratio) there, as in Caffe itself, all outputs are multiplied by 1 - ratio at test
    (`scale_train: false`, caffe-fast-rcnn)."""

    ratio: float
    scaled: bool


@dataclass(frozen=True)
class CaffeModel:
    """A .caffemodel: its `layers` in the file's order, each with its blobs (weights, then biases), float32, none for
    layers without weights; and `dropouts`, by the name of the layer whose outputs are dropped."""

    layers: dict[str, Blobs]
    dropouts: dict[str, Dropout]


@functools.cache
def net_message() -> Any:
    """The message class for Caffe's NetParameter, as far as `PROTOCOL` declares it; other fields are skipped."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    scalars = {name: getattr(kinds, f"TYPE_{name.upper()}") for name in ("string", "int64", "float", "double", "bool")}
    file = descriptor_pb2.FileDescriptorProto(name="rcnn/caffe.proto", package="caffe", syntax="proto2")
    for message, fields in PROTOCOL.items():
        described = file.message_type.add(name=message)
        for name, (number, kind, repeated) in fields.items():
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            field = described.field.add(name=name, number=number, label=label)
            if kind in scalars:
                field.type = scalars[kind]
                field.options.packed = repeated and kind != "string"
            else:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".caffe.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.Net"))


def read_caffemodel(path: Path, content: bytes | None = None) -> CaffeModel:
    """A .caffemodel in any of the formats. `content` is the file's bytes, if they have already been read. Raises
    StageError for any other file.
    """
    from google.protobuf.message import DecodeError

    try:
        net = net_message().FromString(read_whole(path) if content is None else content)
    except OSError as error:
        raise StageError(f"{path}: " + cannot("be read", error, "name a file of weights")) from error
    except DecodeError as error:
        raise StageError(
            f"{path}: is neither a .caffemodel nor a state dict, or is incomplete; fetch it again, or name another file"
        ) from error
    layers: dict[str, Blobs] = {}
    for layer in all_layers(net):
        blobs = [as_array(path, layer.name, blob) for blob in layer.blobs]
        if blobs or layer.name not in layers:  # training nets have one data layer per phase
            layers[layer.name] = blobs
    if not any(layers.values()):
        raise StageError(f"{path}: contains no weights; name a .caffemodel, not a model definition or solver state")
    return CaffeModel(layers, recorded_dropouts(path, net))


def recorded_dropouts(path: Path, net: Any) -> dict[str, Dropout]:
    """The dropout of a parsed net, by the name of the layer whose outputs are dropped. Raises StageError for a ratio
    that is none. Files from 2013 record no scaling and are not searched: Caffe always scaled in training."""
    dropouts: dict[str, Dropout] = {}
    for layer in (*net.layers, *net.layer):
        if layer.type in DROPOUT:
            recorded = layer.dropout_param
            ratio = recorded.dropout_ratio if recorded.HasField("dropout_ratio") else 0.5
            if not 0 <= ratio < 1:
                raise StageError(f"{path}: layer '{layer.name}' drops {ratio:g} of its inputs; fetch the file again")
            scaled = recorded.scale_train or not recorded.HasField("scale_train")
            dropouts |= {name: Dropout(ratio, scaled) for name in layer.bottom}
    return dropouts


def all_layers(net: Any) -> Iterator[Any]:
    """The layers of a parsed net, in any of the formats."""
    for layer in net.layers:
        yield layer.layer if layer.HasField("layer") else layer
    yield from net.layer


def as_array(path: Path, name: str, blob: Any) -> NDArray[np.float32]:
    """A blob as an array float32 [...] of its shape. Raises StageError if its number of values does not match."""
    shape = list(blob.shape.dim) if blob.HasField("shape") else [blob.num, blob.channels, blob.height, blob.width]
    values = np.array(blob.data or blob.double_data, np.float32)
    if values.size != np.prod(shape, dtype=np.int64) or min(shape, default=1) < 1:
        raise StageError(f"{path}: layer '{name}' has {values.size} weights but shape {shape}; fetch the file again")
    return values.reshape(shape)
