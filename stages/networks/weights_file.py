"""The file format of imported weights: safetensors, with a record of what the tensors are in its header.

The JSON header can be read without PyTorch, so that cache keys are known quickly. The record holds the network, its
number of classes, the preprocessing it was trained with, where the weights come from, a detector's heads and class
names, and the SHA-256 of the tensors, which is verified on loading. Repeating an import gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from cache.files import cannot
from stages.contract.errors import StageError
from stages.input_files import check_is_file
from stages.networks.cards import BACKGROUND, Preprocessing
from stages.networks.heads import NO_HEADS, Heads

if TYPE_CHECKING:
    import torch

KEY = "rcnn"
VERSION = 1
LENGTH = 8  # bytes before the header, which hold its length
LONGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class WeightsRecord:
    """The record of a file of imported weights; `tensors` is the SHA-256 of the tensors (`tensors_digest`).

    The source is given by its file name, format ("caffemodel", "float32 file without a header", "state dict",
    "torchvision") and SHA-256. A detector has `heads` and `class_names`, the background last. `changes` are sentences
    on how tensors differ from the source's.
    """

    network: str
    classes: int
    preprocessing: Preprocessing
    source_file: str
    source_format: str
    source_sha256: str
    tensors: str
    heads: Heads = NO_HEADS
    class_names: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()

    def as_json(self) -> str:
        """The record as stored in the header."""
        preprocessing = {"name": self.preprocessing.name, **self.preprocessing.as_json()}
        source = {"file": self.source_file, "format": self.source_format, "sha256": self.source_sha256}
        record = {"network": self.network, "classes": self.classes, "preprocessing": preprocessing, "source": source}
        of_detector = {"heads": self.heads.as_json(), "class_names": self.class_names, "changes": self.changes}
        recorded = {key: value for key, value in of_detector.items() if value}  # other records stay as they were
        return json.dumps({"version": VERSION, **record, **recorded, "tensors": self.tensors})

    @staticmethod
    def from_json(text: str) -> WeightsRecord:
        """The inverse of `as_json`. Raises KeyError, TypeError or ValueError for any other text."""
        value = json.loads(text)
        if value["version"] != VERSION:
            raise ValueError(f"version {value['version']}")
        preprocessing = Preprocessing.from_json(str(value["preprocessing"]["name"]), value["preprocessing"])
        source = value["source"]
        class_names = tuple(map(str, value.get("class_names", ())))
        if class_names and (len(class_names) != int(value["classes"]) or class_names[-1] != BACKGROUND):
            raise ValueError(f"{len(class_names)} names of {value['classes']} classes, {BACKGROUND} not last")
        return WeightsRecord(
            network=str(value["network"]),
            classes=int(value["classes"]),
            preprocessing=preprocessing,
            source_file=str(source["file"]),
            source_format=str(source["format"]),
            source_sha256=str(source["sha256"]),
            tensors=str(value["tensors"]),
            heads=Heads.from_json(value.get("heads", {})),
            class_names=class_names,
            changes=tuple(map(str, value.get("changes", ()))),
        )


def read_header(
    path: Path,
    content: bytes | None = None,
    advice: str = "check network.weights",
    again: str = "import or fetch the file again",
) -> dict[str, Any] | None:
    """The header of a safetensors file, or None for another kind of file. Raises StageError if it is incomplete.

    `content` is the file's bytes, if they have already been read; `advice` says what to do where it cannot be read,
    `again` where it is incomplete.
    """
    try:
        if content is None:
            check_is_file(path)
        with path.open("rb") if content is None else io.BytesIO(content) as file:
            return header_in(file, path, again)
    except OSError as error:
        raise StageError(f"{path}: " + cannot("be read", error, advice)) from error


def header_in(file: IO[bytes], path: Path, again: str) -> dict[str, Any] | None:
    """`read_header` for an open file; `path` and `again` are for messages."""
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(LENGTH), "little")
    if file.read(1) != b"{" or length > LONGEST_HEADER:
        return None
    try:
        header = json.loads(b"{" + file.read(length - 1))
        if not isinstance(header.get("__metadata__", {}), dict):
            raise TypeError("its metadata is not a table")
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        end = max((int(tensor["data_offsets"][1]) for tensor in tensors), default=0)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise StageError(f"{path}: its header is damaged; {again}") from error
    if size != LENGTH + length + end:
        raise StageError(f"{path}: is {size} bytes long, not {LENGTH + length + end}; {again}")
    return header


def read_record(path: Path, content: bytes | None = None) -> WeightsRecord | None:
    """The record of a file written by `write_weights`, or None for any other. Raises StageError if it is damaged."""
    header = read_header(path, content)
    text = (header or {}).get("__metadata__", {}).get(KEY)
    if text is None:
        return None
    try:
        return WeightsRecord.from_json(text)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise StageError(
            f"{path}: its record is damaged or from a newer version ({error}); import the weights again"
        ) from error


def write_weights(path: Path, state: Mapping[str, torch.Tensor], record: WeightsRecord) -> None:
    """Writes the file atomically. Raises CacheError or DiskFull."""
    from safetensors.torch import save

    from cache.files import write_atomically

    contiguous = {name: tensor.contiguous() for name, tensor in state.items()}
    write_atomically(path, [save(contiguous, {KEY: record.as_json()})])  # a single entry, since their order is random


def tensors_digest(state: Mapping[str, torch.Tensor]) -> str:
    """The SHA-256 (hex) over the names, dtypes, shapes and bytes of the tensors [...], sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        array = state[name].detach().cpu().contiguous().numpy()
        digest.update(json.dumps([name, str(array.dtype), list(array.shape)]).encode())
        digest.update(array.reshape(-1).view("uint8").data)
    return digest.hexdigest()
