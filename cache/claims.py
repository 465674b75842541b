"""Which process is working on which part, so that several can fill one cache without duplicating work.

A claim only saves work: if two processes make the same part anyway, they write the same bytes and the first file stays.
So nothing here needs locks, synchronised clocks or modification times, and a host that died or a process that was
stopped leaves nothing to clean up by hand:

- a claim is a small JSON file that names its owner, created by hard link (atomic on NFS) and never changed;
- a process with claims increments a counter in its own file, `beat-TOKEN`, every BEAT_SECONDS;
- an owner on this host is dead once its process is gone (process id and start time, in this boot and pid namespace);
- an owner on any host counts as dead once an observer has seen its counter stand still for PATIENCE_SECONDS of the
  observer's own clock: it may be stopped (SIGSTOP, a suspended job), and others then do its work;
- one observer at a time replaces a dead owner's claim, after reading it again; an owner releases only its own claims:
  the file is renamed, read again, and put back if it has come to belong to another process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from cache.errors import CacheError
from cache.files import as_cache_error, read_bytes, write_atomically, write_json

BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 60.0
BEAT = "beat-"
GONE = ".gone-"
TRIES = 3


def host_identity() -> str:
    """This host, boot and pid namespace: the scope in which process ids are comparable."""
    boot, namespace = "", ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with contextlib.suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return f"{socket.gethostname()} {boot} {namespace}".strip()


def process_start(process_id: int) -> str | None:
    """When a process on this host started (clock ticks since boot); None if it is not running."""
    try:
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None if Path("/proc/self/stat").exists() else running_without_proc(process_id)
    return None if fields[0] in ("Z", "X") else fields[19]


def running_without_proc(process_id: int) -> str | None:
    """`process_start` where there is no /proc: "unknown" if the process is running."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"


def read_text(path: Path) -> str | None:
    """The text of a claim or heartbeat; None if the file is missing. Raises CacheError."""
    try:
        return read_bytes(path).decode("utf-8", "replace")
    except FileNotFoundError:
        return None


def owner_of(claim: str) -> tuple[str, int, str | None, str]:
    """(host, process id, start time, token) in a claim's text; ("", 0, None, "") if the text is truncated."""
    try:
        host, process, started, token = (json.loads(claim)[name] for name in ("host", "pid", "started", "token"))
        return str(host), int(process), started, str(token)
    except (ValueError, KeyError, TypeError):
        return "", 0, None, ""


def withdraw(path: Path, claim: str) -> bool:
    """Removes the claim at `path` if its text is `claim`; True if it is then gone. Raises CacheError.

    Another process's claim stays. If one replaces `claim` just as it is being removed, it is put back; until then a
    third process may see the part as unclaimed and duplicate the work.
    """
    present = read_text(path)
    if present != claim:
        return present is None
    away = path.with_name(f"{path.name}{GONE}{uuid.uuid4().hex[:8]}")
    try:
        os.rename(path, away)
    except FileNotFoundError:
        return True
    except OSError as error:
        raise as_cache_error(path, error) from error
    try:
        if read_text(away) in (claim, None):
            return True
        with contextlib.suppress(OSError):
            os.link(away, path)
        return False
    finally:
        with contextlib.suppress(OSError):
            away.unlink(missing_ok=True)


class Claims:
    """One process's claims on the parts of one cache; the claim files live in `folder`.

    `patience`: seconds that an owner's counter may stand still before it counts as dead; `patience_here`: the same for
    an owner on this host (None: as `patience`). `host` is for tests.
    """

    def __init__(
        self,
        folder: Path,
        *,
        host: str | None = None,
        patience: float | None = None,
        patience_here: float | None = None,
    ) -> None:
        self.folder = folder
        self.patience = PATIENCE_SECONDS if patience is None else patience
        self.patience_here = self.patience if patience_here is None else patience_here
        self.token = uuid.uuid4().hex
        self.owner: dict[str, Any] = {
            "host": host or host_identity(),
            "pid": os.getpid(),
            "started": process_start(os.getpid()),
            "token": self.token,
        }
        self.held: set[str] = set()
        self.seen: dict[str, tuple[str, str | None, float]] = {}
        self.beat = 0
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.heart: threading.Thread | None = None

    @property
    def text(self) -> str:
        """The text of this process's claims."""
        return json.dumps(self.owner, indent=1)

    def try_claim(self, name: str) -> bool:
        """Claims `name` unless a live process holds it; takes over a dead owner's claim. Raises CacheError."""
        path = self.folder / name
        with self.lock:
            if name in self.held and read_text(path) == self.text:
                return False
            self.start_heart()
            self.held.add(name)  # before the file exists, so that `close` always releases it
            if not self.put(path) and not self.take_over(path):
                self.held.discard(name)
                return False
            self.seen.pop(name, None)
        return True

    def take_over(self, path: Path) -> bool:
        """Replaces a dead owner's claim by ours; if several processes try, one succeeds."""
        dead, claim = self.judge(path)
        if not dead or claim is None:
            return dead and self.put(path)
        return self.replace(path, claim)

    def replace(self, path: Path, claim: str) -> bool:
        """Replaces the dead claim whose text is `claim` by ours, if it is still there.

        The process that does so first takes a file named after that claim, so only one can replace it at a time.
        """
        takeover = path.with_name(f"{path.name}{GONE}{hashlib.sha256(claim.encode()).hexdigest()[:16]}")
        if not self.put(takeover):
            if self.judge(takeover)[0]:  # its owner died halfway: the next process to try will succeed
                takeover.unlink(missing_ok=True)
            return False
        try:
            if read_text(path) != claim:
                return False
            write_atomically(path, [self.text.encode()], durable=False)
        finally:
            takeover.unlink(missing_ok=True)
        *_, token = owner_of(claim)
        with contextlib.suppress(OSError):  # an owner that is alive after all writes its file again
            (self.folder / f"{BEAT}{token}").unlink(missing_ok=True)
        return True

    def put(self, path: Path) -> bool:
        """Creates our claim; False if there is one. A process finishing the cache may delete the folder meanwhile."""
        for _ in range(TRIES):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                return write_atomically(path, [self.text.encode()], exclusive=True, durable=False)
            except CacheError as error:
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise
        return False

    def owner_is_dead(self, path: Path) -> bool:
        """Whether no live process holds the claim at `path` (see the module's docstring)."""
        return self.judge(path)[0]

    def judge(self, path: Path) -> tuple[bool, str | None]:
        """(whether no live process holds the claim at `path`, the claim's text or None if there is no claim)."""
        claim = read_text(path)
        if claim is None:
            return True, None
        host, process, started, token = owner_of(claim)
        if token == self.token:
            return False, claim
        here = host == self.owner["host"]
        if here and process_start(process) != started:
            return True, claim
        now, beat = time.monotonic(), read_text(self.folder / f"{BEAT}{token}")
        previous = self.seen.get(path.name)
        if previous is None or previous[:2] != (claim, beat):
            self.seen[path.name] = (claim, beat, now)
            return False, claim
        return now - previous[2] > (self.patience_here if here else self.patience), claim

    def release(self, name: str) -> None:
        """Releases `name`, unless another process has taken it over."""
        with self.lock:
            withdraw(self.folder / name, self.text)
            self.held.discard(name)  # last, so that `close` still releases it if interrupted here

    def close(self) -> None:
        """Releases all claims and stops the heartbeat."""
        self.stopped.set()
        for name in list(self.held):
            self.release(name)
        with self.lock, contextlib.suppress(OSError):
            (self.folder / f"{BEAT}{self.token}").unlink(missing_ok=True)

    def start_heart(self) -> None:
        """Starts the heartbeat with the first claim."""
        if self.heart is None:
            self.heart = threading.Thread(target=self.keep_beating, name="claims", daemon=True)
            self.heart.start()

    def keep_beating(self) -> None:
        """Increments the counter every BEAT_SECONDS until closed."""
        while not self.stopped.wait(BEAT_SECONDS if self.beat else 0.0):
            self.beat += 1
            with self.lock, contextlib.suppress(CacheError):
                if self.stopped.is_set() or not self.folder.is_dir():
                    continue  # a finished cache has no claims
                write_json(self.folder / f"{BEAT}{self.token}", {**self.owner, "beat": self.beat}, durable=False)
