"""Videos: which frames are read, in which colours, and what is said of files that are none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from stages.contract.errors import BadImage, StageError
from stages.images.videos import USUAL_RATE, VideoWriter, camera_rate, frame_count, frame_rate, read_camera, read_frames


def write_video(path: Path, frames: int) -> Path:
    """A film that gets redder from frame to frame, as Motion JPEG in AVI. Skips, aloud, where OpenCV has no encoder."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    if not writer.isOpened():
        pytest.skip("this build of OpenCV writes no Motion JPEG: videos are not tested")
    for number in range(frames):
        writer.write(np.full((48, 64, 3), (0, 0, 20 * number), np.uint8))
    writer.release()
    return path


def test_every_nth_frame_in_rgb(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip 100%.avi", 10)
    assert frame_count(path) == 10
    found = list(read_frames(path, 4))
    assert [frame.number for frame in found] == [0, 4, 8]
    assert [frame.time for frame in found] == pytest.approx([0, 0.4, 0.8])
    assert [frame.number for frame in read_frames(path, 2, 0.5)] == [0, 2, 4]
    for number, _, pixels in found:
        assert (pixels.shape, pixels.dtype) == ((48, 64, 3), np.uint8)
        np.testing.assert_allclose(pixels.reshape(-1, 3).mean(axis=0), (20 * number, 0, 0), atol=4)
    assert len(list(read_frames(path))) == 10


@pytest.mark.parametrize(("content", "said"), [(b"", "is empty"), (b"no film" * 99, "not a video"), (None, "opened")])
def test_what_is_no_video(tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes | None, said: str) -> None:
    path = tmp_path / "x.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadImage, match=f"x.mp4: .*{said}"):
        frame_count(path)
    with pytest.raises(BadImage, match=f"x.mp4: .*{said}"):
        list(read_frames(path))
    assert capfd.readouterr().err == ""


def test_a_truncated_video_ends_early(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.avi", 12)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    try:
        found = [frame.number for frame in read_frames(path)]
    except BadImage:
        return
    assert found == list(range(len(found)))
    assert len(found) < 12


# Written videos


def grey(level: int, width: int = 65, height: int = 47) -> Any:
    return np.full((height, width, 3), level, np.uint8)


def written(path: Path, rate: float, shown: Sequence[tuple[int, float]]) -> list[tuple[float, int]]:
    """(time, level of grey) of each frame of a video in which these (level, time) are shown."""
    writer = VideoWriter(path, rate, 65, 47)
    for level, at in shown:
        writer.show(grey(level), at)
    writer.finish()
    frames = list(read_frames(path))
    assert {frame.pixels.shape for frame in frames} == {(48, 66, 3)}  # even sides, the edge repeated
    return [(round(frame.time, 3), int(round(frame.pixels.mean() / 40) * 40)) for frame in frames]


def test_a_written_video_has_its_frames_at_their_times(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    assert written(path, 10, [(0, 0), (80, 0.1), (160, 0.2)]) == [(0, 0), (0.1, 80), (0.2, 160)]
    assert frame_rate(path) == 10
    # A late frame: the one before is held. Two frames in one place: the second is shown. A late start is none.
    late = written(path, 10, [(0, 7), (80, 7.3), (160, 7.31), (240, 7.4)])
    assert late == [(0, 0), (0.1, 0), (0.2, 0), (0.3, 160), (0.4, 240)]


def test_less_than_a_frame_per_second_is_written_as_one_per_second(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    assert written(path, 0.0001, [(0, 0), (80, 3)]) == [(0, 0), (1, 0), (2, 0), (3, 80)]
    jump = written(path, 1, [(0, 0), (80, 1e9), (160, 1e9 + 1)])
    assert len(jump) <= 122


def test_a_video_that_cannot_be_written_is_a_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StageError, match=r"x.mp4: this build of OpenCV cannot write it \(codec mp4v"):
        VideoWriter(tmp_path / "no folder" / "x.mp4", 10, 64, 48)
    writer = VideoWriter(tmp_path / "x.mp4", 10, 64, 48)
    writer.show(grey(9, 64, 48), 0)
    writer.show(grey(9, 64, 48), 1)
    (tmp_path / "x.mp4").unlink()
    with pytest.raises(StageError, match="could not be written whole"):
        writer.finish()
    assert "OpenCV" not in capfd.readouterr().err


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "x.mp4", 10, 65, 47)
    writer.show(grey(9), 0)
    with pytest.raises(StageError, match="its frames change in size"):
        writer.show(grey(9, 64, 48), 1)
    writer.close()


# Cameras


class Camera:
    """A camera that gives `frames` pictures, each a tenth of a second after the one before, as OpenCV's reader."""

    def __init__(self, frames: int, rate: float = 10.0, opens: bool = True) -> None:
        self.left, self.rate, self.opens, self.clock, self.released = frames, rate, opens, 100.0, False

    def isOpened(self) -> bool:  # noqa: N802
        return self.opens

    def set(self, *_: Any) -> bool:
        return True

    def get(self, wanted: int) -> float:
        return self.rate if wanted == cv2.CAP_PROP_FPS else 0.0

    def grab(self) -> bool:
        self.left, self.clock = self.left - 1, self.clock + 0.1
        return self.left >= 0

    def retrieve(self) -> tuple[bool, Any]:
        return True, np.full((48, 64, 3), (0, 0, 200), np.uint8)

    def release(self) -> None:
        self.released = True


@pytest.fixture
def plugged_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that puts a Camera in the place of the system's cameras and its clock in that of the machine's."""

    def plug(camera: Camera) -> Camera:
        monkeypatch.setattr(cv2, "VideoCapture", lambda number: camera)
        monkeypatch.setattr("stages.images.videos.time.monotonic", lambda: camera.clock)
        return camera

    return plug


def test_a_camera_until_it_ends_is_told_to_or_its_time_is_over(plugged_in: Any) -> None:
    camera = plugged_in(Camera(10))
    found = list(read_camera(0, 4, np.inf, lambda: False))
    assert [frame.number for frame in found] == [0, 4, 8]
    assert [frame.time for frame in found] == pytest.approx([0, 0.4, 0.8])
    assert found[0].pixels[0, 0].tolist() == [200, 0, 0]
    assert camera.released
    plugged_in(Camera(1000))
    assert [frame.number for frame in read_camera(0, 2, 0.55, lambda: False)] == [0, 2, 4]
    seen: list[int] = []
    plugged_in(Camera(1000))
    for frame in read_camera(0, 1, np.inf, lambda: len(seen) == 3):
        seen.append(frame.number)
    assert seen == [0, 1, 2]


def test_what_is_no_camera(plugged_in: Any) -> None:
    plugged_in(Camera(3, opens=False))
    with pytest.raises(StageError, match="camera:7: cannot be opened; connect it"):
        list(read_camera(7, 1, np.inf, lambda: False))
    plugged_in(Camera(0, rate=0))
    with pytest.raises(StageError, match="camera:0: gives no picture"):
        list(read_camera(0, 1, np.inf, lambda: False))
    assert camera_rate(0) == USUAL_RATE
