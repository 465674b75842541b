"""Videos and cameras, decoded frame by frame with OpenCV, and videos written with it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stages.contract.errors import BadImage, StageError
from stages.images.reading import Pixels

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # quiet; FFmpeg in OpenCV reads it once, at its first video

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv")


CODEC = "mp4v"
"""MPEG-4 Part 2 (ISO 14496-2), the one encoder for .mp4 that every build of OpenCV has; H.264 is in none from PyPI."""
USUAL_RATE = 30.0
"""Frames per second where a file or camera does not say how many there are."""
FASTEST = 1000.0
SLOWEST = 1.0
"""The least frames per second of a video that is written: players, and OpenCV below 0.001, dislike fewer."""
LONGEST_HOLD = 60.0
"""Seconds for which a frame is held at most: times in a damaged file may jump by years."""


class Frame(NamedTuple):
    """A frame of a video: its `number`, from 0, its `time` in seconds and its `pixels` uint8 [H, W, 3], RGB."""

    number: int
    time: float
    pixels: Pixels


def frame_count(path: Path) -> int:
    """The number of frames in the file's header, which may be slightly off; 0 if the format has none.

    Raises BadImage if the file cannot be decoded as a video.
    """
    import cv2

    with opened(path) as video:
        return max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))


def frame_rate(path: Path) -> float:
    """The frames per second in the file's header, USUAL_RATE if it has none. Raises BadImage as `frame_count`."""
    with opened(path) as video:
        return rate_of(video)


def rate_of(video: Any) -> float:
    """The frames per second that OpenCV's reader states, USUAL_RATE for none."""
    import cv2

    rate = float(video.get(cv2.CAP_PROP_FPS))
    return rate if 0 < rate <= FASTEST else USUAL_RATE


def read_frames(path: Path, every: int = 1, seconds: float = math.inf) -> Iterator[Frame]:
    """Every `every`-th frame of the first `seconds` of a video, upright, with the time at which it is shown.

    Raises BadImage if the file cannot be decoded as a video.
    """
    import cv2

    with opened(path) as video:
        number, rate, last = 0, rate_of(video), -1.0
        while video.grab():
            at = video.get(cv2.CAP_PROP_POS_MSEC) / 1000
            last = at if at > last else last + 1 / rate  # some formats have no times
            if last >= seconds:
                return
            if number % every == 0:
                decoded, frame = video.retrieve()
                if not decoded:
                    return
                yield Frame(number, last, np.ascontiguousarray(frame[:, :, ::-1]))
            number += 1
        if number == 0:
            raise BadImage(path, "has no frames that OpenCV can decode")


def camera_rate(number: int) -> float:
    """The frames per second of the system's camera `number`, USUAL_RATE if it does not say. Raises StageError."""
    with opened_camera(number) as camera:
        return rate_of(camera)


def read_camera(number: int, every: int, seconds: float, stopped: Callable[[], bool]) -> Iterator[Frame]:
    """Every `every`-th frame of the system's camera `number`, with the time since the first, until `seconds` are over,
    `stopped` says so or the camera ends. Raises StageError for a camera that has no frame to give."""
    with opened_camera(number) as camera:
        taken, started = 0, 0.0
        while not stopped() and camera.grab():
            now = time.monotonic()
            started = started if taken else now
            if now - started >= seconds:
                return
            if taken % every == 0:
                decoded, frame = camera.retrieve()
                if not decoded:
                    break
                yield Frame(taken, now - started, np.ascontiguousarray(frame[:, :, ::-1]))
            taken += 1
        if not taken and not stopped():
            raise StageError(f"camera:{number}: gives no picture; close other programs that use it, or unplug it once")


class VideoWriter:
    """A video file in the making, RGB frames of one size at a constant `rate` per second, not below SLOWEST.

    Each frame is held until the next one's time, so that the video takes as long as its frames did, however irregularly
    they come. Raises StageError if OpenCV cannot write it.
    """

    def __init__(self, path: Path, rate: float, width: int, height: int) -> None:
        import cv2

        self.path, self.rate, self.size = path, max(rate, SLOWEST), (width + width % 2, height + height % 2)
        self.written, self.first = 0, 0.0
        self.held: Pixels | None = None
        with quiet():
            self.writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*CODEC), self.rate, self.size)
        if not self.writer.isOpened():
            raise StageError(
                f"{path.name}: this build of OpenCV cannot write it (codec {CODEC}, {width} x {height}); install "
                "opencv-contrib-python from PyPI, or write no video"
            )

    def show(self, pixels: Pixels, at: float) -> None:
        """Shows `pixels` uint8 [height, width, 3] RGB from the time `at` on, in seconds; times rise. Raises StageError
        for frames of another size."""
        if self.held is not None and self.held.shape != pixels.shape:
            raise StageError(f"{self.path.name}: its frames change in size, which a video cannot; write frames instead")
        if self.held is None:
            self.first = at
        else:
            place = round((at - self.first) * self.rate)
            self.hold(min(place, self.written + math.ceil(LONGEST_HOLD * self.rate)))
        self.held = pixels

    def hold(self, until: int) -> None:
        """Writes the frame that is shown now as often as it takes to have `until` frames."""
        if self.held is None or until <= self.written:
            return
        (width, height), (rows, columns) = self.size, self.held.shape[:2]
        even = np.pad(self.held, ((0, height - rows), (0, width - columns), (0, 0)), mode="edge")  # as the codec needs
        for _ in range(until - self.written):
            self.writer.write(np.ascontiguousarray(even[:, :, ::-1]))
        self.written = until

    def finish(self) -> None:
        """Writes what is left and closes the file. Raises StageError if it is not complete: OpenCV says nothing of a
        full disk."""
        self.hold(self.written + 1)
        self.writer.release()
        try:
            complete = frame_count(self.path) == self.written
        except BadImage:
            complete = False
        if not complete:
            raise StageError(f"{self.path.parent}: the video could not be written whole; is the disk full?")

    def close(self) -> None:
        """Closes the file, whole or not."""
        self.writer.release()


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the messages of OpenCV and its libraries."""
    import cv2

    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


@contextmanager
def opened_camera(number: int) -> Iterator[Any]:
    """OpenCV's reader of the system's camera `number`. Raises StageError if there is none."""
    import cv2

    with quiet():
        camera = cv2.VideoCapture(number)
    try:
        if not camera.isOpened():
            raise StageError(f"camera:{number}: cannot be opened; connect it, or close other programs that use it")
        camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the frame of now rather than one that waited for the detector
        yield camera
    finally:
        camera.release()


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """OpenCV's reader of the file, with the messages of OpenCV and its libraries silenced."""
    import cv2

    try:
        with quiet():
            if path.stat().st_size == 0:
                raise BadImage(path, "is empty (0 bytes)")
            video = cv2.VideoCapture(str(path))
    except OSError as error:
        raise BadImage(path, f"cannot be opened ({error.strerror})") from None
    try:
        if not video.isOpened():
            raise BadImage(path, "is not a video that OpenCV can decode")
        yield video
    finally:
        video.release()
