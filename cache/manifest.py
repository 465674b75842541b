"""The manifest: written last and atomically, so that a cache with a manifest is a complete one."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cache.errors import CacheError, DamagedManifest, NewerVersion
from cache.files import is_there, read_sealed, state_of, write_sealed
from cache.layout import MANIFEST

MANIFEST_FORMAT = 1
KEPT = 64  # manifests kept in memory
MEMBERS: dict[str, type | tuple[type, ...]] = {
    "stage": str, "schema_version": int, "settings": dict, "inputs": dict, "libraries": dict, "key": str,
    "items": int, "rows": int, "bytes": int, "skipped": dict, "summary": object, "parts": list,
}  # fmt: skip
OF_A_PART: dict[str, type | tuple[type, ...]] = {"name": str, "items": int, "bytes": int, "sha256": str}


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest atomically, with its own SHA-256."""
    write_sealed(path, {"format": MANIFEST_FORMAT, **manifest})


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest, None if there is none; read again only if the file has changed.

    Raises DamagedManifest if it is truncated, changed or malformed, NewerVersion, CacheError if it cannot be read. One
    without a SHA-256 is from an earlier version and has format 1.
    """
    try:
        return dict(manifest_in(path, state_of(path)))
    except FileNotFoundError:
        return None


@functools.lru_cache(maxsize=KEPT)
def manifest_in(path: Path, state: tuple[int, ...]) -> dict[str, Any]:
    """The manifest in `path`; `state`, part of the memoisation's key, changes with the file."""
    manifest, sealed = read_sealed(path, DamagedManifest)
    version = manifest.get("format")
    if sealed and isinstance(version, int) and version > MANIFEST_FORMAT:
        raise NewerVersion(path, version)
    if version != MANIFEST_FORMAT or not has_shape(manifest, MEMBERS):
        raise DamagedManifest(path, "it is not a cache's manifest")
    if not all(isinstance(part, dict) and has_shape(part, OF_A_PART) for part in manifest["parts"]):
        raise DamagedManifest(path, "its list of parts is not valid")
    return manifest


def is_finished(folder: Path) -> bool:
    """Whether the cache in `folder` has a manifest. Raises CacheError if that cannot be determined."""
    return is_there(folder / MANIFEST)


def finished_caches(parent: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(folder, manifest) of the finished caches in `parent`. Damaged parts go unnoticed: opening a cache finds them."""
    for path in sorted(parent.glob(f"*/{MANIFEST}")):
        try:
            manifest = read_manifest(path)
        except CacheError:
            continue
        if manifest is not None:
            yield path.parent, manifest


def has_shape(value: Mapping[str, Any], members: Mapping[str, type | tuple[type, ...]]) -> bool:
    """Whether `value` has all `members`, each of the given type."""
    return all(name in value and isinstance(value[name], kind) for name, kind in members.items())
