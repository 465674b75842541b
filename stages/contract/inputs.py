"""The inputs of a stage, by role, each of the expected type: caches, or readers that compute on demand."""

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
    """Records by item, from a cache (`cache.Reader`) or computed on demand (`OnDemand`)."""

    schema: Schema
    manifest: dict[str, Any]

    @property
    def item_ids(self) -> tuple[str, ...]:
        """The ids of all items."""

    def read(self, item_id: str, columns: Sequence[str] | None = None) -> Record:
        """One item's record, or the named columns only."""


class OnDemand(ABC):
    """Computes each record as it is read, bit-for-bit identical to what the stage would write to its cache.

    Where a stage reads it in place of a cache, it is thread-safe and picklable. `manifest["skipped"]` maps the images
    that could not be read so far to the reason; `manifest["summary"]` has part of the cache's summary.
    """

    schema: Schema
    manifest: dict[str, Any]

    @property
    @abstractmethod
    def item_ids(self) -> tuple[str, ...]:
        """The ids of all items."""

    @abstractmethod
    def record(self, item_id: str) -> Record:
        """One item's record. Raises BadImage unless bad images are skipped."""

    def read(self, item_id: str, columns: Sequence[str] | None = None) -> Record:
        """One item's record, or the named columns only. Raises as `record`."""
        record = self.record(item_id)
        return {name: record[name] for name in columns or record}


@dataclass(frozen=True)
class Inputs:
    """The opened inputs of a stage, by role; optional inputs that no table provides are missing.

    Each method returns the input in a role as a given type. It raises KeyError if there is none and TypeError if it is
    of another type; both are bugs of the stage or its card.
    """

    opened: Mapping[str, Any] = field(default_factory=dict)

    def __contains__(self, role: str) -> bool:
        return role in self.opened

    def reader(self, role: str) -> Reader:
        """The cache in a role."""
        from cache import Reader

        return self.of_type(role, Reader)

    def optional_reader(self, role: str) -> Reader | None:
        """The cache in an optional role, or None."""
        return self.reader(role) if role in self else None

    def item_reader(self, role: str) -> ItemReader:
        """The cache in a role, or the reader that computes its items on demand."""
        reader: ItemReader = self.of_type(role, ItemReader)  # type: ignore[type-abstract]
        return reader

    def dataset(self, role: str) -> Dataset:
        """The dataset with boxes in a role."""
        from stages.datasets import Dataset

        return self.of_type(role, Dataset)

    def classification(self, role: str) -> ClassificationDataset:
        """The classification dataset (one class per image) in a role."""
        from stages.datasets import ClassificationDataset

        return self.of_type(role, ClassificationDataset)

    def network(self, role: str) -> NetworkSource:
        """The network in a role."""
        from stages.networks import NetworkSource

        return self.of_type(role, NetworkSource)

    def of_type(self, role: str, wanted: type[Wanted]) -> Wanted:
        """The input in a role, as the `wanted` type."""
        if role not in self.opened:
            raise KeyError(f"there is no input in the role '{role}'; there are {', '.join(self.opened) or 'none'}")
        opened = self.opened[role]
        if not isinstance(opened, wanted):
            raise TypeError(f"the input in the role '{role}' is of type {type(opened).__name__}, not {wanted.__name__}")
        return opened
