"""Who is working on which part, so that several processes share one cache without doing the same work.

A claim only saves work: two processes that make the same part anyway write the same bytes, and the first one's stay. So
nothing here needs locks, synchronised clocks or modification times, and a host that died or a process that was stopped
leaves nothing for a human to clean up:

- a claim is a small JSON file that names its owner, created by hard link (atomic on NFS) and never changed;
- a process that has claims raises a counter in a file of its own, `beat-TOKEN`, every BEAT_SECONDS;
- an owner on this host is dead when its process is gone (process id and start time, in this boot and pid namespace);
- any owner, on this host too, is as good as dead when an observer has seen its counter stand still for PATIENCE_SECONDS
  of his own clock: it may be stopped (SIGSTOP, a suspended job), and its work is then done by others;
- a dead owner's claim is replaced by one observer at a time, who reads it again before; an owner gives back only what
  is still his: the claim is renamed, read again, and put back if it is another's by now.
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


def read_text(path: Path) -> str | None:
    """The text of a claim or heartbeat, None if it is not there. Raises CacheError."""
    try:
        return read_bytes(path).decode("utf-8", "replace")
    except FileNotFoundError:
        return None


def owner_of(claim: str) -> tuple[str, int, str | None, str]:
    """(host, process id, when that started, token) of a claim's text; of a torn one, of nobody."""
    try:
        host, process, started, token = (json.loads(claim)[name] for name in ("host", "pid", "started", "token"))
        return str(host), int(process), started, str(token)
    except (ValueError, KeyError, TypeError):
        return "", 0, None, ""


def withdraw(path: Path, claim: str) -> bool:
    """Removes the claim at `path` if its text is `claim`; True if it is then gone. Raises CacheError.

    Another's claim stays. If it takes the place of `claim` at the very moment of the removal it is put back: for that
    moment a third process may find the part unclaimed, and do the same work.
    """
    found = read_text(path)
    if found != claim:
        return found is None
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
    """The claims of one process on parts of one cache; the claim files live in `folder`.

    `patience` is how long a counter may stand still, of an owner on this host `patience_here` (the same, if None).
    `host` is for tests.
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
        self.guard = threading.Lock()
        self.stopped = threading.Event()
        self.heart: threading.Thread | None = None

    @property
    def text(self) -> str:
        """What this process's claims say."""
        return json.dumps(self.owner, indent=1)

    def try_claim(self, name: str) -> bool:
        """Claims `name` unless a living process has it; a dead owner's claim is taken over. Raises CacheError."""
        path = self.folder / name
        with self.guard:
            if name in self.held and read_text(path) == self.text:
                return False
            self.start_heart()
            self.held.add(name)  # first, so that whatever ends this process gives it back
            if not self.put(path) and not self.take_over(path):
                self.held.discard(name)
                return False
            self.seen.pop(name, None)
        return True

    def take_over(self, path: Path) -> bool:
        """Replaces a dead owner's claim by ours; of several that try, one succeeds."""
        dead, claim = self.judge(path)
        if not dead or claim is None:
            return dead and self.put(path)
        return self.replace(path, claim)

    def replace(self, path: Path, claim: str) -> bool:
        """Puts our claim in the place of the dead one whose text is `claim`, if that is still there.

        Whoever replaces that very claim holds a file named after it, so that nobody else does at the same time.
        """
        alone = path.with_name(f"{path.name}{GONE}{hashlib.sha256(claim.encode()).hexdigest()[:16]}")
        if not self.put(alone):
            if self.judge(alone)[0]:  # who held it died before it was done: the next one that tries goes on
                alone.unlink(missing_ok=True)
            return False
        try:
            if read_text(path) != claim:
                return False
            write_atomically(path, [self.text.encode()], durable=False)
        finally:
            alone.unlink(missing_ok=True)
        *_, token = owner_of(claim)
        with contextlib.suppress(OSError):
            (self.folder / f"{BEAT}{token}").unlink(missing_ok=True)  # one that goes on after all writes it anew
        return True

    def put(self, path: Path) -> bool:
        """Creates our claim; False if there is one. Whoever finishes the cache may sweep the folder away meanwhile."""
        for _ in range(TRIES):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                return write_atomically(path, [self.text.encode()], exclusive=True, durable=False)
            except CacheError as error:
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise
        return False

    def owner_is_dead(self, path: Path) -> bool:
        """Whether the claim at `path` belongs to nobody that still works (see the module's text)."""
        return self.judge(path)[0]

    def judge(self, path: Path) -> tuple[bool, str | None]:
        """(whether nobody who still works has the claim at `path`, the claim's text; None if there is no claim)."""
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
        """Gives `name` back; what is another's by now stays."""
        with self.guard:
            withdraw(self.folder / name, self.text)
            self.held.discard(name)  # last, so that whatever ends this process meanwhile gives it back

    def close(self) -> None:
        """Gives everything back and stops the heartbeat."""
        self.stopped.set()
        for name in list(self.held):
            self.release(name)
        with self.guard, contextlib.suppress(OSError):
            (self.folder / f"{BEAT}{self.token}").unlink(missing_ok=True)

    def start_heart(self) -> None:
        """Starts the heartbeat with the first claim."""
        if self.heart is None:
            self.heart = threading.Thread(target=self.keep_beating, name="claims", daemon=True)
            self.heart.start()

    def keep_beating(self) -> None:
        """Raises the counter until closed."""
        while not self.stopped.wait(BEAT_SECONDS if self.beat else 0.0):
            self.beat += 1
            with self.guard, contextlib.suppress(CacheError):
                if self.stopped.is_set() or not self.folder.is_dir():
                    continue  # a finished cache has no claims
                write_json(self.folder / f"{BEAT}{self.token}", {**self.owner, "beat": self.beat}, durable=False)
