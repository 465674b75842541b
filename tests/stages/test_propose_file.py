"""Proposals from files of every format, and every way in which they can be wrong."""

from __future__ import annotations

import time

import h5py
import numpy as np
import pytest
import scipy.io

from stages.contract.errors import ChangedInput, StageError
from stages.propose.box_file import BoxFile, content_sha256, fit_to_image, resolve_path

BOXES = {
    "000005": np.array([[10, 20, 30, 50], [0, 0, 4, 4]], np.float32),
    "000007": np.zeros((0, 4), np.float32),
    "b": np.array([[1.5, 2, 3, 4]], np.float32),
}


def write_flat(path, boxes=BOXES):
    """As a finished cache's data.h5."""
    with h5py.File(path, "w") as file:
        file["boxes"] = np.concatenate(list(boxes.values()))
        file["offsets"] = np.cumsum([0, *map(len, boxes.values())])
        file["image_ids"] = np.array(list(boxes), dtype="S")
    return path


def write_datasets(path):
    with h5py.File(path, "w") as file:
        for image_id, boxes in BOXES.items():
            file[image_id] = boxes
    return path


def write_groups(path, boxes=BOXES):
    with h5py.File(path, "w") as file:
        for image_id, values in boxes.items():
            file[f"{image_id}/boxes"] = values
    return path


def write_npz(path, boxes=BOXES):
    np.savez(path, **boxes)
    return path


def cells(values):
    """A MATLAB cell array: 1 x n, of objects."""
    array = np.empty((1, len(values)), object)
    for number, value in enumerate(values):
        array[0, number] = value
    return array


def write_mat(path, boxes=BOXES):
    """[y1 x1 y2 x2], one-based, inclusive, uint16 as published."""
    corners = [np.round(one[:, [1, 0, 3, 2]] + [1, 1, 0, 0]).astype(np.uint16) for one in boxes.values()]
    scipy.io.savemat(path, {"boxes": cells(corners), "images": cells(list(boxes)).T})
    return path


@pytest.mark.parametrize(
    ("write", "name"),
    [(write_flat, "a.h5"), (write_datasets, "a.hdf5"), (write_groups, "a.h5"), (write_npz, "a.npz")],
)
def test_what_is_written_is_read(tmp_path, write, name):
    file = BoxFile(write(tmp_path / name))
    for image_id, boxes in BOXES.items():
        found = file.boxes(image_id)
        np.testing.assert_array_equal(found, boxes)
        assert found.dtype == np.float32
    with pytest.raises(StageError, match=f"{name}: has no boxes for image 'missing'"):
        file.boxes("missing")


def test_mat_is_one_based_inclusive_rows_first(tmp_path):
    """A box of rows 21 to 50 and columns 11 to 30, counted from one, is (10, 20, 30, 50)."""
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"boxes": cells([[[21, 11, 50, 30]], [[1, 1, 1, 1]]]), "images": cells(["x", "000005"]).T})
    file = BoxFile(path)
    np.testing.assert_array_equal(file.boxes("x"), [[10, 20, 30, 50]])
    np.testing.assert_array_equal(file.boxes("000005"), [[0, 0, 1, 1]])
    np.testing.assert_array_equal(BoxFile(path, "mat-yxyx").boxes("x"), [[10, 20, 30, 50]])
    np.testing.assert_array_equal(BoxFile(path, "xyxy").boxes("x"), [[21, 11, 50, 30]])


@pytest.mark.parametrize("ids", [["000005"], ["000005", "000007"]])
def test_mat_of_one_image_and_of_one_without_boxes(tmp_path, ids):
    file = BoxFile(write_mat(tmp_path / "a.mat", {image_id: BOXES[image_id] for image_id in ids}))
    for image_id in ids:
        np.testing.assert_array_equal(file.boxes(image_id), BOXES[image_id])
    with pytest.raises(StageError, match="no boxes for image 'b'"):
        file.boxes("b")


def test_ids_may_be_numbers(tmp_path):
    """5 is the image "5" or "000005", whichever the dataset has; a number that stands for both is said."""
    flat = tmp_path / "a.h5"
    with h5py.File(flat, "w") as file:
        file["boxes"] = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)
        file["offsets"], file["image_ids"] = [0, 1, 2], [5, 7]
    mat = tmp_path / "a.mat"
    scipy.io.savemat(mat, {"boxes": cells([[[3, 2, 4, 3]], [[7, 6, 8, 7]]]), "images": cells([5.0, 7.0]).T})
    for path in (flat, mat):
        assert BoxFile(path).boxes("000005").tolist() == [[1, 2, 3, 4]]
        file = BoxFile(path)
        assert file.boxes("7").tolist() == [[5, 6, 7, 8]]
        for missing in ("8", "x7", "7.0"):
            with pytest.raises(StageError, match=f"has no boxes for image '{missing}'"):
                file.boxes(missing)
        with pytest.raises(StageError, match="id 7 could be image '7' or '007'; write ids as text"):
            file.boxes("007")
    first = content_sha256(flat)
    with h5py.File(flat, "a") as file:
        file["image_ids"][1] = 8
    assert content_sha256(flat) != first


@pytest.mark.parametrize("ids", [["5", "5"], [5, 5], [0.5, 1], [[1, 2]]])
def test_ids_that_are_no_ids(tmp_path, ids):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["boxes"], file["offsets"] = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32), np.arange(np.size(ids) + 1)
        file["image_ids"] = np.array(ids, "S" if isinstance(ids[0], str) else None)
    with pytest.raises(StageError, match=r"a\.h5: .*(twice|not a list of strings or whole numbers|do not divide)"):
        BoxFile(tmp_path / "a.h5")


def test_npz_may_use_the_other_format(tmp_path):
    np.savez(tmp_path / "a.npz", x=[[21, 11, 50, 30]])
    np.testing.assert_array_equal(BoxFile(tmp_path / "a.npz", "mat-yxyx").boxes("x"), [[10, 20, 30, 50]])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((3, 5)), r"float64 \[3, 5\]; write numbers of shape \[n, 4\]"),
        (np.arange(4.0), r"float64 \[4\]"),
        (np.array([["a", "b", "c", "d"]]), r"shape \[n, 4\]"),
        (np.array([[5, 5, 5, 9]]), "without width or height"),
        (np.array([[9, 5, 5, 9]]), "without width or height"),
        (np.array([[0, 0, np.nan, 9]]), "without width or height"),
        (np.array([[0, 0, np.inf, 9]]), "without width or height"),
        (np.array([None, 3]), "cannot be read"),
    ],
)
def test_what_are_not_boxes_is_said(tmp_path, values, words):
    np.savez(tmp_path / "a.npz", x=values)
    with pytest.raises(StageError, match=words) as error:
        BoxFile(tmp_path / "a.npz").boxes("x")
    assert "a.npz" in str(error.value)
    assert "'x'" in str(error.value)


@pytest.mark.parametrize("name", ["a.h5", "a.npz", "a.mat"])
@pytest.mark.parametrize("content", [b"", b"not a file of boxes at all", b"PK\x03\x04" + bytes(200)])
def test_files_that_are_something_else(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StageError, match=rf"{name}: is not a"):
        BoxFile(tmp_path / name)


@pytest.mark.parametrize(("name", "write"), [("a.h5", write_flat), ("a.npz", write_npz), ("a.mat", write_mat)])
def test_truncated_files_are_said(tmp_path, name, write):
    path = write(tmp_path / name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(StageError, match=name):
        BoxFile(path).boxes("000005")


def test_a_new_mat_must_be_converted(tmp_path):
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    (tmp_path / "a.mat").write_bytes(header.ljust(512, b"\0"))
    with pytest.raises(StageError, match=r"version 7\.3 .*'-v7'"):
        BoxFile(tmp_path / "a.mat")


@pytest.mark.parametrize(
    "content",
    [
        {"boxes": cells([[[1, 1, 2, 2]]])},
        {"boxes": cells([[[1, 1, 2, 2]]]), "images": cells(["a", "b"])},
        {"boxes": np.ones((1, 4)), "images": cells(["a"])},
        {"other": np.ones(3)},
    ],
)
def test_a_mat_without_the_two_cell_arrays(tmp_path, content):
    scipy.io.savemat(tmp_path / "a.mat", content)
    with pytest.raises(StageError, match=r"a\.mat: needs cell arrays 'boxes' and 'images'"):
        BoxFile(tmp_path / "a.mat")


@pytest.mark.parametrize("dtype", ["int64", "uint32", "uint64"])
@pytest.mark.parametrize("offsets", [[0, 2, 2], [0, 2, 2, 4], [1, 2, 2, 3], [0, 3, 2, 3]])
def test_offsets_must_divide_the_boxes(tmp_path, offsets, dtype):
    path = write_flat(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        del file["offsets"]
        file["offsets"] = np.array(offsets, dtype)
    with pytest.raises(StageError, match="'offsets' do not divide"):
        BoxFile(path)


def test_other_endings_and_missing_files(tmp_path):
    (tmp_path / "a.csv").write_text("1,2,3,4")
    with pytest.raises(StageError, match=r"a\.csv: a proposals file must end in"):
        BoxFile(resolve_path(str(tmp_path / "a.csv")))
    with pytest.raises(StageError, match=r"none\.npz: no such proposals file"):
        resolve_path(str(tmp_path / "none.npz"))
    with pytest.raises(StageError, match="file is not set"):
        resolve_path("")
    (tmp_path / "boxes.npz").mkdir()
    with pytest.raises(StageError, match=r"is a folder, not a proposals file; correct propose\.file"):
        resolve_path(str(tmp_path / "boxes.npz"))


@pytest.mark.parametrize("text", ["$RCNN_NOWHERE/boxes.h5", "${RCNN_NOWHERE}/boxes.h5"])
def test_a_variable_that_is_not_set_is_named(monkeypatch, text):
    monkeypatch.delenv("RCNN_NOWHERE", raising=False)
    with pytest.raises(StageError, match=r"boxes\.h5: the environment variable RCNN_NOWHERE is not set; set it, or"):
        resolve_path(text)
    monkeypatch.setenv("RCNN_NOWHERE", "/nowhere")
    with pytest.raises(StageError, match=r"/nowhere/boxes\.h5: no such proposals file"):
        resolve_path(text)


def test_home_and_variables_are_expanded(tmp_path, monkeypatch):
    path = write_npz(tmp_path / "a.npz")
    monkeypatch.setenv("PROPOSALS", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_path("$PROPOSALS/a.npz") == path
    assert resolve_path("~/a.npz") == path


def test_boxes_are_clipped_and_counted():
    boxes = np.array([[-3, 0, 10, 10], [1, 1, 5, 5], [90, 40, 101, 51], [0, 0, 100, 50]], np.float32)
    clipped, cut = fit_to_image(boxes, 100, 50, "a.npz: image 'x'")
    np.testing.assert_array_equal(clipped, [[0, 0, 10, 10], [1, 1, 5, 5], [90, 40, 100, 50], [0, 0, 100, 50]])
    assert cut == 2


@pytest.mark.parametrize("box", [[100, 0, 110, 10], [-9, 0, 0, 10], [0, 50, 5, 60]])
def test_a_box_outside_is_an_error(box):
    with pytest.raises(StageError, match=r"a\.npz: image 'x': box \(.*\) lies outside its image of 100 x 50"):
        fit_to_image(np.array([[0, 0, 5, 5], box], np.float32), 100, 50, "a.npz: image 'x'")


def test_the_checksum_is_of_what_the_file_holds(tmp_path):
    first = content_sha256(write_flat(tmp_path / "a.h5"))
    assert len(first) == 64
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.attrs["note"] = "changes bytes but no boxes"
    assert content_sha256(tmp_path / "a.h5") == first
    changed = {**BOXES, "b": BOXES["b"] + 1}
    assert content_sha256(write_flat(tmp_path / "b.h5", changed)) != first
    renamed = {"c" if image_id == "b" else image_id: boxes for image_id, boxes in BOXES.items()}
    assert content_sha256(write_flat(tmp_path / "c.h5", renamed)) != first
    (tmp_path / "a.npz").write_bytes(b"abc")
    assert content_sha256(tmp_path / "a.npz") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# Boxes that lie in other files, and files that change


def write_boxes(path, boxes, name="boxes"):
    with h5py.File(path, "w") as file:
        file[name] = np.asarray(boxes, np.float32)
    return path


def test_links_into_other_files_are_refused_where_the_key_is_of_the_bytes(tmp_path):
    write_boxes(tmp_path / "elsewhere.h5", [[0, 0, 5, 5]])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["y"] = np.array([[1, 1, 2, 2]], np.float32)
        file["group/x"] = h5py.ExternalLink("elsewhere.h5", "boxes")
    for read in (content_sha256, BoxFile):
        with pytest.raises(StageError, match=r"a\.h5: 'group/x' is a link to another file"):
            read(tmp_path / "a.h5")


@pytest.mark.parametrize("kind", ["virtual", "external"])
def test_arrays_that_lie_in_other_files_are_refused(tmp_path, kind):
    write_boxes(tmp_path / "elsewhere.h5", [[0, 0, 5, 5]])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        if kind == "virtual":
            layout = h5py.VirtualLayout((1, 4), "f4")
            layout[:] = h5py.VirtualSource("elsewhere.h5", "boxes", (1, 4), "f4")
            file.create_virtual_dataset("x", layout)
        else:
            np.array([[0, 0, 5, 5]], np.float32).tofile(tmp_path / "raw")
            file.create_dataset("x", (1, 4), "f4", external=[(str(tmp_path / "raw"), 0, 16)])
    with pytest.raises(StageError, match=r"the boxes of image 'x' are stored in another file"):
        BoxFile(tmp_path / "a.h5").boxes("x")


def write_view(path, part):
    """A flat file whose boxes are a view of those in `part`."""
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((2, 4), "f4")
        layout[:] = h5py.VirtualSource(part.name, "boxes", (2, 4), "f4")
        file.create_virtual_dataset("boxes", layout)
        file["offsets"], file["image_ids"] = [0, 1, 2], ["x", "y"]
    return path


def test_the_checksum_of_a_view_is_of_the_boxes_that_it_shows(tmp_path):
    part = write_boxes(tmp_path / "part.h5", [[0, 0, 5, 5], [1, 1, 4, 4]])
    view = write_view(tmp_path / "view.h5", part)
    before = content_sha256(view)
    np.testing.assert_array_equal(BoxFile(view, sha256=before).boxes("y"), [[1, 1, 4, 4]])
    write_boxes(part, [[0, 0, 5, 5], [2, 2, 4, 4]])
    assert content_sha256(view) != before
    with pytest.raises(ChangedInput, match=r"view\.h5"):
        BoxFile(view, sha256=before)
    part.unlink()
    for read in (content_sha256, BoxFile):
        with pytest.raises(StageError, match=r"'boxes' is a view of 'boxes' in part\.h5, which is missing"):
            read(view)


FORMATS = [(write_flat, "a.h5"), (write_groups, "a.h5"), (write_npz, "a.npz"), (write_mat, "a.mat")]


@pytest.mark.parametrize(("write", "name"), FORMATS)
def test_the_checksum_of_a_file_is_remembered_until_it_changes(tmp_path, monkeypatch, write, name):
    monkeypatch.setattr("stages.datasets.digests.SETTLED_NS", 0)
    path, work = write(tmp_path / name), tmp_path / "work"
    sha256 = content_sha256(path)
    time.sleep(0.02)  # longer than a tick of the file system's clock
    assert content_sha256(path, work) == sha256
    with monkeypatch.context() as patched:
        patched.setattr("stages.propose.box_file.Source.sha256", lambda _: pytest.fail("read again"))
        patched.setattr("stages.propose.box_file.flat_digests", lambda *_, **__: pytest.fail("read again"))
        assert content_sha256(path, work) == sha256
        patched.setenv("RCNN_CHECK_CONTENT", "1")
        with pytest.raises(pytest.fail.Exception, match="read again"):
            content_sha256(path, work)
    changed = write(path, {image_id: boxes + 1 for image_id, boxes in BOXES.items()})
    assert content_sha256(changed, work) == content_sha256(changed) != sha256


def test_the_checksum_of_a_view_or_of_a_file_just_written_is_not_remembered(tmp_path, monkeypatch):
    flat, work = write_flat(tmp_path / "a.h5"), tmp_path / "work"
    content_sha256(flat, work)
    monkeypatch.setattr("stages.datasets.digests.SETTLED_NS", 0)
    time.sleep(0.02)
    with h5py.File(tmp_path / "linked.h5", "w") as file:
        for name in ("boxes", "offsets", "image_ids"):
            file[name] = h5py.ExternalLink("a.h5", name)
    view = write_view(tmp_path / "view.h5", write_boxes(tmp_path / "part.h5", [[0, 0, 5, 5], [1, 1, 4, 4]]))
    for path in (tmp_path / "linked.h5", view):
        content_sha256(path, work)
    assert not work.exists()


@pytest.mark.parametrize(("write", "name"), FORMATS)
def test_a_file_that_was_replaced_is_not_read(tmp_path, write, name):
    path = write(tmp_path / name)
    sha256 = content_sha256(path)
    moved = {image_id: boxes + 1 for image_id, boxes in BOXES.items()}
    write(path, moved)
    with pytest.raises(ChangedInput, match=rf"{name}: changed while"):
        BoxFile(path, sha256=sha256)
    write(path)
    np.testing.assert_array_equal(BoxFile(path, "auto", content_sha256(path)).boxes("000005"), BOXES["000005"])


@pytest.mark.parametrize(("write", "name"), FORMATS)
@pytest.mark.parametrize("put_back", [False, True])
def test_a_file_that_is_overwritten_while_it_is_open_gives_no_other_boxes(tmp_path, write, name, put_back):
    """Either the boxes of the key (a .mat is in memory, a flat file's boxes are compared) or a sentence."""
    path = write(tmp_path / name)
    original, opened = path.read_bytes(), BoxFile(path, sha256=content_sha256(path))
    expected = {image_id: BoxFile(path).boxes(image_id) for image_id in BOXES}
    moved = {image_id: boxes + 1 for image_id, boxes in BOXES.items()}
    other = write(tmp_path / f"other-{name}", moved).read_bytes()
    time.sleep(0.02)  # longer than a tick of the file system's clock
    with path.open("r+b") as file:  # in place, as cp does
        file.write(other)
    if put_back:
        with path.open("r+b") as file:
            file.write(original)
    for image_id, boxes in expected.items():
        try:
            found = opened.boxes(image_id)
        except ChangedInput:
            continue
        np.testing.assert_array_equal(found, boxes)


def test_digests_of_images_do_not_depend_on_blocks(tmp_path, monkeypatch):
    path = write_flat(tmp_path / "a.h5", {"none": BOXES["000007"], **BOXES, "last": BOXES["000007"]})
    whole = content_sha256(path)
    for block in (1, 2, 3):
        monkeypatch.setattr("stages.propose.box_file.BLOCK", block)
        file = BoxFile(path, sha256=whole)
        for image_id, boxes in BOXES.items():
            np.testing.assert_array_equal(file.boxes(image_id), boxes)
        assert len(file.boxes("last")) == len(file.boxes("none")) == 0


def test_fractions_of_the_image_are_no_boxes(tmp_path):
    path = write_npz(
        tmp_path / "a.npz", {"a": np.array([[0, 0, 1, 1], [0.25, 0.5, 0.75, 1]]), "b": np.ones((1, 4)) * 3}
    )
    with pytest.raises(StageError, match=r"a\.npz: the boxes of image 'a' .* between 0 and 1 only; write pixels"):
        BoxFile(path).boxes("a")
