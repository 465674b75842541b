"""What can go wrong with a cache, each as one sentence: the file, what is wrong, what to do."""

from __future__ import annotations

from pathlib import Path


class CacheError(Exception):
    """A cache that cannot be read or written; `str(error)` is the sentence that the user reads."""


class IncompleteCache(CacheError):
    """A cache that is missing or unfinished where a finished one is needed."""


class DamagedPart(CacheError):
    """A part whose bytes are not those that were written (`folder` and `path` say which)."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: damaged ({reason}); run the same command again and this part alone is recomputed")
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[DamagedPart], tuple[str, str]]:
        return (DamagedPart, (str(self.path), self.reason))


class LostSource(CacheError):
    """A finished cache from which records were to be copied and that is finished no more (removed, say)."""


class DiskFull(CacheError):
    """No space left while writing; what was finished before stays finished."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(
            f"{path}: the disk is full; make room (`rcnn cache gc` lists what no recipe uses) and run the same command "
            "again, what is finished is kept"
        )
        self.path = Path(path)

    def __reduce__(self) -> tuple[type[DiskFull], tuple[str]]:
        return (DiskFull, (str(self.path),))
