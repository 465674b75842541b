"""What can go wrong with a cache, each as one sentence: the file, what is wrong, what to do."""

from __future__ import annotations

from pathlib import Path


class Error(Exception):
    """What whoever runs the program can put right; `str(error)` is one sentence: the file or option, what is wrong,
    what to do. All the project's errors that are not bugs are of this class."""


class CacheError(Error):
    """A cache that cannot be read or written; `str(error)` is the sentence that the user reads."""


class IncompleteCache(CacheError):
    """A cache that is missing or unfinished where a finished one is needed."""


class DamagedFile(CacheError):
    """A file of a cache (`path`) whose content is not what was written (`reason`).

    A file that could not be read is not damaged: that raises a plain CacheError.
    """

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
    """A plan.json that is not what was written. It is rebuilt from the inputs; the parts are kept."""

    advice = "`rcnn run` writes it again and keeps the parts"


class DamagedManifest(DamagedFile):
    """A manifest.json that is not what was written. It is rebuilt from the parts."""

    advice = "`rcnn run` writes it again from the parts"


class NewerVersion(CacheError):
    """A file of a cache (`path`) written by a newer version, in format `version`."""

    def __init__(self, path: Path | str, version: object) -> None:
        super().__init__(f"{path}: written by a newer version (format {version}); update rcnn, or use another --work")
        self.path = Path(path)
        self.version = version

    def __reduce__(self) -> tuple[type[NewerVersion], tuple[str, object]]:
        return (NewerVersion, (str(self.path), self.version))


class LostSource(CacheError):
    """A cache from which records were to be copied is gone or no longer complete."""


class DiskFull(CacheError):
    """No space left while writing; finished work is kept."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(
            f"{path}: the disk is full; make room (`rcnn cache gc` lists what no recipe uses) and run the same command "
            "again; finished work is kept"
        )
        self.path = Path(path)

    def __reduce__(self) -> tuple[type[DiskFull], tuple[str]]:
        return (DiskFull, (str(self.path),))


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, at most 200 characters; its type's name if there is no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
