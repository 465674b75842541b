"""A video and its JSON Lines in the making, frame by frame."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rcnn_cli.looking.photos import Picture
from stages.images.reading import Pixels
from stages.images.videos import VideoWriter


class Film:
    """Writes a video of `rate` frames per second to `video` and a line of JSON for each frame to `lines`, each unless
    None. Neither is whole before `finish`; without it, they are closed as they are."""

    def __init__(self, video: Path | None, lines: Path | None, rate: float) -> None:
        self.video, self.rate = video, rate
        self.writer: VideoWriter | None = None
        self.lines: TextIO | None = None if lines is None else lines.open("w", encoding="utf-8", newline="")

    def __enter__(self) -> Film:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.writer is not None:
            self.writer.close()
        if self.lines is not None:
            self.lines.close()

    def add(self, picture: Picture, drawing: Pixels | None, values: Mapping[str, Any]) -> None:
        """Adds a frame: its `drawing` uint8 [H, W, 3] RGB from its time on, and its JSON values. Raises StageError."""
        if self.video is not None and drawing is not None:
            if self.writer is None:
                height, width, _ = drawing.shape
                self.writer = VideoWriter(self.video, self.rate, width, height)
            self.writer.show(drawing, picture.time or 0.0)
        if self.lines is not None:
            self.lines.write(json.dumps(values, allow_nan=False) + "\n")

    def finish(self) -> None:
        """Completes both, after at least one frame. Raises StageError if the disk is full."""
        if self.writer is not None:
            self.writer.finish()
