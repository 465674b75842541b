"""A cache is named by what made it: stage, settings, input keys and the versions of libraries that affect results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KEY_DIGITS = 12


def canonical_json(value: Any) -> str:
    """`value` as JSON with sorted names and no spaces: equal values give equal text, whatever the order of insertion.

    Raises ValueError for NaN and infinity, TypeError for values that JSON cannot represent.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def key_of(value: Any) -> str:
    """The first 12 hex digits of the SHA-256 of `value`'s canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:KEY_DIGITS]


def short_digest(*lines: str) -> str:
    """The first 32 hex digits of the SHA-256 of `lines`, joined by newlines."""
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True)
class Identity:
    """Everything that determines a cache's content. `inputs` maps each role to the key of the input that fills it."""

    stage: str
    schema_version: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """12 hex digits: the end of the folder's name."""
        return key_of(self.as_json())

    def as_json(self) -> dict[str, Any]:
        """The JSON that is hashed, and recorded in the manifest."""
        return {
            "stage": self.stage,
            "schema_version": self.schema_version,
            "settings": dict(self.settings),
            "inputs": dict(self.inputs),
            "libraries": dict(self.libraries),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Identity:
        """The inverse of `as_json`."""
        return Identity(
            value["stage"], value["schema_version"], value["settings"], value["inputs"], value.get("libraries", {})
        )


def differences(old: Identity, new: Identity) -> list[str]:
    """How `new` differs from `old`, in words: "extract.padding 16 -> 0", "proposals changed upstream"."""
    changes = [
        f"{new.stage}.{name} {old.settings.get(name, 'unset')} -> {new.settings.get(name, 'unset')}"
        for name in sorted({*old.settings, *new.settings})
        if old.settings.get(name) != new.settings.get(name)
    ]
    changes += [
        f"{role} changed upstream"
        for role in sorted({*old.inputs, *new.inputs})
        if old.inputs.get(role) != new.inputs.get(role)
    ]
    changes += [
        f"{name} {old.libraries.get(name, 'none')} -> {new.libraries.get(name, 'none')}"
        for name in sorted({*old.libraries, *new.libraries})
        if old.libraries.get(name) != new.libraries.get(name)
    ]
    if old.schema_version != new.schema_version:
        changes.append(f"{new.stage}'s format {old.schema_version} -> {new.schema_version}")
    return changes
