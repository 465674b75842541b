"""The generated sets: the same from the same seed, true to their own annotations, and in the devkit's layout."""

from __future__ import annotations

import logging
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.contract.errors import BadSetting
from stages.datasets import BadDataset, ImageRecord, open_classification, open_detection
from stages.datasets.check import check_dataset
from stages.datasets.materialise import materialised
from stages.datasets.shapes import (
    SHAPES,
    SHAPES_CLASSIFICATION,
    TINY,
    ClassificationSettings,
    ShapesOptions,
    ShapesSettings,
    Thing,
    described,
    draw_classification,
    draw_scene,
    draw_shapes,
    draw_single,
    generator,
    own,
    settings_for,
)
from stages.datasets.silhouettes import CLASSIFICATION, DETECTION, placed, rasterise
from stages.datasets.textures import paint, windows
from stages.datasets.voc_writer import presence

SMALL = ShapesSettings(seed=5, train=6, val=3, test=4)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes") / "VOC2030"
    draw_shapes(folder, SMALL)
    return folder


@pytest.fixture(scope="module")
def many() -> list[ImageRecord]:
    """The records of 100 training scenes."""
    import tempfile

    with tempfile.TemporaryDirectory() as work:
        dataset = open_detection("shapes:train", work=Path(work), options={"images": 100})
        assert check_dataset(dataset).problems == []
        return [dataset.record(image_id) for image_id in dataset.image_ids]


# Determinism


def test_the_same_seed_gives_the_same_files(small: Path, tmp_path: Path) -> None:
    draw_shapes(tmp_path / "VOC2030", SMALL)
    assert contents(tmp_path / "VOC2030") == contents(small)


def test_another_seed_gives_other_images(small: Path, tmp_path: Path) -> None:
    draw_shapes(tmp_path, replace(SMALL, seed=6))
    ours, theirs = contents(small), contents(tmp_path)
    assert ours.keys() == theirs.keys()
    assert all(ours[name] != theirs[name] for name in ours if name.endswith(".jpg"))


def test_an_image_does_not_depend_on_how_many_are_drawn(small: Path, tmp_path: Path) -> None:
    draw_shapes(tmp_path / "VOC2030", ShapesSettings(seed=5, train=2, val=0, test=1))
    few, all_of_them = contents(tmp_path / "VOC2030"), contents(small)
    images = [name for name in few if not name.startswith("ImageSets")]
    assert len(images) == 6
    assert all(few[name] == all_of_them[name] for name in images)
    assert "ImageSets/Main/val.txt" not in few


def test_no_image_is_in_two_splits(small: Path) -> None:
    images = [path.read_bytes() for path in (small / "JPEGImages").iterdir()]
    assert len(set(images)) == 13


def test_the_drawing_itself_has_not_changed() -> None:
    """Raise VERSION whenever this must be changed, so that sets drawn before are not mistaken for new ones."""
    scene = draw_scene(generator(0, "train", 0))
    assert scene.pixels.shape == GOLDEN_SHAPE
    assert [(one.name, one.box) for one in scene.objects] == GOLDEN_OBJECTS


GOLDEN_SHAPE = (234, 156, 3)
GOLDEN_OBJECTS = [("arrow", (5, 165, 48, 195)), ("cross", (69, 95, 93, 123)), ("triangle", (36, 85, 64, 112))]


# The devkit's layout


def test_the_set_opens_like_any_voc_folder(small: Path, tmp_path: Path) -> None:
    dataset = open_detection(f"voc:{small.parent}:trainval", work=tmp_path)
    assert dataset.image_ids == (*(f"train_{k:05d}" for k in range(6)), *(f"val_{k:05d}" for k in range(3)))
    assert set(dataset.classes) <= set(SHAPES)
    assert check_dataset(dataset).problems == []


def test_each_class_has_its_image_set_with_the_devkits_marks(small: Path, tmp_path: Path) -> None:
    dataset = open_detection(f"voc:{small}:test", work=tmp_path, options={"classes": list(SHAPES)})
    for label, name in enumerate(SHAPES):
        lines = (small / "ImageSets" / "Main" / f"{name}_test.txt").read_text().splitlines()
        marks = {line.split()[0]: int(line.split()[1]) for line in lines}
        assert list(marks) == list(dataset.image_ids)
        for image_id, mark in marks.items():
            record = dataset.record(image_id)
            difficult = record.difficult[record.labels == label]
            assert mark == (-1 if not len(difficult) else 0 if difficult.all() else 1)


def test_presence_by_hand() -> None:
    easy = described(np.zeros((40, 40), np.int16), 0, Thing("disc", np.full((40, 40), 255, np.uint8), (0, 0), ""))
    hard = replace(easy, difficult=True)
    assert [presence(one, "disc") for one in ([], [hard], [hard, easy])] == [-1, 0, 1]
    assert presence([easy], "ring") == -1


# Scenes


def test_there_is_variety_in_class_size_and_flags(many: list[ImageRecord]) -> None:
    labels = np.concatenate([record.labels for record in many])
    boxes = np.concatenate([record.boxes for record in many])
    sides = (boxes[:, 2:] - boxes[:, :2]).max(1)
    assert len(SHAPES) >= 8
    assert np.bincount(labels, minlength=len(SHAPES)).min() >= 10
    assert sides.min() < 30
    assert sides.max() > 110
    for flag, low, high in (("difficult", 0.02, 0.15), ("truncated", 0.05, 0.3), ("occluded", 0.05, 0.3)):
        share = np.concatenate([getattr(record, flag) for record in many]).mean()
        assert low < share < high, flag
    assert {len(record.boxes) for record in many} >= {1, 2, 3, 4}
    assert len({(record.width, record.height) for record in many}) > 50
    assert {pose for record in many for pose in record.pose} == {"Left", "Right", "Frontal"}


def test_tiny_objects_are_difficult_and_truncated_ones_touch_the_border(many: list[ImageRecord]) -> None:
    for record in many:
        sides = (record.boxes[:, 2:] - record.boxes[:, :2]).min(1)
        assert record.difficult[sides < TINY].all()
        right, bottom = record.boxes[:, 2] >= record.width, record.boxes[:, 3] >= record.height
        touching = (record.boxes[:, :2] <= 0).any(1) | right | bottom
        assert touching[record.truncated].all()


def square(side: int, at: tuple[int, int]) -> Thing:
    return Thing("square", np.full((side, side), 255, np.uint8), at, "Frontal")


def test_a_box_covers_what_can_be_seen_and_the_flags_say_what_cannot() -> None:
    owner = np.full((100, 100), -1, np.int16)
    things = [square(40, (-10, 20)), square(40, (50, 20)), square(40, (50, 30)), square(10, (80, 90))]
    for number, thing in enumerate(things):
        own(owner, thing, number)
    cut, hidden, whole, tiny = (described(owner, number, thing) for number, thing in enumerate(things))
    assert cut.box == (0, 20, 30, 60)
    assert (cut.truncated, cut.occluded, cut.difficult) == (True, False, False)
    assert hidden.box == (50, 20, 90, 30)
    assert (hidden.truncated, hidden.occluded, hidden.difficult) == (False, True, True)
    assert whole.box == (50, 30, 90, 70)
    assert (whole.truncated, whole.occluded, whole.difficult) == (False, False, False)
    assert tiny.difficult


def test_boxes_are_tight_around_the_drawn_colours() -> None:
    """Where an object is whole and alone, pixels of its colour reach all four sides of its box, give or take one."""
    margins = []
    for index in range(20):
        scene = draw_scene(generator(1, "test", index))
        for one in scene.objects:
            if one.name in ("square", "disc") and not (one.occluded or one.truncated or one.difficult):
                x1, y1, x2, y2 = one.box
                middle = scene.pixels[(y1 + y2) // 2, (x1 + x2) // 2].astype(int)
                inside = (np.abs(scene.pixels.astype(int) - middle).max(2) < 60)[y1:y2, x1:x2]
                for along in (0, 1):
                    reached = np.flatnonzero(inside.mean(1 - along) > 0.02)
                    margins += [reached[0], inside.shape[along] - 1 - reached[-1]]
    assert len(margins) >= 40
    assert max(margins) <= 1


# Silhouettes


@pytest.mark.parametrize("name", [*DETECTION, *CLASSIFICATION])
def test_every_silhouette_is_centred_and_of_unit_size(name: str) -> None:
    outline = ({**DETECTION, **CLASSIFICATION})[name](np.random.default_rng(0))
    mask, offset = rasterise(placed(outline, (50, 50), 0, False))
    rows, columns = np.nonzero(mask >= 128)
    assert 60 <= max(np.ptp(rows), np.ptp(columns)) <= 106
    assert abs(columns.mean() + offset[0]) < 25
    assert abs(rows.mean() + offset[1]) < 25
    assert (mask >= 128).sum() > 1000


def test_no_class_is_in_both_sets() -> None:
    assert not set(SHAPES) & set(SHAPES_CLASSIFICATION)
    assert len(SHAPES_CLASSIFICATION) >= 12


def test_a_hole_is_a_hole_and_edges_are_smooth() -> None:
    mask, offset = rasterise(placed(DETECTION["ring"](np.random.default_rng(0)), (40, 40), 0, False))
    x, y = (-int(value) for value in offset)
    assert mask[y, x] == 0
    assert mask[y, 5] == 255
    assert ((mask > 0) & (mask < 255)).sum() > 50
    area = (mask / 255).sum()
    assert area < np.pi * 40**2 * (1 - 0.48**2) * 1.03


def test_placing_flips_stretches_and_turns() -> None:
    corner = [np.array([[1.0, 0.0], [0.0, 1.0]])]
    np.testing.assert_allclose(placed(corner, (3, 2), 0, True)[0], [[-3, 0], [0, 2]], atol=1e-12)
    np.testing.assert_allclose(placed(corner, (3, 2), np.pi / 2, False)[0], [[0, 3], [-2, 0]], atol=1e-12)


def test_painting_is_clipped_at_every_border() -> None:
    for at in ((-3, -3), (8, 8), (-30, 2), (4, 40), (3, 3)):
        canvas = np.zeros((10, 12, 3), np.float32)
        mask = np.full((6, 6), 255, np.uint8)
        paint(canvas, mask, at, np.full((6, 6, 3), 9, np.float32))
        expected = np.zeros((10, 12), bool)
        for y in range(10):
            for x in range(12):
                expected[y, x] = at[0] <= x < at[0] + 6 and at[1] <= y < at[1] + 6
        np.testing.assert_array_equal(canvas[:, :, 0] == 9, expected)
    assert windows((10, 12), (6, 6), (-3, 8)) == (
        (slice(8, 10), slice(0, 3)),
        (slice(0, 2), slice(3, 6)),
    )


# Materialising


def test_it_is_drawn_once_and_said_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "stages.datasets")
    first = open_detection("shapes:val", work=tmp_path, options={"images": 3, "seed": 2})
    assert first.name == "shapes-val"
    assert first.classes == SHAPES
    assert len(first) == 3
    assert caplog.text.count("drawing shapes") == 1
    again = open_detection("shapes:val", work=tmp_path, options={"images": 3, "seed": 2})
    assert caplog.text.count("drawing shapes") == 1
    assert again.key == first.key
    other = open_detection("shapes:val", work=tmp_path, options={"images": 3, "seed": 3})
    assert other.folder != first.folder
    assert other.key != first.key
    assert [path for path in (tmp_path / "datasets").iterdir() if path.name.startswith(".")] == []


def test_fewer_images_are_the_first_of_more(tmp_path: Path) -> None:
    few = open_detection("shapes:test", work=tmp_path, options={"images": 2})
    more = open_detection("shapes:test", work=tmp_path, options={"images": 3})
    assert more.image_ids[:2] == few.image_ids
    for image_id in few.image_ids:
        assert few.image_path(image_id).read_bytes() == more.image_path(image_id).read_bytes()


def test_the_counts_that_options_give() -> None:
    assert settings_for("train", ShapesOptions()) == ShapesSettings(0, 200, 100, 100)
    assert settings_for("test", ShapesOptions(seed=4, images=7)) == ShapesSettings(4, 0, 0, 7)
    assert settings_for("trainval", ShapesOptions(images=10)) == ShapesSettings(0, 7, 3, 0)


def test_unknown_splits_and_bad_options(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="shapes:trian: there is no such split"):
        open_detection("shapes:trian", work=tmp_path)
    with pytest.raises(BadDataset, match="it may be train or val"):
        open_classification("shapes-classification:test", work=tmp_path)
    with pytest.raises(BadSetting, match="images = 0 must be at least 1"):
        open_detection("shapes:train", work=tmp_path, options={"images": 0})


def open_shapes_test(work: Path) -> str:
    return open_detection("shapes:test", work=work, options={"images": 5}).key


def test_processes_that_draw_at_once_do_not_harm_each_other(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        keys = pool.map(open_shapes_test, [tmp_path] * 4, chunksize=1)
    assert len(set(keys)) == 1
    assert len(list((tmp_path / "datasets").iterdir())) == 1


def test_a_drawing_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def broken(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(BadDataset, match="No space left on device"):
        materialised("broken", {"seed": 1}, tmp_path, broken)
    assert list((tmp_path / "datasets").iterdir()) == []


# The classification set


def test_the_classification_set_is_deterministic_and_balanced(tmp_path: Path) -> None:
    settings = ClassificationSettings(per_class=2, side=32)
    draw_classification(tmp_path / "a", "train", settings)
    draw_classification(tmp_path / "b", "train", settings)
    draw_classification(tmp_path / "c", "val", settings)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert not set(contents(tmp_path / "a").values()) & set(contents(tmp_path / "c").values())
    dataset = open_classification("shapes-classification:train", work=tmp_path, options={"per_class": 2, "side": 32})
    assert dataset.name == "shapes-classification-train"
    assert dataset.classes == SHAPES_CLASSIFICATION
    assert np.bincount(dataset.labels).tolist() == [2] * len(SHAPES_CLASSIFICATION)
    with Image.open(dataset.image_path("pie/00001.jpg")) as image:
        assert image.size == (32, 32)
    for image_id in dataset.image_ids:
        assert dataset.image_path(image_id).read_bytes() == (tmp_path / "a" / image_id).read_bytes()


@pytest.mark.parametrize("name", SHAPES_CLASSIFICATION)
def test_a_single_object_stands_out_in_the_middle(name: str) -> None:
    """Over 20 images the middle of a picture differs more from the corners than the corners do from each other."""
    images = [draw_single(generator(3, name, index), name, 64).astype(float) for index in range(20)]
    corners = [np.stack([one[:8, :8], one[:8, -8:], one[-8:, :8], one[-8:, -8:]]).mean((1, 2)) for one in images]
    insides = [one[22:42, 22:42].reshape(-1, 3) for one in images]
    away = [
        np.linalg.norm(inside - corner.mean(0), axis=1).max() for inside, corner in zip(insides, corners, strict=True)
    ]
    spread = [np.linalg.norm(corner - corner.mean(0), axis=1).max() for corner in corners]
    assert np.median(away) > 2 * np.median(spread)


def names_in(source: str, work: Path, **options: object) -> list[str]:
    dataset = open_detection(source, work=work, options=options)
    labels = np.concatenate([dataset.record(image_id).labels for image_id in dataset.image_ids])
    return [dataset.classes[label] for label in labels]


def test_a_long_tail_is_as_long_as_asked(tmp_path: Path) -> None:
    names = names_in("shapes:train", tmp_path, images=120, long_tail=50)
    counts = [names.count(name) for name in SHAPES]
    assert counts[0] > 10 * max(1, counts[-1])
    assert counts[0] == max(counts)
    assert sum(counts[:4]) > 4 * sum(counts[4:])


def test_a_set_without_a_tail_is_drawn_as_ever(small: Path, tmp_path: Path) -> None:
    draw_shapes(tmp_path / "again", SMALL, long_tail=1.0)
    assert contents(tmp_path / "again") == contents(small)


def test_images_collected_for_a_class_annotate_that_class_alone(tmp_path: Path) -> None:
    few = open_detection("shapes:collected", work=tmp_path, options={"per_class": 2, "long_tail": 9})
    assert check_dataset(few).problems == []
    assert few.images_not_exhaustive == set(few.image_ids)
    assert len(few) == 2 * len(SHAPES)
    for number, image_id in enumerate(few.image_ids):
        assert {few.classes[label] for label in few.record(image_id).labels} <= {SHAPES[number % len(SHAPES)]}
    more = open_detection("shapes:collected", work=tmp_path, options={"per_class": 3, "long_tail": 9})
    assert [more.image_digest(image_id) for image_id in few.image_ids] == [
        few.image_digest(image_id) for image_id in few.image_ids
    ]


def test_options_of_both_kinds_of_shapes_go_to_those_that_have_them(tmp_path: Path) -> None:
    both = open_detection(
        ["shapes:train", "shapes:collected"], work=tmp_path, options={"images": 3, "per_class": 1, "long_tail": 4}
    )
    assert len(both) == 3 + len(SHAPES)
    assert len(both.images_not_exhaustive) == len(SHAPES)
    with pytest.raises(BadSetting, match="unknown setting 'per_class'"):
        open_detection("shapes:train", work=tmp_path, options={"per_class": 1})
