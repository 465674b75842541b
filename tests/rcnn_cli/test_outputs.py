"""Where the user says that files go: what is the project's own may be replaced there, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rcnn_cli.outputs import LIST, OutputFolder, check_output_file
from stages.contract.errors import StageError


def test_own_files_are_replaced_and_the_list_is_that_of_sha256sum(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "new" / "out")
    folder.write("a.csv", "one\n")
    folder.write("a.csv", "two\n")
    assert (tmp_path / "new/out/a.csv").read_text() == "two\n"
    lines = (tmp_path / "new/out" / LIST).read_text().splitlines()
    assert [line.split("  ") for line in lines] == [
        ["2c8b08da5ce60398e1f19af0e5dccc744df274b826abe585eaba68c525434806", "a.csv"],
        ["27dd8ed44a83ff94d557f9fd0412ed5a8cbca69ea04922d88c01184a07300a5a", "a.csv"],
    ]
    folder.write("a.csv", "two\n")
    assert len((tmp_path / "new/out" / LIST).read_text().splitlines()) == 2
    assert sorted(os.listdir(tmp_path / "new/out")) == [LIST, "a.csv"]


def test_what_another_command_lists_meanwhile_is_seen_and_nothing_is_read_twice(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    folder.write("a.csv", "one\n")
    OutputFolder(tmp_path).write("b.csv", "other\n")
    folder.write("b.csv", "two\n")
    assert (tmp_path / "b.csv").read_text() == "two\n"
    assert {name: len(digests) for name, digests in folder.listed().items()} == {"a.csv": 1, "b.csv": 2}
    assert folder.read_up_to == (tmp_path / LIST).stat().st_size


@pytest.mark.parametrize(
    "whose", ["the user's", "edited", "of another folder", "a link", "a dangling link", "a folder"]
)
def test_what_is_not_the_projects_own_stays(tmp_path: Path, whose: str) -> None:
    path, mine = tmp_path / "out/a.json", tmp_path / "mine.json"
    mine.write_text("notes")
    OutputFolder(tmp_path / "out").write("other.json", "{}")
    if whose == "edited":
        OutputFolder(tmp_path / "out").write("a.json", "{}")
    if whose == "of another folder":
        OutputFolder(tmp_path / "elsewhere").write("a.json", "notes")
    if whose == "a link":
        path.symlink_to(mine)
    elif whose == "a dangling link":
        path.symlink_to(tmp_path / "nowhere")
    elif whose == "a folder":
        path.mkdir()
    else:
        path.write_text("notes")
    for attempt in (
        lambda folder: folder.check(["other.json", "a.json"]),
        lambda folder: folder.write("a.json", "{}"),
        lambda folder: folder.remove("a.json"),
    ):
        with pytest.raises(StageError, match=r"a\.json"):
            attempt(OutputFolder(tmp_path / "out"))
    assert mine.read_text() == "notes"
    assert path.is_symlink() or path.is_dir() or path.read_text() == "notes"
    assert not list((tmp_path / "out").glob(".tmp-*"))


@pytest.mark.parametrize("link", ["", "hard", "symbolic"])
@pytest.mark.parametrize("given", [False, True])
def test_an_input_is_never_replaced_not_even_one_that_the_project_wrote(tmp_path: Path, link: str, given: bool) -> None:
    OutputFolder(tmp_path).write("a.png", "a picture")
    photo = tmp_path / "a.png"
    if link == "hard":
        photo = tmp_path / "b.png"
        photo.hardlink_to(tmp_path / "a.png")
    if link == "symbolic":
        photo = tmp_path / "b.png"
        photo.symlink_to(tmp_path / "a.png")
    folder = OutputFolder(tmp_path, given=given, inputs=[photo, tmp_path / "missing"])
    with pytest.raises(StageError, match=r"a\.png: is read by this command"):
        folder.check(["a.png"])
    with pytest.raises(StageError, match=r"a\.png: is read by this command"):
        folder.write("a.png", "another")
    assert photo.read_text() == "a picture"


def test_the_work_folders_own_results_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "recall.csv").write_text("of an older version")
    OutputFolder(tmp_path, given=False).write("recall.csv", "new")
    assert (tmp_path / "recall.csv").read_text() == "new"


def test_nothing_is_left_of_what_could_not_be_written(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    folder.write("a.txt", "before")
    with pytest.raises(TypeError), folder.file("a.txt") as path:
        path.write_text("half") / "and no more"  # type: ignore[operator]
    assert (tmp_path / "a.txt").read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == [LIST, "a.txt"]


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(StageError, match="out: is a file, not a folder"):
        OutputFolder(tmp_path / "out").check([])
    with pytest.raises(StageError, match="cannot be created as a folder"):
        OutputFolder(tmp_path / "out" / "deeper").write("a", "")
    with pytest.raises(StageError, match=r"-o .*out/deeper: .*out cannot be written to \(Not a directory\)"):
        OutputFolder(tmp_path / "out" / "deeper").check([])


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc is where nobody can make a file")
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    for folder in (Path("/proc"), Path("/proc/new/out")):
        with pytest.raises(StageError, match=r"-o /proc.*: /proc cannot be written to .*; choose another place"):
            OutputFolder(folder).check([])
    with pytest.raises(StageError, match="/proc cannot be written to"):
        check_output_file("-o", Path("/proc/weights"), [], lambda _: True)
    OutputFolder(tmp_path / "new" / "out").check([])
    check_output_file("-o", tmp_path / "new" / "weights", [], lambda _: True)
    assert not os.listdir(tmp_path)


def test_a_single_file(tmp_path: Path) -> None:
    own, other, linked = tmp_path / "own", tmp_path / "other", tmp_path / "linked"
    own.write_text("")
    other.write_text("")
    linked.hardlink_to(own)
    check_output_file("-o", tmp_path / "new", [own], lambda path: False)
    check_output_file("-o", own, [other], lambda path: path == own)
    for path, inputs, said in (
        (other, [], "already exists and was not written by this command"),
        (linked, [own], "is read by this command"),
        (tmp_path, [], "is a folder"),
    ):
        with pytest.raises(StageError, match=f"-o {path}: {said}"):
            check_output_file("-o", path, inputs, lambda path: path == own)
