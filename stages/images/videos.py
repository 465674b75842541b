"""Video files, decoded frame by frame with OpenCV."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from stages.contract.errors import BadImage
from stages.images.reading import Pixels

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # quiet; FFmpeg in OpenCV reads it once, at its first video

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv")


def frame_count(path: Path) -> int:
    """The number of frames in the file's header, which may be slightly off; 0 if the format has none.

    Raises BadImage if the file cannot be decoded as a video.
    """
    import cv2

    with opened(path) as video:
        return max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))


def read_frames(path: Path, every: int = 1) -> Iterator[tuple[int, Pixels]]:
    """(number, pixels) of every `every`-th frame of a video, numbered from 0: uint8 [H, W, 3], RGB, upright.

    Raises BadImage if the file cannot be decoded as a video.
    """
    with opened(path) as video:
        number = 0
        while video.grab():
            if number % every == 0:
                decoded, frame = video.retrieve()
                if not decoded:
                    return
                yield number, np.ascontiguousarray(frame[:, :, ::-1])
            number += 1
        if number == 0:
            raise BadImage(path, "has no frames that OpenCV can decode")


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """OpenCV's reader of the file, with the messages of OpenCV and its libraries silenced."""
    import cv2

    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        if path.stat().st_size == 0:
            raise BadImage(path, "is empty (0 bytes)")
        video = cv2.VideoCapture(str(path))
    except OSError as error:
        raise BadImage(path, f"cannot be opened ({error.strerror})") from None
    finally:
        cv2.utils.logging.setLogLevel(level)
    try:
        if not video.isOpened():
            raise BadImage(path, "is not a video that OpenCV can decode")
        yield video
    finally:
        video.release()
