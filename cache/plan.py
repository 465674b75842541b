"""The plan: what a cache will hold and how it is divided, fixed by the first process that works on it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cache.errors import DamagedPlan
from cache.files import read_sealed, state_of, write_sealed
from cache.identity import Identity
from cache.layout import PLAN, part_name
from cache.parts import check_place, header_of
from cache.schema import Schema

KEPT = 32  # plans kept in memory


@dataclass(frozen=True)
class Plan:
    """Identity, items and columns of a cache, and the number of items per part.

    `sealed`: the file it was read from has its own SHA-256 (files from earlier versions do not).
    """

    identity: Identity
    item_ids: tuple[str, ...]
    schema: Schema
    part_size: int
    sealed: bool = field(default=True, compare=False)

    @cached_property
    def key(self) -> str:
        """The cache's key."""
        return self.identity.key

    @cached_property
    def positions(self) -> dict[str, int]:
        """Each item's position in the cache, by its id."""
        return {item_id: position for position, item_id in enumerate(self.item_ids)}

    @property
    def part_count(self) -> int:
        """The number of parts; the last one may be shorter."""
        return -(-len(self.item_ids) // self.part_size)

    def items_of(self, index: int) -> tuple[str, ...]:
        """The ids of a part's items."""
        return self.item_ids[index * self.part_size : (index + 1) * self.part_size]

    def header(self, folder: Path, index: int) -> dict[str, Any]:
        """The header of the part `index`. Raises FileNotFoundError if the part is missing, DamagedPart if the file is
        not this part of this cache, CacheError if it cannot be read."""
        path = folder / part_name(index)
        header = header_of(path)
        check_place(path, header, self.identity.stage, self.key, index, len(self.items_of(index)))
        return header

    def as_json(self) -> dict[str, Any]:
        """What plan.json holds, without its seal."""
        return {
            "identity": self.identity.as_json(),
            "key": self.key,
            "part_size": self.part_size,
            "items_sha256": items_digest(self.item_ids),
            "schema": self.schema.as_json(),
            "item_ids": list(self.item_ids),
        }


def items_digest(item_ids: Sequence[str]) -> str:
    """SHA-256 of the ids, one per line."""
    return hashlib.sha256("\n".join(item_ids).encode("utf-8", "surrogatepass")).hexdigest()


def write_plan(folder: Path, plan: Plan) -> bool:
    """Writes plan.json, with its own SHA-256, unless it exists; returns whether it was written."""
    return write_sealed(folder / PLAN, plan.as_json(), exclusive=True)


def read_plan(folder: Path) -> Plan:
    """The plan of the cache in `folder`; read again only if the file has changed.

    Raises FileNotFoundError if there is none, DamagedPlan if it is not what was written, CacheError if it cannot be
    read.
    """
    path = folder / PLAN
    return plan_in(path, state_of(path))


@functools.lru_cache(maxsize=KEPT)
def plan_in(path: Path, state: tuple[int, ...]) -> Plan:
    """The plan in `path`; `state`, part of the memoisation's key, changes with the file."""
    value, sealed = read_sealed(path, DamagedPlan)
    try:
        identity = Identity.from_json(value["identity"])
        item_ids, schema, part_size = tuple(value["item_ids"]), Schema.from_json(value["schema"]), value["part_size"]
        plan = Plan(identity, item_ids, schema, part_size, sealed)
        texts = all(isinstance(text, str) for text in (identity.stage, schema.item, *item_ids))
        if not (texts and item_ids and isinstance(part_size, int) and part_size > 0):
            raise DamagedPlan(path, "it is not a cache's plan")
        if value["items_sha256"] != items_digest(item_ids):
            raise DamagedPlan(path, "its list of items has changed since it was written")
        if value["key"] != plan.key:
            raise DamagedPlan(path, "its key does not match the identity it records")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedPlan(path, "it is not a cache's plan") from error
    return plan
