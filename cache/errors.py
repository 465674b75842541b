"""What can go wrong with a cache, each as one sentence: the file, what is wrong, what to do."""

from __future__ import annotations

from pathlib import Path


class CacheError(Exception):
    """A cache that cannot be read or written; `str(error)` is the sentence that the user reads."""


class IncompleteCache(CacheError):
    """A cache that is missing or unfinished where a finished one is needed."""


class DamagedFile(CacheError):
    """A file of a cache (`path`) that was read and is not what was written (`reason`). What could not be read is no
    damage: that is a CacheError of another kind."""

    advice = "run the same command again"

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: damaged ({reason}); {self.advice}")
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[DamagedFile], tuple[str, str]]:
        return (type(self), (str(self.path), self.reason))


class DamagedPart(DamagedFile):
    """A part whose bytes have changed since they were written, or that belongs elsewhere."""

    advice = "run the same command again; only this part will be recomputed"


class DamagedPlan(DamagedFile):
    """A plan.json that is not what was written. It is made again from the inputs; the parts are kept."""

    advice = "`rcnn run` writes it again and keeps the parts"


class DamagedManifest(DamagedFile):
    """A manifest.json that is not what was written. It is made again from the parts."""

    advice = "`rcnn run` writes it again from the parts"


class NewerVersion(CacheError):
    """A file of a cache (`path`) that a newer version wrote, in the format `version`."""

    def __init__(self, path: Path | str, version: object) -> None:
        super().__init__(f"{path}: written by a newer version (format {version}); update rcnn, or use another --work")
        self.path = Path(path)
        self.version = version

    def __reduce__(self) -> tuple[type[NewerVersion], tuple[str, object]]:
        return (NewerVersion, (str(self.path), self.version))


class LostSource(CacheError):
    """A finished cache from which records were to be copied and that is gone or no longer finished."""


class DiskFull(CacheError):
    """No space left while writing; what was finished before stays finished."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(
            f"{path}: the disk is full; make room (`rcnn cache gc` lists what no recipe uses) and run the same command "
            "again; finished work is kept"
        )
        self.path = Path(path)

    def __reduce__(self) -> tuple[type[DiskFull], tuple[str]]:
        return (DiskFull, (str(self.path),))


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, no longer than 200 characters; the name of its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
