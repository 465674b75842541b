"""The manifest: written last and atomically, so that a cache with a manifest is a complete one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cache.errors import CacheError, DamagedManifest
from cache.files import read_sealed, write_sealed

MANIFEST = "manifest.json"
MANIFEST_FORMAT = 1
MEMBERS: dict[str, type | tuple[type, ...]] = {
    "stage": str, "schema_version": int, "settings": dict, "inputs": dict, "libraries": dict, "key": str,
    "items": int, "rows": int, "bytes": int, "skipped": dict, "summary": object, "parts": list,
}  # fmt: skip
OF_A_PART: dict[str, type | tuple[type, ...]] = {"name": str, "items": int, "bytes": int, "sha256": str}


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest, whole or not at all, with the SHA-256 of itself."""
    write_sealed(path, {"format": MANIFEST_FORMAT, **manifest})


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest, None if there is none.

    Raises DamagedManifest for one that is torn, changed or of another shape, CacheError for one that is from a newer
    version or cannot be read. One without a SHA-256 is from before there was one, and of format 1.
    """
    try:
        manifest, sealed = read_sealed(path, DamagedManifest)
    except FileNotFoundError:
        return None
    version = manifest.get("format")
    if sealed and isinstance(version, int) and version > MANIFEST_FORMAT:
        raise CacheError(f"{path}: written by a newer version (format {version}); update rcnn, or use another --work")
    if version != MANIFEST_FORMAT or not has_shape(manifest, MEMBERS):
        raise DamagedManifest(path, "it is not a cache's manifest")
    if not all(isinstance(part, dict) and has_shape(part, OF_A_PART) for part in manifest["parts"]):
        raise DamagedManifest(path, "its list of parts is none")
    return manifest


def has_shape(value: Mapping[str, Any], members: Mapping[str, type | tuple[type, ...]]) -> bool:
    """Whether `value` has all `members`, each of its type."""
    return all(name in value and isinstance(value[name], kind) for name, kind in members.items())
