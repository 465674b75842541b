"""Images, proposals, weights, HDF5 and JSON to be inspected: spoilt, they are read or refused."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from rcnn_cli.looking.inspection import inspect_file
from rcnn_cli.running.weights import show_file
from stages.images.reading import image_size, read_image
from stages.networks.caffemodel import read_caffemodel
from stages.networks.heads import Heads, ProposalHead, RegionHead
from stages.networks.importer import import_weights
from stages.networks.source import NetworkSource
from stages.networks.weights import read_state
from stages.propose.box_file import BoxFile, content_sha256
from tests.fuzz.mutations import ODD_VALUES, Mutation, as_json, mutated, mutated_tree, mutations, written
from tests.fuzz.verdict import fuzz, read_or_said
from tests.stages.caffe_files import caffemodel, dropout

IDS = ("a", "b", "c/d")
NUMBERS = np.array([[0, 0, 10, 10], [5, 5, 20, 30]], np.float32)


# Images


@cache
def images() -> tuple[bytes, ...]:
    """A picture in every format and several modes."""
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8))
    tag = Image.Exif()
    tag[0x0112] = 6
    made = []
    for form, mode in [
        ("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "I;16"), ("BMP", "RGB"), ("GIF", "P"),
        ("TIFF", "RGB"), ("WEBP", "RGB"), ("PPM", "L"),
    ]:  # fmt: skip
        file = io.BytesIO()
        more = {"exif": tag} if form in ("JPEG", "PNG", "TIFF", "WEBP") else {}
        colours.convert("L" if mode == "I;16" else mode).convert(mode).save(file, form, **more)
        made.append(file.getvalue())
    return tuple(made)


@fuzz(50)
@given(st.integers(0, 9), st.integers(0, 9), mutations())
def test_images(place: Path, one: int, other: int, wanted: list[Mutation]) -> None:
    path = written(
        place / "a.img", mutated(images()[one], wanted, [b"\xff\xff\xff\xff", b"\0" * 8, b"Exif\0\0"], images()[other])
    )
    for upright in (True, False):
        read_or_said(lambda upright=upright: read_image(path, upright=upright))  # type: ignore[misc]
    read_or_said(lambda: image_size(path))
    read_or_said(lambda: inspect_file(path))


# Proposals


def boxes_read(path: Path) -> None:
    """Reads every image's boxes, as propose does."""
    read_or_said(lambda: content_sha256(path))
    file = read_or_said(lambda: BoxFile(path))
    for image_id in IDS if file else ():
        read_or_said(lambda image_id=image_id: file.boxes(image_id))  # type: ignore[misc]


def npz(arrays: dict[str, Any], compressed: bool = False) -> bytes:
    """The arrays as a .npz file."""
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def mat(**content: Any) -> bytes:
    """The variables as a .mat file."""
    file = io.BytesIO()
    scipy.io.savemat(file, content, do_compression=bool(content.pop("compressed", False)))
    return file.getvalue()


def cells(values: list[Any]) -> np.ndarray:
    """A cell array."""
    found = np.empty(len(values), object)
    found[:] = values
    return found


ODD_ARRAYS: list[Any] = [
    np.float64("nan"), np.zeros((0, 4)), np.zeros((2, 3)), np.zeros(4), np.zeros((1, 1, 4)), np.ones((2, 4), bool),
    np.ones((2, 4), np.complex64), np.array([["a", "b", "c", "d"]]), np.array([b"x"]), np.full((1, 4), np.inf),
    np.array([[0, 0, 2**62, 2**62]]), np.zeros(2, [("x", "f4"), ("y", "i2")]),
    np.array("2020-01-01", "datetime64[D]"), np.zeros((2, 4), np.uint64), np.array([[1, 2, 3, 4]], np.float16),
    NUMBERS[:, ::-1], NUMBERS.astype(">f8"),
]  # fmt: skip
NPZ = {"a": NUMBERS, "b": NUMBERS.astype(np.int32), "c/d": NUMBERS}
GOOD_MATS = [
    mat(boxes=cells([NUMBERS[:, [1, 0, 3, 2]] + 1] * 2), images=cells(["a", "b"])),
    mat(boxes=cells([NUMBERS] * 2), images=cells(["a", 7.0]), compressed=True),
]  # fmt: skip


@fuzz(26)
@given(mutations(), st.booleans())
def test_proposals_in_npz(place: Path, wanted: list[Mutation], compressed: bool) -> None:
    boxes_read(
        written(place / "boxes.npz", mutated(npz(NPZ, compressed), wanted, [b"(99999999999, 4)", b"'|O'", b"<f16"]))
    )


@fuzz(13)
@given(st.dictionaries(st.sampled_from(IDS), st.sampled_from(ODD_ARRAYS)))
def test_odd_arrays_in_npz(place: Path, arrays: dict[str, Any]) -> None:
    boxes_read(written(place / "boxes.npz", npz({**NPZ, **arrays})))


HEADERS = [
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4), }",
    b"{'descr': '|O', 'fortran_order': False, 'shape': (2, 4), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999, 4), }", b"{'descr': '<f4'}", b"{" * 900,
    b"[" * 9000, b"{'descr': [('a', '<f4', (9,))] , 'fortran_order': 1, 'shape': (2,), }", b"__import__('os')",
    b"\xff", b"",
]  # fmt: skip


@fuzz(12)
@given(st.sampled_from(HEADERS), st.binary(max_size=40), st.sampled_from(["a.npy", "a", "b.npy"]), st.booleans())
def test_odd_headers_in_npz(place: Path, header: bytes, rest: bytes, name: str, wrong_sum: bool) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n" + rest)
    content = file.getvalue()
    if wrong_sum:
        content = content.replace(rest or b"\n", (rest or b"\n")[::-1] + b"")
    boxes_read(written(place / "boxes.npz", content))


@fuzz(20)
@given(st.sampled_from(GOOD_MATS), mutations(), st.sampled_from(GOOD_MATS))
def test_proposals_in_mat(place: Path, good: bytes, wanted: list[Mutation], other: bytes) -> None:
    boxes_read(written(place / "boxes.mat", mutated(good, wanted, [b"\xff\xff\xff\x7f", b"\0\0\0\0"], other)))


@fuzz(12)
@given(
    st.sampled_from([*ODD_ARRAYS[:13], cells([NUMBERS, "a"]), cells([]), "text"]),
    st.sampled_from(
        [cells(["a", "a"]), cells(["a", 1.5]), cells([np.zeros(0), "b"]), np.zeros(2), "ab", cells([cells(["a"]), "b"])]
    ),
)
def test_odd_variables_in_mat(place: Path, boxes: Any, names: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            content = mat(boxes=boxes, images=names)
        except (TypeError, ValueError):  # what MATLAB has no type for
            return
    boxes_read(written(place / "boxes.mat", content))


def put(group: Any, name: str, kind: str) -> None:
    """One node of an HDF5 file, of an odd kind."""
    vlen = h5py.vlen_dtype(np.float32)
    if kind == "group":
        group.create_group(name)
    elif kind == "huge":
        group.create_dataset(name, (1 << 40, 4), "f4", chunks=(1 << 10, 4))
    elif kind == "scalar":
        group[name] = 3
    elif kind == "empty":
        group.create_dataset(name, data=h5py.Empty("f4"))
    elif kind == "vlen":
        group.create_dataset(name, (2,), vlen)[0] = [1, 2]
    elif kind == "reference":
        group.create_dataset(name, (2,), h5py.ref_dtype)
    elif kind == "enum":
        group.create_dataset(name, (2, 4), h5py.enum_dtype({"x": 1}))
    elif kind == "opaque":
        group.create_dataset(name, (2, 4), "V3")
    elif kind == "bytes":
        group[name] = np.array([b"\xff", b"\xfe"])
    elif kind == "texts":
        group.create_dataset(name, data=["a", "b"], dtype=h5py.string_dtype())
    elif kind == "no text":
        group.create_dataset(name, data=[b"\xff", b"b"], dtype=h5py.string_dtype())
    elif kind == "type":
        group[name] = np.dtype("f4")
    elif kind == "dangling":
        group[name] = h5py.SoftLink("/nowhere")
    elif kind == "circle":
        group[name] = h5py.SoftLink(f"/{name}")
    elif kind == "external":
        group[name] = h5py.ExternalLink("other.h5", "/a")
    elif kind == "outside":
        group.create_dataset(name, (2, 4), "f4", external=[("nowhere.bin", 0, h5py.h5f.UNLIMITED)])
    elif kind == "virtual":
        layout = h5py.VirtualLayout((2, 4), "f4")
        layout[:] = h5py.VirtualSource("nowhere.h5", "a", (2, 4))
        group.create_virtual_dataset(name, layout)
    elif kind == "compressed":
        group.create_dataset(name, data=NUMBERS, compression="gzip", fletcher32=True)
    elif kind == "offsets":
        group[name] = np.array([0, 2, 4])
    elif kind == "more":
        group[name] = np.array([0, 2, 99])
    elif kind == "back":
        group[name] = np.array([0, 9, 4])
    elif kind == "floats":
        group[name] = np.array([0.0, np.nan, 4])
    else:
        group[name] = np.asarray(ODD_ARRAYS[int(kind)])


KINDS = [
    "group", "huge", "scalar", "empty", "vlen", "reference", "enum", "opaque", "bytes", "texts", "no text", "type",
    "dangling", "circle", "external", "outside", "virtual", "compressed", "offsets", "more", "back", "floats", "0",
    "1", "2", "3", "5", "6", "9", "10", "11", "13",
]  # fmt: skip


def hdf5(nodes: dict[str, str]) -> bytes:
    """A file with these nodes, by path and kind."""
    file = io.BytesIO()
    with h5py.File(file, "w") as made:
        for name, kind in nodes.items():
            put(made, name, kind)
    return file.getvalue()


NODES = st.dictionaries(
    st.sampled_from([*IDS, "boxes", "offsets", "image_ids", "a/boxes"]), st.sampled_from(KINDS), max_size=5
)


@fuzz(40)
@given(NODES.filter(lambda nodes: not {"a", "a/boxes"} <= set(nodes)))
def test_odd_nodes_in_hdf5(place: Path, nodes: dict[str, str]) -> None:
    path = written(place / "boxes.h5", hdf5(nodes))
    boxes_read(path)
    read_or_said(lambda: inspect_file(path))


FLAT = {"boxes": "compressed", "offsets": "offsets", "image_ids": "texts"}


@fuzz(20)
@given(st.sampled_from(list(FLAT)), st.sampled_from(KINDS))
def test_odd_nodes_in_flat_hdf5(place: Path, name: str, kind: str) -> None:
    path = written(place / "boxes.h5", hdf5({**FLAT, name: kind}))
    boxes_read(path)
    read_or_said(lambda: inspect_file(path))


@fuzz(40)
@given(st.sampled_from([FLAT, {"a": "compressed", "b": "1"}, {"a": "group", "a/boxes": "compressed"}]), mutations())
def test_proposals_in_hdf5(place: Path, nodes: dict[str, str], wanted: list[Mutation]) -> None:
    path = written(place / "boxes.h5", mutated(hdf5(nodes), wanted, [b"\xff" * 8, b"\0" * 8]))
    boxes_read(path)
    read_or_said(lambda: inspect_file(path))


# Weights

TENSORS = {"conv.weight": torch.ones(2, 3, 1, 1), "conv.bias": torch.zeros(2)}


@cache
def weights() -> tuple[bytes, ...]:
    """Small files of weights: safetensors, PyTorch's two formats, Caffe's three."""
    new, old = io.BytesIO(), io.BytesIO()
    torch.save(TENSORS, new)
    torch.save(TENSORS, old, _use_new_zipfile_serialization=False)
    layers = {"conv1": [np.ones((2, 3, 1, 1), np.float32), np.zeros(2, np.float32)], "drop6": []}
    return (
        save(TENSORS, {"rcnn": RECORD}),
        save(TENSORS),
        new.getvalue(),
        old.getvalue(),
        *(caffemodel(layers, version, {"drop6": dropout(0.5, False)}) for version in range(3)),
    )


RECORD = json.dumps(
    {
        "version": 1, "network": "alexnet", "classes": 2,
        "preprocessing": {"name": "torchvision", "order": "RGB", "scale": 255, "mean": [0, 0, 0], "std": [1, 1, 1]},
        "source": {"file": "a", "format": "b", "sha256": "c"}, "tensors": "d",
        "heads": Heads(ProposalHead(hidden=2), RegionHead("max", 6)).as_json(),
        "class_names": ["cat", "background"], "changes": ["e"],
    }
)  # fmt: skip


def weights_read(path: Path) -> None:
    """Reads the file in every way that a command does."""
    read_or_said(lambda: show_file(path))
    read_or_said(lambda: read_state(path))
    read_or_said(lambda: read_caffemodel(path))
    read_or_said(lambda: import_weights(str(path), "alexnet", "torchvision"))
    source = read_or_said(lambda: NetworkSource.from_settings(settings_of(path)))
    if source is not None:
        read_or_said(source.module)


def settings_of(path: Path) -> Any:
    """A recipe's [network] that names the file."""
    from stages.networks import NetworkSettings

    return NetworkSettings(name="shapenet", weights=str(path), preprocessing="plain")


@fuzz(50)
@given(st.integers(0, 6), st.integers(0, 6), mutations())
def test_weights(place: Path, one: int, other: int, wanted: list[Mutation]) -> None:
    weights_read(
        written(
            place / "w.bin",
            mutated(weights()[one], wanted, [b"\xff" * 8, b"F16", b"9" * 400, b"null", b"1e999"], weights()[other]),
        )
    )


HEADER = {
    "__metadata__": {"rcnn": RECORD},
    "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "b": {"dtype": "F16", "shape": [1, 2], "data_offsets": [8, 12]},
}


@fuzz(40)
@given(
    mutated_tree(HEADER)
    | mutated_tree(json.loads(RECORD)).map(
        lambda record: {**HEADER, "__metadata__": {"rcnn": as_json(record).decode()}}
    ),
    st.sampled_from([0, 0, 0, 1, 1 << 40, -5]),
)
def test_odd_headers_of_safetensors(place: Path, header: Any, more: int) -> None:
    text = as_json(header)
    length = max(0, len(text) + more).to_bytes(8, "little")
    weights_read(written(place / "w.safetensors", length + text + b"\0" * 12))


ODD_OBJECTS: list[Any] = [
    3, None, [], {}, {"a": 1}, {"a": torch.ones(1).to_sparse()}, {1: torch.ones(1)},
    {"a": torch.ones(2, dtype=torch.complex64)}, {"a": torch.nn.Parameter(torch.ones(1))},
    {"a": torch.tensor(True)}, torch.ones(3), {"state_dict": TENSORS}, {"a": torch.ones(2, device="meta")},
    {"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)},
    {"a": torch.ones(1, dtype=torch.bfloat16)},
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(ODD_OBJECTS)))
def test_odd_objects_saved_by_pytorch(place: Path, number: int) -> None:
    torch.save(ODD_OBJECTS[number], place / "w.pth")
    weights_read(place / "w.pth")


# JSON


@fuzz(13)
@given(mutated_tree({"a": [1, {"b": "x" * 200}], "c": None}) | st.sampled_from(ODD_VALUES))
def test_json_to_be_inspected(place: Path, tree: Any) -> None:
    path = written(place / "a.json", as_json(tree))
    read_or_said(lambda: inspect_file(path))
    read_or_said(lambda: inspect_file(written(place / "manifest.json", as_json(tree))))
