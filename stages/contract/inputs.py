"""What a stage is given: its inputs by role, each of the type that the stage asks for; caches, or what is computed on
demand in their place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from cache import Reader, Record, Schema
    from stages.datasets import ClassificationDataset, Dataset
    from stages.networks import NetworkSource

Wanted = TypeVar("Wanted")


@runtime_checkable
class ItemReader(Protocol):
    """Records by item: of a cache (a `cache.Reader`), or computed on demand (`OnDemand`)."""

    schema: Schema
    manifest: dict[str, Any]

    @property
    def item_ids(self) -> tuple[str, ...]:
        """The ids of all items."""

    def read(self, item_id: str, columns: Sequence[str] | None = None) -> Record:
        """One item's record, or the named columns of it."""


class OnDemand(ABC):
    """Computes each record when it is read, as the stage would for its cache: the same, bit for bit.

    May be read from several threads; one that another process is given may be pickled. `manifest["skipped"]` has the
    images read so far that could not be read, with the reason, `manifest["summary"]` some of the cache's summary.
    """

    schema: Schema
    manifest: dict[str, Any]

    @property
    @abstractmethod
    def item_ids(self) -> tuple[str, ...]:
        """The ids of all items."""

    @abstractmethod
    def record(self, item_id: str) -> Record:
        """One item's record. Raises BadImage unless bad images are to be skipped."""

    def read(self, item_id: str, columns: Sequence[str] | None = None) -> Record:
        """One item's record, or the named columns of it. Raises as `record`."""
        record = self.record(item_id)
        return {name: record[name] for name in columns or record}


@dataclass(frozen=True)
class Inputs:
    """What was opened for a stage, by role; an optional input that no table provides is not among it.

    Each method gives the input in a role as one type. Both errors are bugs of the stage or of its card: KeyError where
    nothing is in that role, TypeError where it is of another type.
    """

    opened: Mapping[str, Any] = field(default_factory=dict)

    def __contains__(self, role: str) -> bool:
        return role in self.opened

    def reader(self, role: str) -> Reader:
        """The cache in a role."""
        from cache import Reader

        return self.of_type(role, Reader)

    def optional_reader(self, role: str) -> Reader | None:
        """The cache in a role that may be empty."""
        return self.reader(role) if role in self else None

    def item_reader(self, role: str) -> ItemReader:
        """The cache in a role, or what is computed on demand in its place."""
        reader: ItemReader = self.of_type(role, ItemReader)  # type: ignore[type-abstract]
        return reader

    def dataset(self, role: str) -> Dataset:
        """The dataset with boxes in a role."""
        from stages.datasets import Dataset

        return self.of_type(role, Dataset)

    def classification(self, role: str) -> ClassificationDataset:
        """The dataset with one class for each image in a role."""
        from stages.datasets import ClassificationDataset

        return self.of_type(role, ClassificationDataset)

    def network(self, role: str) -> NetworkSource:
        """The network in a role."""
        from stages.networks import NetworkSource

        return self.of_type(role, NetworkSource)

    def of_type(self, role: str, wanted: type[Wanted]) -> Wanted:
        """The input in a role, of the `wanted` type."""
        if role not in self.opened:
            raise KeyError(f"no input is in the role '{role}'; there are {', '.join(self.opened) or 'none'}")
        found = self.opened[role]
        if not isinstance(found, wanted):
            raise TypeError(f"the input in the role '{role}' is of type {type(found).__name__}, not {wanted.__name__}")
        return found
