"""Importing weights: a .caffemodel, a state dict or torchvision's weights as a state dict of one of the networks.

Whatever the file is, its layers must be exactly the network's, but for the last: a network fine-tuned for detection has
other classes, and Caffe calls its layer of scores otherwise (`fc8_pascal`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cache.files import cannot
from stages.contract.errors import StageError
from stages.contract.settings import nearest
from stages.input_files import check_is_file, read_whole
from stages.networks.architectures import empty_module
from stages.networks.caffemodel import Blobs, read_caffemodel
from stages.networks.cards import NETWORKS, NetworkCard, Preprocessing
from stages.networks.source import preprocessing_named, with_mean
from stages.networks.weights import State, as_float32, check_state, parse_state, read_file, read_torchvision
from stages.networks.weights_file import WeightsRecord, read_header, read_record, tensors_digest

TORCHVISION = "torchvision"
TORCH_FILES = (b"PK\x03\x04", b"\x80\x02")  # torch.save's zip archives, and its files before 2020


@dataclass(frozen=True)
class ImportedWeights:
    """A network's state dict and the record of it; `notes` are sentences about what the file has more or otherwise."""

    state: State
    record: WeightsRecord
    notes: tuple[str, ...] = ()


def import_weights(
    source: str,
    network: str,
    preprocessing: str | None = None,
    mean: Sequence[float] = (),
    scores: str | None = None,
) -> ImportedWeights:
    """The weights in `source` as those of `network`.

    `source` is the path of a .caffemodel or a state dict, or "torchvision:MODEL". `preprocessing` (a name, as in a
    recipe) and `mean` are what the weights were trained with; a .caffemodel and torchvision's own weights have a usual
    one, a state dict does not tell. `scores` names the layer of a .caffemodel that is the network's last. Raises
    StageError, in one sentence, for files that cannot be read and for those of another network.
    """
    card = NETWORKS[network]
    notes: tuple[str, ...] = ()
    usual: Preprocessing | None
    if source.startswith(f"{TORCHVISION}:"):
        model = torchvision_model(card, source.partition(":")[2])
        form, usual = TORCHVISION, model.preprocessing
        path, sha256, state = read_torchvision(model)
        state = torchvision_names(card, state)
    elif is_state_dict(path := Path(source)):
        form, usual = "state dict", None
        content = read_file(path)
        sha256 = hashlib.sha256(content).hexdigest()
        state = torchvision_names(card, parse_state(content, path))
    else:
        form, usual = "caffemodel", card.preprocessing
        content = read_whole(path)
        sha256 = hashlib.sha256(content).hexdigest()
        state, notes = caffe_state(card, read_caffemodel(path, content), scores, path)
    if scores is not None and form != "caffemodel":
        raise StageError(f"--scores {scores}: only a .caffemodel has named layers; leave this option out for {source}")
    chosen = preprocessing_named(preprocessing, card) if preprocessing else usual
    if chosen is None:
        raise StageError(
            f"{path}: a state dict does not record its preprocessing; "
            f"add --preprocessing {' or --preprocessing '.join(card.likely_preprocessings)}"
        )
    if mean:
        chosen = with_mean(chosen, tuple(mean), "--mean")
    state = {name: as_float32(tensor) for name, tensor in state.items()}
    classes = classes_of(card, state)
    check_state(card, classes, state, str(path), "name its network with --network")
    record = WeightsRecord(network, classes, chosen, path.name, form, sha256, tensors_digest(state))
    return ImportedWeights(state, record, notes)


def is_state_dict(path: Path) -> bool:
    """Whether a file looks like a state dict of PyTorch or safetensors. Raises StageError for imported weights."""
    try:
        check_is_file(path)
        with path.open("rb") as file:
            beginning = file.read(8)
    except OSError as error:
        raise StageError(f"{path}: " + cannot("be read", error, "name a file of weights")) from error
    if read_record(path) is not None:
        raise StageError(f"{path}: has already been imported; set network.weights to it in a recipe")
    return beginning.startswith(TORCH_FILES) or read_header(path) is not None


def torchvision_model(card: NetworkCard, name: str) -> NetworkCard:
    """The card of torchvision's model `name`, if it is the network of `card`. Raises StageError if it is not."""
    models = {one.name: one for one in NETWORKS.values() if one.torchvision_file}
    if name not in models:
        raise StageError(f"{TORCHVISION}:{name}: is not a known model{nearest(name, models)}")
    if name not in (card.name, card.torchvision_twin):
        raise StageError(
            f"{TORCHVISION}:{name}: is a different network from {card.name}; import it with --network {name}"
        )
    return models[name]


def torchvision_names(card: NetworkCard, state: State) -> State:
    """The state dict of torchvision's twin of the network under the network's own names; any other one as it is."""
    if card.torchvision_twin is None:
        return state
    theirs = empty_module(NETWORKS[card.torchvision_twin], card.classes).state_dict()
    if set(theirs) != set(state):
        return state
    ours = empty_module(card, card.classes).state_dict()
    return {name: state[their_name] for name, their_name in zip(ours, theirs, strict=True)}


def classes_of(card: NetworkCard, state: State) -> int:
    """The number of classes that a state dict of the network is for: the length of its last bias."""
    last = list(empty_module(card, card.classes).state_dict())[-1]
    return len(state[last]) if last in state and state[last].dim() == 1 else card.classes


def caffe_state(
    card: NetworkCard, layers: Mapping[str, Blobs], scores: str | None, path: Path
) -> tuple[State, tuple[str, ...]]:
    """The layers of a .caffemodel as the network's state dict, and notes on what it has more or otherwise.

    Raises StageError for a layer too few, too many, in another order or without biases; `check_state` does for shapes.
    """
    if not card.caffe_names:
        able = ", ".join(one.name for one in NETWORKS.values() if one.caffe_names)
        raise StageError(f"{path}: a .caffemodel cannot be imported as {card.name}; choose --network from {able}")
    parts = dict(empty_module(card, card.classes).named_children())
    check_order(list(parts), list(layers), card, path)
    wanted = {name: part.state_dict() for name, part in parts.items() if part.state_dict()}
    weighted = {name: blobs for name, blobs in layers.items() if blobs}
    chosen, notes = matching_layers(wanted, weighted, scores, card, path)
    state: State = {}
    for name, parameters in wanted.items():
        blobs = weighted[chosen[name]]
        if len(blobs) != len(parameters):
            raise StageError(f"{path}: layer '{chosen[name]}' has {len(blobs)} blobs instead of weights and biases")
        for (parameter, tensor), blob in zip(parameters.items(), blobs, strict=True):
            shape = without_leading_ones(blob.shape, tensor.dim())
            state[f"{name}.{parameter}"] = torch.from_numpy(blob).reshape(shape)
    return state, notes


def matching_layers(
    wanted: Mapping[str, State], weighted: Mapping[str, Blobs], scores: str | None, card: NetworkCard, path: Path
) -> tuple[dict[str, str], tuple[str, ...]]:
    """For each of the network's layers the file's, and notes on what the file has more.

    The last may have another name. Further layers on fc7 (as Fast R-CNN's for boxes) are left out; any other that the
    network has not, or a layer too few, is a StageError: VGG-19 holds all the layers of VGG-16.
    """
    *body, last = wanted
    inputs = list(wanted[last]["weight"].shape[1:])
    others = [name for name in weighted if name not in wanted]
    heads = [name for name in others if without_leading_ones(weighted[name][0].shape, 2)[1:] == inputs]
    missing = [name for name in body if name not in weighted]
    strange = [name for name in others if name not in heads]
    for names, words in (
        (missing, f"has no weights for {card.name}'s layer"),
        (strange, f"has weights for a layer that {card.name} does not have,"),
    ):
        if names:
            raise StageError(f"{path}: {words} '{names[0]}'; it is a different network, name it with --network")
    candidates = [last, *heads] if last in weighted else heads
    chosen = scores_layer(last, candidates, scores, path)
    notes = [f"class scores are taken from layer '{chosen}'"] if chosen != last else []
    if len(candidates) > 1:
        notes.append(f"left out: {', '.join(name for name in candidates if name != chosen)}")
    return {**{name: name for name in body}, last: chosen}, tuple(notes)


def scores_layer(last: str, candidates: Sequence[str], scores: str | None, path: Path) -> str:
    """The file's layer of class scores: `scores`, else the network's last, else the only other on fc7."""
    if scores is not None and scores not in candidates:
        raise StageError(f"--scores {scores}: is not a layer of class scores in {path}{nearest(scores, candidates)}")
    if scores is None and last not in candidates and len(candidates) != 1:
        advice = (
            f"choose one of {', '.join(candidates)} with --scores"
            if candidates
            else "no other layer follows fc7, so name another file"
        )
        raise StageError(f"{path}: has no layer '{last}' of class scores; {advice}")
    return scores or (last if last in candidates else candidates[0])


def check_order(ours: Sequence[str], theirs: Sequence[str], card: NetworkCard, path: Path) -> None:
    """Raises StageError if layers come in another order than the network's (AlexNet's has normalisation first)."""
    expected = [name for name in ours if name in theirs]
    found = [name for name in theirs if name in ours]
    for first, second in zip(expected, found, strict=True):
        if first != second:
            raise StageError(
                f"{path}: layer '{second}' comes before '{first}', but in {card.name} it comes after; "
                f"these are weights of a different network, fetch those of {card.name}"
            )


def without_leading_ones(shape: Sequence[int], dimensions: int) -> list[int]:
    """A shape without the ones that Caffe's old formats put in front of it, of at least `dimensions` numbers."""
    kept = list(shape)
    while len(kept) > dimensions and kept[0] == 1:
        kept.pop(0)
    return kept
