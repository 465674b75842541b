"""Writing generated datasets to disk once: complete or not at all, even if several processes draw them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cache.files import cannot
from stages.datasets.records import BadDataset

log = logging.getLogger("stages.datasets")

ABANDONED_SECONDS = 6 * 3600


def materialised(label: str, identity: Mapping[str, Any], work: Path, draw: Callable[[Path], None]) -> Path:
    """The folder `work`/datasets/LABEL-DIGEST, drawn with `draw` if it does not exist; the digest is of `identity`.

    It is drawn under a temporary name and then renamed: of several processes the first to finish wins, and the others
    use its result. Raises BadDataset if it cannot be written.
    """
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]
    folder = work / "datasets" / f"{label}-{digest}"
    if folder.is_dir():
        return folder
    said = ", ".join(f"{name} {value}" for name, value in identity.items())
    log.info("drawing %s (%s) in %s", label, said, folder)
    started = time.monotonic()
    try:
        make(folder, draw)
    except OSError as error:
        raise BadDataset(
            f"{folder}: " + cannot("be written", error, "free some disk space or choose another --work")
        ) from None
    log.info("drew %s in %.1f s", label, time.monotonic() - started)
    return folder


def make(folder: Path, draw: Callable[[Path], None]) -> None:
    """Draws into a temporary folder next to `folder`, and renames it; leaves nothing behind on failure."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        temporary.chmod(0o755)
        draw(temporary)
        os.rename(temporary, folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_abandoned(folder: Path) -> None:
    """Removes temporary folders that processes killed while drawing `folder` left behind hours ago."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
