"""Which weights are meant: from a recipe's [network] table, or from a cache that a training stage has made."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.errors import BadSetting, StageError
from stages.networks.cards import NETWORKS, PREPROCESSINGS, NetworkCard, Preprocessing
from stages.settings import setting

if TYPE_CHECKING:
    from cache import Reader
    from stages.networks.network import Network

TORCHVISION_WEIGHTS = "torchvision"
RANDOM_WEIGHTS = "random"


@dataclass(frozen=True)
class NetworkSettings:
    """The recipe's [network] table.

    `weights`: "torchvision" (downloaded once, checked), the path of a state-dict file (~ and $VARIABLES are expanded),
    or "random" (seeded; for tests and timing, it recognises nothing). `preprocessing`: what the weights were trained
    with; None is the network's usual one. `mean` replaces its mean (three values, in its channel order and scale).
    """

    name: str = setting("alexnet", choices=tuple(NETWORKS), source="R-CNN section 2.1: T-Net is Caffe's AlexNet")
    weights: str = setting(TORCHVISION_WEIGHTS)
    preprocessing: str | None = setting(None, choices=tuple(PREPROCESSINGS))
    mean: tuple[float, ...] = setting(())
    classes: int | None = setting(None, at_least=1)
    seed: int = setting(0, at_least=0)


@dataclass(frozen=True)
class NetworkSource:
    """A network that can be loaded, and its identity without loading it. Picklable; equal sources load equal networks.

    `weights` as in `NetworkSettings` (a path already expanded), or the key of the cache `reader` that holds them.
    """

    name: str
    weights: str
    preprocessing: Preprocessing
    classes: int
    seed: int = 0
    reader: Reader | None = field(default=None, compare=False, repr=False)

    @staticmethod
    def from_settings(settings: NetworkSettings) -> NetworkSource:
        """The source that a recipe's [network] table describes. Raises StageError for a path that cannot be."""
        card = NETWORKS[settings.name]
        preprocessing = preprocessing_of(settings, card)
        weights = settings.weights
        if weights == TORCHVISION_WEIGHTS and card.torchvision_file is None:
            raise BadSetting(f"network.weights: torchvision has no weights of {card.name}; train it with [pretrain]")
        if weights not in (TORCHVISION_WEIGHTS, RANDOM_WEIGHTS):
            weights = str(expand_path(weights))
        seed = settings.seed if weights == RANDOM_WEIGHTS else 0
        return NetworkSource(card.name, weights, preprocessing, settings.classes or card.classes, seed)

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
        """What names the weights: a hash of the file, torchvision's file name (it ends in its hash), seed or key."""
        if self.reader is not None:
            return f"cache:{self.weights}"
        if self.weights == RANDOM_WEIGHTS:
            return f"random:{self.seed}"
        if self.weights == TORCHVISION_WEIGHTS:
            return f"torchvision:{self.card.torchvision_file}"
        return f"sha256:{sha256_of(Path(self.weights))}"

    def load(self, device: str = "cpu", dtype: str = "float32") -> Network:
        """The network on `device`, computing in `dtype` ("float32", "bfloat16", "float16"), in evaluation mode.

        Raises StageError, in one sentence, for weights that cannot be downloaded, read or fitted to the network.
        """
        import torch

        from stages.networks import weights
        from stages.networks.network import Network

        module = weights.load_module(self)
        return Network(self.card, module.to(device, getattr(torch, dtype)), self.classes, self.preprocessing)


def preprocessing_of(settings: NetworkSettings, card: NetworkCard) -> Preprocessing:
    """The preprocessing that the settings declare, with their mean if they give one."""
    chosen = PREPROCESSINGS[settings.preprocessing] if settings.preprocessing else card.preprocessing
    if not settings.mean:
        return chosen
    if len(settings.mean) != 3:
        raise BadSetting(f"network.mean has {len(settings.mean)} values; it needs 3, in {chosen.order.upper()} order")
    first, second, third = settings.mean
    return replace(chosen, mean=(first, second, third))


def expand_path(text: str) -> Path:
    """`text` with ~ and $VARIABLES expanded; StageError if a variable is not set or there is no such file."""
    expanded = os.path.expandvars(os.path.expanduser(text))
    unset = re.search(r"\$(\w+|\{\w+\})", expanded)
    if unset:
        name = unset.group(1).strip("{}")
        raise StageError(f"network.weights = '{text}': the variable {name} is not set; export {name}=FILE first")
    path = Path(expanded)
    if not path.is_file():
        raise StageError(
            f"network.weights = '{text}': there is no file {path}; give a state-dict file, 'torchvision' or 'random'"
        )
    return path


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, computed once per process while its size and time stay the same."""
    try:
        status = path.stat()
        return hashed(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise StageError(f"{path}: cannot be read ({error.strerror}); check network.weights") from error


@functools.lru_cache(maxsize=64)
def hashed(path: Path, size: int, mtime_ns: int) -> str:
    """Hex SHA-256 of the file; `size` and `mtime_ns` only tell one state of it from another."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
