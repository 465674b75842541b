"""Videos: which frames are read, in which colours, and what is said of files that are none."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from stages.contract.errors import BadImage
from stages.images.videos import frame_count, read_frames


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
    assert [number for number, _ in found] == [0, 4, 8]
    for number, pixels in found:
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
        found = [number for number, _ in read_frames(path)]
    except BadImage:
        return
    assert found == list(range(len(found)))
    assert len(found) < 12
