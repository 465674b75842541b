"""The photos that `rcnn predict` is given: files, folders, patterns, videos; and their outputs' names."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rcnn_cli.looking.photos import check_photos, find_photos, named
from rcnn_cli.outputs import OutputFolder
from stages.contract.errors import BadImage, StageError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with some images and other files."""
    for name in ("b.jpg", "a.PNG", "more/c.jpg", "._b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "none").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def paths(*given: str) -> list[str]:
    return [str(photo.path) for photo in find_photos(given, 30)]


def test_files_folders_and_patterns(folder: Path) -> None:
    assert paths(".") == ["a.PNG", "b.jpg"]
    assert paths("b.jpg", ".", "./b.jpg") == ["b.jpg", "a.PNG"]
    assert paths("*.jpg") == ["b.jpg"]
    assert paths("**/*.jpg") == ["b.jpg", "more/c.jpg"]
    assert paths("notes.txt") == ["notes.txt"]  # whatever is named is taken; its header decides
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / "d[1].png")
    assert paths("d[1].png") == ["d[1].png"]


def test_what_rcnn_drew_is_not_taken_for_a_photo(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with OutputFolder(folder).file("b.png") as path:
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    with caplog.at_level(logging.INFO, logger="rcnn"):
        assert paths(".") == ["a.PNG", "b.jpg"]
    assert "left out: 1 picture drawn by rcnn, for example b.png" in caplog.text
    assert paths("b.png") == ["b.png"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("c.jpg", "c.jpg: no such file"),
        ("bb.jpg", "bb.jpg: no such file, did you mean 'b.jpg'?"),
        ("nowhere/b.jpg", "nowhere/b.jpg: no such file; there is no folder nowhere"),
        ("https://example.org/b.jpg", "is a URL, and rcnn does not download photos"),
        ("*.webp", r"\*.webp: matches no image or video"),
        ("none", "none: contains no images or videos .* write 'none/\\*\\*/\\*.jpg'"),
        ("other.toml", "other.toml: is a recipe, not a photo; rcnn predict takes one recipe"),
        ("x" * 300 + ".jpg", "no such file"),
    ],
)
def test_what_is_not_there_is_one_sentence(folder: Path, given: str, said: str) -> None:
    with pytest.raises(StageError, match=said):
        find_photos([given], 30)


def test_headers_are_looked_at_first(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "clip.mp4").write_text("no film")
    photos = find_photos(["b.jpg", "notes.txt", "clip.mp4"], 30)
    with pytest.raises(BadImage, match=r"notes\.txt"):
        check_photos(photos, False)
    with caplog.at_level(logging.WARNING, logger="rcnn"):
        assert [photo.path.name for photo in check_photos(photos, True)] == ["b.jpg"]
    assert caplog.text.count("skipped: ") == 2


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["a.jpg", "a.png", "b.jpg"], ["a", "a-2", "b"]),
        (["x/a.jpg", "y/A.jpg", "a-2.jpg"], ["a", "A-2", "a-2-2"]),
        (["clip.mp4", "clip.jpg", "clip.avi"], ["clip-2", "clip", "clip-3"]),
        (["clip.mp4", "clip-00012.jpg"], ["clip-2", "clip-00012"]),
        (["é.jpg", "e\u0301.jpg"], ["é", "é-2"]),
        (["con.jpg"], ["con-9e7b2f9f"]),
    ],
)
def test_names_of_outputs_differ_also_where_a_disk_ignores_case(given: list[str], names: list[str]) -> None:
    found = named([Path(one) for one in given], 30)
    assert [str(photo.path) for photo in found] == given
    told = [photo.name for photo in found]
    assert told[:-1] == names[:-1]
    assert told[-1].rpartition("-")[0] == "con" if names == ["con-9e7b2f9f"] else told == names
