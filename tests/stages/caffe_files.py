"""Caffe's files, written by hand: the text of a model definition, and .caffemodel files in all three of its formats.

Nothing here is the project's own code, so that reading these files and comparing with OpenCV's importer says something.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

Blobs = Sequence[np.ndarray]


def varint(value: int) -> bytes:
    """A whole number as Protocol Buffers write it: seven bits a byte, the lowest first."""
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*octets, value])


def field(number: int, content: bytes | str | int) -> bytes:
    """A field: its number and kind, then a whole number, or a length and as many bytes."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def blob(values: np.ndarray, version: int) -> bytes:
    """A BlobProto: four dimensions in the old formats, a shape in the new one; its numbers packed, little-endian."""
    if version < 2:
        shape = [1] * (4 - values.ndim) + list(values.shape)
        dimensions = b"".join(field(number, side) for number, side in enumerate(shape, start=1))
    else:
        dimensions = field(7, field(1, b"".join(map(varint, values.shape))))
    return field(5, values.astype("<f4").tobytes()) + dimensions


def dropout(ratio: float = 0.5, scale_train: bool | None = None) -> bytes:
    """A DropoutParameter; `scale_train` as caffe-fast-rcnn writes it, None: as Caffe does."""
    told = b"" if scale_train is None else field(2, int(scale_train))
    return varint(1 << 3 | 5) + struct.pack("<f", ratio) + told


def caffemodel(layers: Mapping[str, Blobs], version: int = 2, dropouts: Mapping[str, bytes] | None = None) -> bytes:
    """A NetParameter with these layers: format 0 (2013), 1 (2014) or 2 (since).

    `dropouts` are the parameters of those that drop outputs: drop6 those of fc6. The format of 2013 has none.
    """
    written = [field(1, "net")]
    for name, blobs in layers.items():
        numbers = [blob(np.asarray(one), version) for one in blobs]
        parameters = (dropouts or {}).get(name)
        dropped = name.replace("drop", "fc")
        if version == 0:
            inner = field(1, name) + field(2, "conv") + b"".join(field(50, one) for one in numbers)
            written.append(field(2, field(1, inner) + field(3, name)))
        elif version == 1:
            of_dropout = b"" if parameters is None else field(2, dropped) + field(5, 6) + field(12, parameters)
            inner = field(3, name) + field(4, name) + of_dropout + b"".join(field(6, one) for one in numbers)
            written.append(field(2, inner))
        else:
            of_dropout = b"" if parameters is None else field(2, "Dropout") + field(3, dropped) + field(108, parameters)
            written.append(field(100, field(1, name) + of_dropout + b"".join(field(7, one) for one in numbers)))
    return b"".join(written)


def layer(name: str, kind: str, bottom: str, top: str, parameters: str = "") -> str:
    """One layer of a model definition."""
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top}" {parameters} }}\n'


def convolution(
    name: str, bottom: str, outputs: int, kernel: int, stride: int = 1, pad: int = 0, group: int = 1
) -> str:
    """A convolution and the rectifier that works in its place."""
    numbers = f"num_output: {outputs} kernel_size: {kernel} stride: {stride} pad: {pad} group: {group}"
    text = layer(name, "Convolution", bottom, name, f"convolution_param {{ {numbers} }}")
    return text + layer(rectifier(name), "ReLU", name, name)


def rectifier(name: str) -> str:
    """conv1 -> relu1, fc6 -> relu6."""
    return "relu" + name.removeprefix("conv").removeprefix("fc")


def pooling(name: str, bottom: str, kernel: int, stride: int, pad: int = 0) -> str:
    """Max pooling; Caffe rounds the number of windows up."""
    numbers = f"kernel_size: {kernel} stride: {stride} pad: {pad}"
    return layer(name, "Pooling", bottom, name, f"pooling_param {{ pool: MAX {numbers} }}")


def normalisation(name: str, bottom: str, parameters: str) -> str:
    """Local response normalisation."""
    return layer(name, "LRN", bottom, name, f"lrn_param {{ {parameters} }}")


def classifier(bottom: str, width: int, classes: int) -> str:
    """fc6, fc7 and fc8."""

    def inner(name: str, below: str, outputs: int) -> str:
        return layer(name, "InnerProduct", below, name, f"inner_product_param {{ num_output: {outputs} }}")

    return "".join(
        (
            inner("fc6", bottom, width)
            + layer("relu6", "ReLU", "fc6", "fc6")
            + layer("drop6", "Dropout", "fc6", "fc6"),
            inner("fc7", "fc6", width) + layer("relu7", "ReLU", "fc7", "fc7") + layer("drop7", "Dropout", "fc7", "fc7"),
            inner("fc8", "fc7", classes),
        )
    )


def definition(size: int, parts: Iterable[str], inputs: str = "") -> bytes:
    """A model definition with the input `data`, [1, 3, size, size]."""
    head = f'name: "net" input: "data" input_shape {{ dim: 1 dim: 3 dim: {size} dim: {size} }}\n'
    return (head + inputs + "".join(parts)).encode()


def tnet(size: int, width: int, classes: int) -> bytes:
    """bvlc_reference_caffenet/deploy.prototxt with narrower fc6 and fc7."""
    across = "local_size: 5 alpha: 0.0001 beta: 0.75"
    parts = [
        convolution("conv1", "data", 96, 11, stride=4),
        pooling("pool1", "conv1", 3, 2),
        normalisation("norm1", "pool1", across),
        convolution("conv2", "norm1", 256, 5, pad=2, group=2),
        pooling("pool2", "conv2", 3, 2),
        normalisation("norm2", "pool2", across),
        convolution("conv3", "norm2", 384, 3, pad=1),
        convolution("conv4", "conv3", 384, 3, pad=1, group=2),
        convolution("conv5", "conv4", 256, 3, pad=1, group=2),
        pooling("pool5", "conv5", 3, 2),
        classifier("pool5", width, classes),
    ]
    return definition(size, parts)


def onet(size: int, width: int, classes: int) -> bytes:
    """VGG_ILSVRC_16_layers_deploy.prototxt with narrower fc6 and fc7."""
    parts, below = [], "data"
    for block, (outputs, count) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], start=1):
        for position in range(1, count + 1):
            parts.append(convolution(f"conv{block}_{position}", below, outputs, 3, pad=1))
            below = f"conv{block}_{position}"
        parts.append(pooling(f"pool{block}", below, 2, 2))
        below = f"pool{block}"
    return definition(size, [*parts, classifier("pool5", width, classes)])


def zf(size: int, width: int, classes: int) -> bytes:
    """models/pascal_voc/ZF/fast_rcnn/test.prototxt with narrower fc6 and fc7 and only the scores, not the boxes."""
    within = "local_size: 3 alpha: 0.00005 beta: 0.75 norm_region: WITHIN_CHANNEL"
    parts = [
        convolution("conv1", "data", 96, 7, stride=2, pad=3),
        normalisation("norm1", "conv1", within),
        pooling("pool1", "norm1", 3, 2, pad=1),
        convolution("conv2", "pool1", 256, 5, stride=2, pad=2),
        normalisation("norm2", "conv2", within),
        pooling("pool2", "norm2", 3, 2, pad=1),
        convolution("conv3", "pool2", 384, 3, pad=1),
        convolution("conv4", "conv3", 384, 3, pad=1),
        convolution("conv5", "conv4", 256, 3, pad=1),
        'layer { name: "pool5" type: "ROIPooling" bottom: "conv5" bottom: "rois" top: "pool5" '
        "roi_pooling_param { pooled_w: 6 pooled_h: 6 spatial_scale: 0.0625 } }\n",
        classifier("pool5", width, classes),
    ]
    return definition(size, parts, 'input: "rois" input_shape { dim: 1 dim: 5 }\n')
