"""Who is working on which part, so that several processes share one cache without doing the same work.

A claim only saves work: two processes that make the same part anyway write the same bytes under the same name, and the
last rename wins. So nothing here needs locks, synchronised clocks or modification times, and a host that died leaves
nothing for a human to clean up:

- a claim is a small JSON file created by hard link (atomic on NFS): owner and a heartbeat counter;
- its owner raises the counter every BEAT_SECONDS;
- an owner on this host is dead when its process is (process id and start time, within this boot and pid namespace);
- any other owner is dead when an observer has seen its counter stand still for PATIENCE_SECONDS of its own clock.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from cache.errors import CacheError
from cache.files import read_json, write_json

BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 60.0


def host_identity() -> str:
    """This host, boot and pid namespace: within it a process id means something."""
    boot, namespace = "", ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with contextlib.suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return f"{socket.gethostname()} {boot} {namespace}".strip()


def process_start(process_id: int) -> str | None:
    """When a process of this host started (clock ticks since boot), None if it is not running."""
    try:
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None if Path("/proc/self/stat").exists() else running_without_proc(process_id)
    return None if fields[0] in ("Z", "X") else fields[19]


def running_without_proc(process_id: int) -> str | None:
    """The same where there is no /proc: "unknown" if the process is there."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"


class Claims:
    """The claims of one process on parts of one cache.

    `host` and `patience` are for tests; the claim files live in `folder`.
    """

    def __init__(self, folder: Path, *, host: str | None = None, patience: float = PATIENCE_SECONDS) -> None:
        self.folder = folder
        self.patience = patience
        self.token = uuid.uuid4().hex
        self.owner: dict[str, Any] = {
            "host": host or host_identity(),
            "pid": os.getpid(),
            "started": process_start(os.getpid()),
            "token": self.token,
        }
        self.held: set[str] = set()
        self.seen: dict[str, tuple[str, int, float]] = {}
        self.beat = 0
        self.guard = threading.Lock()
        self.stopped = threading.Event()
        self.heart: threading.Thread | None = None

    def try_claim(self, name: str) -> bool:
        """Claims `name` unless a living process has it; a dead owner's claim is taken over."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / name
        with self.guard:
            if name in self.held:
                return False
            if not write_json(path, {**self.owner, "beat": self.beat}, exclusive=True, durable=False) and not (
                self.owner_is_dead(path) and self.take_over(path)
            ):
                return False
            self.held.add(name)
            self.seen.pop(name, None)
        self.start_heart()
        return True

    def take_over(self, path: Path) -> bool:
        """Replaces a dead owner's claim by ours; of several that try, one succeeds."""
        with contextlib.suppress(OSError):
            os.rename(path, path.with_name(f"{path.name}.dead-{self.token}"))
            path.with_name(f"{path.name}.dead-{self.token}").unlink()
        return write_json(path, {**self.owner, "beat": self.beat}, exclusive=True, durable=False)

    def owner_is_dead(self, path: Path) -> bool:
        """Whether the claim at `path` belongs to nobody that still works (see the module's text)."""
        try:
            claim = read_json(path)
            host, process, started, token, beat = (claim[name] for name in ("host", "pid", "started", "token", "beat"))
        except FileNotFoundError:
            return True
        except (CacheError, KeyError, TypeError):
            token, beat, host, process, started = "unreadable", 0, "", 0, None
        if host == self.owner["host"]:
            return process_start(process) != started
        now = time.monotonic()
        previous = self.seen.get(path.name)
        if previous is None or previous[:2] != (token, beat):
            self.seen[path.name] = (token, beat, now)
            return False
        return now - previous[2] > self.patience

    def release(self, name: str) -> None:
        """Gives `name` back (also one that is already gone)."""
        with self.guard:
            self.held.discard(name)
            (self.folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Gives everything back and stops the heartbeat."""
        self.stopped.set()
        for name in list(self.held):
            self.release(name)

    def start_heart(self) -> None:
        """Starts the heartbeat with the first claim."""
        if self.heart is None:
            self.heart = threading.Thread(target=self.keep_beating, name="claims", daemon=True)
            self.heart.start()

    def keep_beating(self) -> None:
        """Raises the counter in every held claim until closed; one whose file is gone was done with by a worker."""
        while not self.stopped.wait(BEAT_SECONDS):
            self.beat += 1
            with self.guard:
                self.held = {name for name in self.held if (self.folder / name).exists()}
                for name in self.held:
                    with contextlib.suppress(CacheError, OSError):
                        write_json(self.folder / name, {**self.owner, "beat": self.beat}, durable=False)
