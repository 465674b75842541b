"""Reading a network's weights: imported, torchvision's, a state dict, seeded random ones, or a stage's cache."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from cache import Column, Record
from cache.files import cannot
from stages.contract.errors import ChangedInput, StageError
from stages.input_files import read_whole
from stages.networks.architectures import build, empty_module
from stages.networks.cards import NetworkCard, Preprocessing
from stages.networks.head_layers import PROPOSALS, REGIONS
from stages.networks.weights_file import read_header, read_record, tensors_digest

if TYPE_CHECKING:
    from cache import Reader
    from cache.held import Content
    from stages.networks.source import NetworkSource

State = dict[str, torch.Tensor]

NETWORK = "network"
"""The only item in the cache of a stage that trains a network."""

COLUMNS = "weights/"
"""The prefix of a cached network's columns, before the tensor's name in the state dict."""

CORRECT = "correct network.name or network.weights"
HEADS = (PROPOSALS, REGIONS)


def random_module(card: NetworkCard, classes: int, seed: int) -> nn.Module:
    """The network with PyTorch's initialisation from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(card, classes)


def torchvision_module(card: NetworkCard, classes: int) -> nn.Module:
    """The network with torchvision's weights, downloaded on first use. Raises StageError."""
    path, _, state = read_torchvision(card)
    return with_state(card, classes, state, str(path), CORRECT)


def module_from_file(card: NetworkCard, classes: int, path: Path, content: str) -> nn.Module:
    """The network with the weights in a file, whose content must be `content`, without any further heads. Raises as
    `read_state`."""
    state = read_state(path, content)
    own = empty_module(card, classes).state_dict()
    kept = {name: tensor for name, tensor in state.items() if name in own or name.partition(".")[0] not in HEADS}
    return with_state(card, classes, kept, str(path), CORRECT)


def cached_module(card: NetworkCard, classes: int, reader: Reader) -> nn.Module:
    """The network in the cache of a training stage, without any further heads. Raises StageError."""
    state = cached_state(reader)
    own = empty_module(card, classes).state_dict()
    state = {name: state[name] for name in own if name in state}
    return with_state(card, classes, state, str(reader.folder), "run its stage again with --force")


def trunk_digest(card: NetworkCard, preprocessing: Preprocessing, state: Mapping[str, torch.Tensor]) -> str:
    """What identifies a network's trunk: the SHA-256 (hex) of the architecture's name, the preprocessing, and the
    names, shapes and values, as float32, of the trunk's tensors among `state`.

    Networks with equal digests compute equal maps of an image. The counters of batch normalisation do not count.
    """
    digest = hashlib.sha256(json.dumps([card.name, preprocessing.as_json()], sort_keys=True).encode())
    for name, tensor in sorted(state.items()):
        if card.trunk.owns(name) and tensor.is_floating_point():
            digest.update(json.dumps([name, list(tensor.shape)]).encode())
            digest.update(as_float32(tensor.detach()).cpu().contiguous().numpy().data)
    return digest.hexdigest()


def cached_trunk(card: NetworkCard, reader: Reader) -> State:
    """The trunk's tensors in the cache of a training stage. Raises as `cached_state`."""
    return cached_state(reader, card.trunk.owns)


def read_torchvision(card: NetworkCard) -> tuple[Path, str, State]:
    """The path of torchvision's weights in torch.hub's folder, their SHA-256 (hex) and their tensors.

    The file is downloaded on first use and read once, so that the bytes checked are the bytes parsed. Raises
    StageError.
    """
    assert card.url is not None
    assert card.torchvision_file is not None
    path = Path(torch.hub.get_dir()) / "checkpoints" / card.torchvision_file
    if not path.is_file():
        download(card.name, card.url, path)
    raw = read_file(path)
    sha256, promised = hashlib.sha256(raw).hexdigest(), promised_sha256(path)
    if not sha256.startswith(promised):
        raise StageError(f"{path}: is damaged (its SHA-256 does not begin with {promised}); delete it and run again")
    return path, sha256, parse_state(raw, path)


def promised_sha256(path: Path) -> str:
    """The first digits of the SHA-256 (hex) of a torchvision weights file, from the end of its name."""
    return path.stem.rsplit("-", 1)[1]


def download(name: str, url: str, path: Path) -> None:
    """Downloads `url` to `path`, with a progress bar on a terminal. Raises StageError if that fails."""
    import sys

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        promised = promised_sha256(path)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=promised, progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        reason = getattr(error, "reason", None) or error
        raise StageError(
            f"the weights of {name} could not be downloaded from {url} ({reason}); fetch that file on another machine "
            f"and put it at {path}, or set network.weights to a state-dict file"
        ) from error


def read_state(path: Path, content: str = "") -> State:
    """The tensors in a file: imported weights, verified by their checksum, or a state dict (safetensors or PyTorch).

    `content` is what the file must contain: "sha256:" with the hash of its bytes, or "tensors:" with the digest of its
    tensors. The bytes checked are the bytes parsed. Raises ChangedInput if the content differs, and StageError if the
    file contains anything other than tensors.
    """
    raw = read_file(path)
    kind, _, expected = content.partition(":")
    if kind == "sha256" and hashlib.sha256(raw).hexdigest() != expected:
        raise ChangedInput.of(path)
    state = parse_state(raw, path)
    if kind == "tensors" and tensors_digest(state) != expected:
        raise ChangedInput.of(path)
    return state


def read_file(path: Path) -> bytes:
    """The bytes of a weights file. Raises StageError."""
    try:
        return read_whole(path)
    except OSError as error:
        raise StageError(f"{path}: " + cannot("be read", error, "check network.weights")) from error


def parse_state(raw: bytes, path: Path) -> State:
    """The tensors in the bytes of a safetensors or PyTorch file; `path` is for messages. Raises StageError."""
    return (parse_torch if read_header(path, raw) is None else parse_safetensors)(raw, path)


def parse_torch(raw: bytes, path: Path) -> State:
    """The tensors in the bytes of a file written by torch.save; `path` is for messages. Raises StageError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # either loading fails, with the message below, or all is well
            state = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling damaged bytes may raise anything
        raise StageError(
            f"{path}: cannot be read as a state dict; save one with torch.save(network.state_dict(), FILE)"
        ) from error
    if not isinstance(state, Mapping) or not state or not all(map(is_named_tensor, state.items())):
        raise StageError(
            f"{path}: is not a state dict of tensors; save one with torch.save(network.state_dict(), FILE)"
        )
    return dict(state)


def is_named_tensor(entry: tuple[object, object]) -> bool:
    """Whether an entry of a state dict is a named, dense tensor."""
    name, value = entry
    return isinstance(name, str) and isinstance(value, torch.Tensor) and value.layout == torch.strided


def parse_safetensors(raw: bytes, path: Path) -> State:
    """The tensors in the bytes of a safetensors file. Raises StageError if they do not match the file's record."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        state: State = load(raw)
    except (SafetensorError, OSError) as error:
        raise StageError(f"{path}: cannot be read as safetensors ({error}); import or fetch the file again") from error
    record = read_record(path, raw)
    if record is not None and tensors_digest(state) != record.tensors:
        raise StageError(
            f"{path}: is damaged (its tensors do not match their recorded SHA-256); import the weights again"
        )
    for name in state:  # allocated by PyTorch, since memory alignment can change the last bit of a product
        state[name] = state[name].clone()
    return state


def with_state(card: NetworkCard, classes: int, state: State, place: str, advice: str) -> nn.Module:
    """The network with the tensors of `state`, in float32. Raises StageError as `check_state`."""
    check_state(card, classes, state, place, advice)
    module = empty_module(card, classes)
    module.load_state_dict({name: as_float32(tensor) for name, tensor in state.items()}, assign=True)
    return module.requires_grad_(False)


def check_state(card: NetworkCard, classes: int, state: State, place: str, advice: str) -> None:
    """Raises StageError, naming `place` and ending in `advice`, unless names and shapes are those of the network."""
    expected = {name: list(tensor.shape) for name, tensor in empty_module(card, classes).state_dict().items()}
    actual = {name: list(tensor.shape) for name, tensor in state.items()}
    for name in [*expected, *actual]:
        if expected.get(name) != actual.get(name):
            raise StageError(
                f"{place}: these are not weights of {card.name} with {classes} classes ('{name}' should be "
                f"{expected.get(name, 'absent')} but is {actual.get(name, 'absent')}); {advice}"
            )


def as_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Floating-point tensors [...] as float32; integer counters are unchanged."""
    return tensor.to(torch.float32) if tensor.is_floating_point() else tensor


def weight_columns(state: Mapping[str, torch.Tensor]) -> dict[str, Column]:
    """The per-item columns of a training stage's cache for the tensors of `state`, [...] each.

    Floating-point tensors are stored as float32. Values are not read, so tensors may be on the meta device.
    """
    return {
        COLUMNS + name: Column(str(as_float32(tensor).dtype).removeprefix("torch."), tuple(tensor.shape))
        for name, tensor in state.items()
    }


def weight_record(state: Mapping[str, torch.Tensor]) -> Record:
    """The tensors [...] of `state` as the values of their `weight_columns`."""
    return {COLUMNS + name: as_float32(tensor.detach()).cpu().contiguous().numpy() for name, tensor in state.items()}


def recorded_state(record: Mapping[str, np.ndarray]) -> State:
    """The inverse of `weight_record`: tensors [...] by name; other columns of the record are ignored."""
    return {
        name.removeprefix(COLUMNS): torch.from_numpy(values).clone()  # with PyTorch's memory alignment
        for name, values in record.items()
        if name.startswith(COLUMNS)
    }


def cached_state(reader: Reader, wanted: Callable[[str], bool] = lambda name: True) -> State:
    """The tensors in the cache of a training stage, including further heads, whose names are `wanted`. Raises
    StageError if it has none."""
    columns = [name for name in reader.schema.per_item if name.startswith(COLUMNS)]
    if not columns:
        raise StageError(
            f"{reader.folder}: was written by an earlier version (its weights have no names); run its stage again"
        )
    return recorded_state(reader.read(NETWORK, [name for name in columns if wanted(name.removeprefix(COLUMNS))]))


def network_content(source: NetworkSource) -> Content:
    """A network, wherever its weights are from, as the cache of a stage that trained it would hold it: what
    `NetworkSource.from_reader` and `cached_state` need. Raises as `NetworkSource.module`."""
    from cache import Schema
    from cache.held import Content

    state = source.module().state_dict()
    summary = {
        "network": source.name,
        "preprocessing": source.preprocessing.as_json(),
        "classes": source.classes,
        **({"class_names": list(source.class_names)} if source.class_names else {}),
        "heads": source.heads.as_json(),
        "trunk": source.trunk_identity(),
        "weights": source.weights_identity(),
    }
    columns = {name: values[None] for name, values in weight_record(state).items()}
    return Content("", {}, summary, Schema(item=NETWORK, per_item=weight_columns(state)), (NETWORK,), columns)
