"""Importing weights from a .caffemodel, OverFeat's release, a state dict or torchvision as the state dict of one of the
networks.

The file's layers must be exactly the network's, except for the last: a network fine-tuned for detection has other
classes, and in Caffe its classification layer has another name (`fc8_pascal`). A .caffemodel of Fast or Faster R-CNN is
imported as a detector, with its heads (`stages.networks.caffe_detectors`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from cache.files import cannot
from stages.contract.errors import StageError
from stages.contract.settings import nearest
from stages.input_files import check_is_file, read_whole
from stages.networks.architectures import empty_module
from stages.networks.caffe_detectors import CaffeDetector, detector_in, is_detector, without_leading_ones
from stages.networks.caffemodel import Blobs, Dropout, read_caffemodel
from stages.networks.cards import CAFFE_FAST, NETWORKS, SCALED, UNSCALED, NetworkCard, Preprocessing
from stages.networks.overfeat_weights import WITHOUT_HEADER, released_network, released_state
from stages.networks.source import preprocessing_named, with_mean
from stages.networks.weights import State, as_float32, check_state, parse_state, read_file, read_torchvision
from stages.networks.weights_file import WeightsRecord, read_header, read_record, tensors_digest

TORCHVISION = "torchvision"
TORCH_FILES = (b"PK\x03\x04", b"\x80\x02")  # torch.save's zip archives, and its files before 2020


@dataclass(frozen=True)
class ImportedWeights:
    """A network's state dict and its record; `notes` mention anything unusual in the file."""

    state: State
    record: WeightsRecord
    notes: tuple[str, ...] = ()


def import_weights(
    source: str,
    network: str,
    preprocessing: str | None = None,
    mean: Sequence[float] = (),
    scores: str | None = None,
    class_names: Sequence[str] = (),
    dropout: str | None = None,
) -> ImportedWeights:
    """The weights in `source`, imported as those of `network`.

    `source` is the path of a .caffemodel, of a file of OverFeat's release or of a state dict, or "torchvision:MODEL".
    `preprocessing` (named as in a recipe) and `mean` are those the weights were trained with; there are defaults for
    all sources but a state dict. `scores` names the classification layer of a .caffemodel, which is
    then imported as a classification network even if it is a detector's; `class_names` are a detector's classes in the
    file's order, without the background. `dropout` (one of DROPOUTS) is how a .caffemodel that
    does not record it was trained. Raises StageError for files that cannot be read or are of another network.
    """
    card = NETWORKS[network]
    notes: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    detector: CaffeDetector | None = None
    usual: Preprocessing | None
    if source.startswith(f"{TORCHVISION}:"):
        model = torchvision_model(card, source.partition(":")[2])
        form, usual = TORCHVISION, model.preprocessing
        path, sha256, state = read_torchvision(model)
        state = torchvision_names(card, state)
    elif is_released(card, path := Path(source)):
        form, usual = WITHOUT_HEADER, card.preprocessing
        content = read_file(path)
        sha256 = hashlib.sha256(content).hexdigest()
        state = released_state(card, content, path)
    elif is_state_dict(path):
        form, usual = "state dict", None
        content = read_file(path)
        sha256 = hashlib.sha256(content).hexdigest()
        state = torchvision_names(card, parse_state(content, path))
    else:
        form, usual = "caffemodel", card.preprocessing
        content = read_whole(path)
        sha256 = hashlib.sha256(content).hexdigest()
        caffe = read_caffemodel(path, content)
        layers = caffe.layers
        if scores is None and is_detector(layers):
            detector = detector_in(card, layers, class_names, path)
            layers, usual, card = detector.own_layers, CAFFE_FAST, card.with_heads(detector.heads)
        state, notes = caffe_state(NETWORKS[network], layers, scores, path)
        state, changes = with_dropout(card, state, caffe.dropouts, dropout, path)
        if detector is not None:
            state, notes = {**state, **detector.head_tensors}, ()
    if scores is not None and form != "caffemodel":
        raise StageError(f"--scores {scores}: only a .caffemodel has named layers; leave this option out for {source}")
    if dropout is not None and form != "caffemodel":
        raise StageError(f"--dropout {dropout}: is for a .caffemodel; leave this option out for {source}")
    if class_names and detector is None:
        raise StageError(
            f"--classes: names the classes of a .caffemodel of a detector; leave this option out for {source}"
        )
    chosen = preprocessing_named(preprocessing, card) if preprocessing else usual
    if chosen is None:
        raise StageError(
            f"{path}: a state dict does not record its preprocessing; "
            f"add --preprocessing {' or --preprocessing '.join(card.likely_preprocessings)}"
        )
    if mean:
        chosen = with_mean(chosen, tuple(mean), "--mean")
    state = {name: as_float32(tensor) for name, tensor in state.items()}
    classes = classes_of(NETWORKS[network], state)
    check_state(card, classes, state, str(path), "name its network with --network")
    record = WeightsRecord(network, classes, chosen, path.name, form, sha256, tensors_digest(state), changes=changes)
    if detector is not None:
        changes = (*changes, *detector.changes)
        record = replace(record, heads=detector.heads, class_names=detector.class_names, changes=changes)
    return ImportedWeights(state, record, notes)


def is_released(card: NetworkCard, path: Path) -> bool:
    """Whether to read a file as one of OverFeat's release: it is as large as the network's, or, for its networks, it is
    no state dict. Raises StageError if it is as large as the weights of another network, and as `is_state_dict`."""
    owner = released_network(path)
    if owner is None:
        return card.released_file is not None and not is_state_dict(path)
    if owner.name != card.name:
        raise StageError(
            f"{path}: is as large as the weights of {owner.name}, not those of {card.name}; import it with --network "
            f"{owner.name}"
        )
    return True


def is_state_dict(path: Path) -> bool:
    """Whether a file looks like a PyTorch or safetensors state dict. Raises StageError if it has been imported."""
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
    """The card of torchvision's model `name`. Raises StageError unless it is the network of `card`."""
    models = {model.name: model for model in NETWORKS.values() if model.torchvision_file}
    if name not in models:
        raise StageError(f"{TORCHVISION}:{name}: is not a known model{nearest(name, models)}")
    if name not in (card.name, card.torchvision_twin):
        raise StageError(
            f"{TORCHVISION}:{name}: is a different network from {card.name}; import it with --network {name}"
        )
    return models[name]


def torchvision_names(card: NetworkCard, state: State) -> State:
    """Renames the state dict of torchvision's twin of the network to the network's names; others are unchanged."""
    if card.torchvision_twin is None:
        return state
    theirs = empty_module(NETWORKS[card.torchvision_twin], card.classes).state_dict()
    if set(theirs) != set(state):
        return state
    ours = empty_module(card, card.classes).state_dict()
    return {name: state[their_name] for name, their_name in zip(ours, theirs, strict=True)}


def classes_of(card: NetworkCard, state: State) -> int:
    """The number of classes of a state dict of the network: the length of its last bias."""
    last = list(empty_module(card, card.classes).state_dict())[-1]
    return len(state[last]) if last in state and state[last].dim() == 1 else card.classes


def caffe_state(
    card: NetworkCard, layers: Mapping[str, Blobs], scores: str | None, path: Path
) -> tuple[State, tuple[str, ...]]:
    """The layers of a .caffemodel as the network's state dict, and notes on anything unusual.

    Raises StageError for missing or additional layers, another order, or missing biases; `check_state` checks shapes.
    """
    if not card.caffe_names:
        able = ", ".join(network.name for network in NETWORKS.values() if network.caffe_names)
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


def with_dropout(
    card: NetworkCard, state: State, dropouts: Mapping[str, Dropout], dropout: str | None, path: Path
) -> tuple[State, tuple[str, ...]]:
    """The state dict from a .caffemodel, such that without dropout the network's outputs are those at test, and what
    this changed.

    `dropouts` are those that the file records, by layer. Caffe scales in training the outputs that dropout keeps, as
    everybody does. The authors' fork can multiply all outputs at test instead (`scale_train: false`), and does so for
    ZF. Weights and biases of the layer are then multiplied, which gives the same outputs, as only a rectifier lies
    between. `dropout` (SCALED or UNSCALED, at a ratio of 0.5) is for a file that records none.

    Raises StageError for a `dropout` that contradicts the file, and for a ZF without a record unless it is given.
    """
    state, changes = dict(state), []
    for name in card.fully_connected:
        if name == card.scores_layer:
            continue
        recorded = dropouts.get(name)
        if recorded is None and dropout is None and card.name == "zf":
            raise StageError(
                f"{path}: does not record whether dropout on {name} was scaled in training, which it was not in the "
                f"authors' ZF; choose --dropout {UNSCALED}, or --dropout {SCALED} for one trained otherwise"
            )
        applied = recorded or Dropout(0.5, dropout != UNSCALED)
        if dropout is not None and applied.scaled != (dropout == SCALED):
            actual = SCALED if applied.scaled else UNSCALED
            raise StageError(f"--dropout {dropout}: {path} records {actual} dropout on {name}; leave the option out")
        if not applied.scaled:
            kept = 1 - applied.ratio
            state |= {f"{name}.{kind}": kept * state[f"{name}.{kind}"] for kind in ("weight", "bias")}
            source = "as the file records" if recorded else f"--dropout {UNSCALED}"
            changes.append(f"{name} is multiplied by {kept:g}: its dropout was not scaled in training ({source})")
    return state, tuple(changes)


def matching_layers(
    wanted: Mapping[str, State], weighted: Mapping[str, Blobs], scores: str | None, card: NetworkCard, path: Path
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The file's layer for each of the network's layers, and notes on layers left out.

    The last layer may have another name. Additional layers on fc7 (such as Fast R-CNN's box regression) are left out.
    Raises StageError for any other additional layer, since VGG-19 contains all layers of VGG-16, and for missing ones.
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
    """The file's classification layer: `scores`, else the network's last layer, else the only other layer on fc7."""
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
    """Raises StageError if the layers are in another order than the network's (AlexNet normalises before pooling)."""
    expected = [name for name in ours if name in theirs]
    actual = [name for name in theirs if name in ours]
    for first, second in zip(expected, actual, strict=True):
        if first != second:
            raise StageError(
                f"{path}: layer '{second}' comes before '{first}', but in {card.name} it comes after; "
                f"these are weights of a different network, fetch those of {card.name}"
            )
