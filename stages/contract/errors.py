"""The errors a user can cause: one sentence each, naming the file or option, what is wrong and what to do."""

from __future__ import annotations

from cache.errors import Error


class StageError(Error):
    """Bad input to a stage; `str(error)` is the sentence that the user reads."""


class BadImage(StageError):
    """An image file that cannot be read as an image (`path` and `reason` are kept for the list of skipped images)."""

    def __init__(self, path: object, reason: str, advice: str = "repair or remove it") -> None:
        super().__init__(f"{path}: {reason}; {advice}")
        self.path = str(path)
        self.reason = reason
        self.advice = advice

    def __reduce__(self) -> tuple[type[BadImage], tuple[str, str, str]]:
        return (BadImage, (self.path, self.reason, self.advice))


class ChangedInput(StageError):
    """A file that has changed since cache keys were made from it, so that results would be stored under a wrong key."""

    @staticmethod
    def of(path: object, what: str = "changed while this command was running") -> ChangedInput:
        """The error for the file `path`."""
        return ChangedInput(
            f"{path}: {what}; nothing from it was kept; run the same command again "
            "(with --check-content, which rereads every file, if that does not help)"
        )


class BadSetting(StageError):
    """A setting whose value is not possible, or does not fit another setting or an input."""
