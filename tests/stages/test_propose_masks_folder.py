"""Regions with masks from a folder of CPMC's .mat files: order, boxes, keys, and what is refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from stages.contract.errors import BadSetting, ChangedInput, StageError
from stages.masks import decode, encode
from stages.propose import Settings
from stages.propose.box_file import open_boxes
from stages.propose.mask_folder import MaskFile, MaskFolder, folder_sha256
from stages.propose.methods import METHODS

SIZE = (5, 4)


def regions() -> np.ndarray:
    """Three masks [H, W, n], of which the first two have the same box."""
    masks = np.zeros((4, 5, 3), bool)
    masks[1:3, 1:4, 0] = True
    masks[1:3, 1:4, 1] = True
    masks[1, 2, 1] = False
    masks[3, 4, 2] = True
    return masks


def mat(**content: object) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, content)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cpmc/more").mkdir(parents=True)
    scipy.io.savemat(tmp_path / "cpmc/a.mat", {"masks": regions(), "scores": np.arange(3.0)})
    scipy.io.savemat(tmp_path / "cpmc/more/b.mat", {"masks": regions()[:, :, ::-1]}, do_compression=True)
    return tmp_path / "cpmc"


def file_of(folder: Path, image_id: str = "a") -> MaskFile:
    return MaskFolder(folder).file(image_id)


def test_regions_are_kept_in_the_files_order_with_the_boxes_around_them(folder: Path) -> None:
    proposals = file_of(folder).proposals(SIZE)
    assert proposals.boxes.dtype == np.float32
    assert proposals.boxes.tolist() == [[1, 1, 4, 3], [1, 1, 4, 3], [4, 3, 5, 4]]
    columns = proposals.take(np.array([1, 2])).columns()
    assert columns["searched_size"].tolist() == list(SIZE)
    ends = [0, *columns["mask_end"].tolist()]
    for number, (start, end) in enumerate(pairwise(ends), 1):
        kept = decode(columns["masks/counts"][start:end], SIZE)
        assert kept.tolist() == regions()[:, :, number].tolist()
    reverse = file_of(folder, "more/b").proposals(SIZE)
    assert reverse.boxes.tolist() == [[4, 3, 5, 4], [1, 1, 4, 3], [1, 1, 4, 3]]
    assert reverse.columns()["masks/counts"][:2].tolist() == encode(regions()[:, :, 2])[:2].tolist()


def test_one_mask_has_no_third_axis_in_matlab(folder: Path) -> None:
    (folder / "a.mat").write_bytes(mat(masks=regions()[:, :, 0]))
    assert file_of(folder).proposals(SIZE).boxes.tolist() == [[1, 1, 4, 3]]


@pytest.mark.parametrize("shape", [(0, 0), (4, 5, 0)])
def test_an_image_may_have_none(folder: Path, shape: tuple[int, ...]) -> None:
    (folder / "a.mat").write_bytes(mat(masks=np.zeros(shape, bool)))
    proposals = file_of(folder).proposals(SIZE)
    assert proposals.boxes.shape == (0, 4)
    assert len(proposals.columns()["mask_end"]) == 0


def test_the_key_is_the_content_of_all_files(folder: Path, tmp_path: Path) -> None:
    settings = Settings(method="file", file=str(folder))
    key = METHODS["file"].key(settings, tmp_path / "work")
    assert key == METHODS["file"].key(settings, None) == {"file_sha256": folder_sha256(folder)}
    folder.rename(tmp_path / "elsewhere")
    assert folder_sha256(tmp_path / "elsewhere", tmp_path / "work") == key["file_sha256"]
    (tmp_path / "elsewhere").rename(folder)
    (folder / "more/b.mat").write_bytes(mat(masks=regions()))
    assert folder_sha256(folder, tmp_path / "work") != key["file_sha256"]
    with pytest.raises(ChangedInput):
        open_boxes(settings, key)


def test_a_file_that_changes_meanwhile(folder: Path) -> None:
    file = file_of(folder)
    (folder / "a.mat").write_bytes(mat(masks=regions()[:, :, :2]))
    with pytest.raises(ChangedInput):
        file.proposals(SIZE)


def test_settings_say_whether_masks_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGIONS", str(folder))
    monkeypatch.setenv("BOXES", "boxes.npz")
    assert Settings(method="file", file="$REGIONS").keeps_masks
    assert not Settings(method="file", file="$BOXES").keeps_masks
    assert not Settings(method="file", file="a.MAT").keeps_masks
    assert not Settings(method="file").keeps_masks
    with pytest.raises(BadSetting, match="box_format = 'xyxy' is for files of boxes"):
        Settings(method="file", file=str(folder), box_format="xyxy")


def without_pixels() -> np.ndarray:
    masks = regions()
    masks[:, :, 1] = False
    return masks


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda good: b"", r"is not a complete \.mat file"),
        (lambda good: good[: len(good) // 2], r"is not a complete \.mat file"),
        (lambda good: b"MATLAB 7.3" + good, r"is a version 7\.3 \.mat file; convert it"),
        (lambda good: mat(other=regions()), r"has no logical array 'masks' of shape \[H, W, n\]"),
        (lambda good: mat(masks=regions().astype(float)), "has no logical array 'masks'"),
        (lambda good: mat(masks="text"), "has no logical array 'masks'"),
        (lambda good: mat(masks=regions()[:, :, :, None].repeat(2, axis=3)), "has no logical array 'masks'"),
        (lambda good: mat(masks=regions()[:, :4]), "its masks have 4 x 4 pixels but the image has 5 x 4"),
        (lambda good: mat(masks=without_pixels()), "mask 2 of 3 has no pixels; leave it out"),
    ],
)
def test_hostile_files(folder: Path, change: Callable[[bytes], bytes], message: str) -> None:
    path = folder / "a.mat"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(StageError, match=rf"a\.mat: {message}"):
        file_of(folder).proposals(SIZE)


def test_folders_without_an_images_file_or_any(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"has no c\.mat with the masks of image 'c'; add it"):
        file_of(folder, "c")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StageError, match=r"empty: contains no \.mat files"):
        METHODS["file"].key(Settings(method="file", file=str(tmp_path / "empty")), tmp_path)
    with pytest.raises(StageError, match=r"nowhere: no such proposals file; correct propose\.file"):
        METHODS["file"].key(Settings(method="file", file=str(tmp_path / "nowhere")), tmp_path)
