"""The manifest: written last and atomically, so that a cache with a manifest is a complete one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cache.errors import CacheError
from cache.files import read_json, write_json

MANIFEST_FORMAT = 1


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest, whole or not at all."""
    write_json(path, {"format": MANIFEST_FORMAT, **manifest})


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest, None if there is none. Raises CacheError for one that is torn or from a newer version."""
    try:
        manifest = read_json(path)
    except FileNotFoundError:
        return None
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise CacheError(f"{path}: is not a cache's manifest; delete this file and run the same command again")
    if manifest["format"] > MANIFEST_FORMAT:
        raise CacheError(
            f"{path}: written by a newer version (format {manifest['format']}); update rcnn, or use another --work"
        )
    return manifest
