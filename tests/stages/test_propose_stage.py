"""The stage as a whole: images in, a cache out, whatever the number of processes, parts and interruptions."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pycocotools.mask
import pytest
from PIL import Image

from cache import CacheError, Identity, Reader, Writer
from stages.contract.errors import BadImage, BadSetting, StageError
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs
from stages.contract.settings import build_settings, identity_of
from stages.datasets import Dataset
from stages.datasets.digests import DigestMemory
from stages.images.reading import ImageFile
from stages.masks import read_mask, run_lengths
from stages.matching.proposals import proposal_recall, recall
from stages.propose import STAGE, Settings, selective_search, selective_search_opencv, stage
from stages.propose.masks import all_boxes, encode_regions
from stages.propose.methods import METHODS
from stages.propose.searched_image import searched_size
from stages.propose.selection import canonical_boxes, content_of, rows_by_position, rows_by_size
from tests.stages.drawn_photos import photo

SMALL = Settings(resize_width=80, min_side=8)
MASKED = replace(SMALL, masks=True)
OPENCV = replace(SMALL, method="selective-search-opencv")
EDGES = Settings(method="edge-boxes", min_box_area=100.0)


def textured(seed, width=80, height=60):
    """Noise with a bright rectangle, uint8 RGB."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 80, (height, width, 3), dtype=np.uint8)
    image[10:40, 20 + seed : 60] += 150
    return image


class Pictures(Dataset):
    """As much of a dataset as the stage asks for."""

    def __init__(self, folder, images):
        self.folder = folder
        self._files = DigestMemory(folder, folder / "digests.json")
        self.image_ids = tuple(images)
        for image_id, image in images.items():
            Image.fromarray(image).save(self.image_path(image_id))

    def image_path(self, image_id):
        return self.folder / f"{image_id}.png"


@pytest.fixture
def pictures(tmp_path):
    return Pictures(tmp_path, {f"{number:06}": textured(number) for number in range(5)})


def propose(dataset, settings, folder, part_size=2, **how):
    """Runs the stage as the command line does."""
    inputs = Inputs({"images": dataset})
    settings_json = {**identity_of(settings), **stage.identity(settings, inputs)}
    identity = Identity("propose", STAGE.schema_version, settings_json, {"images": "given"})
    item_ids, schema = stage.items(settings, inputs), stage.schema(settings, inputs)
    output = Writer(folder, identity, item_ids, schema, part_size=part_size)
    try:
        stage.run(settings, inputs, output, Execution(**how))
    finally:
        output.release()
    output.finish({}, lambda reader: stage.summarise(settings, inputs, reader))
    return Reader(folder)


def content(reader):
    return {
        image_id: {name: array.tobytes() for name, array in record.items()} for image_id, record in reader.records()
    }


@pytest.mark.parametrize("settings", [SMALL, MASKED, EDGES])
def test_jobs_and_parts_do_not_matter(pictures, tmp_path, settings):
    one = propose(pictures, settings, tmp_path / "one")
    assert content(propose(pictures, settings, tmp_path / "two", part_size=3, jobs=2)) == content(one)
    assert list(content(one)) == list(pictures.image_ids)
    assert min(one.lengths()) > 3
    for image_id in pictures.image_ids:
        np.testing.assert_array_equal(one.read(image_id)["image_size"], [80, 60])


def test_an_interrupted_run_goes_on(pictures, tmp_path, monkeypatch):
    whole = propose(pictures, MASKED, tmp_path / "whole")
    attempt = stage.attempt

    def stop_at_the_fourth(settings, task, skip):
        if task.image_id == "000003":
            raise KeyboardInterrupt
        return attempt(settings, task, skip)

    monkeypatch.setattr(stage, "attempt", stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        propose(pictures, MASKED, tmp_path / "cut")
    asked = []

    def remembering(settings, task, skip):
        asked.append(task.image_id)
        return attempt(settings, task, skip)

    monkeypatch.setattr(stage, "attempt", remembering)
    assert content(propose(pictures, MASKED, tmp_path / "cut")) == content(whole)
    assert asked == ["000002", "000003", "000004"]


@pytest.mark.parametrize("settings", [SMALL, MASKED, EDGES, Settings(method="sliding-window", max_boxes=7, seed=3)])
def test_on_demand_is_what_the_cache_holds(pictures, tmp_path, settings):
    """Also from another process (pickled), in any order."""
    cached = propose(pictures, settings, tmp_path / "cached")
    expected = content(cached)
    source = pickle.loads(pickle.dumps(stage.on_demand(settings, Inputs({"images": pictures}), Execution())))
    assert source.item_ids == pictures.image_ids
    assert source.schema == cached.schema
    for image_id in reversed(source.item_ids):
        assert {name: values.tobytes() for name, values in source.read(image_id).items()} == expected[image_id]
    assert list(source.read("000001", ["boxes"])) == ["boxes"]
    assert source.manifest["skipped"] == {}


def test_a_bad_image_on_demand_stops_or_has_no_proposals(pictures):
    pictures.image_path("000001").write_text("no picture")
    inputs = Inputs({"images": pictures})
    with pytest.raises(BadImage, match=r"000001\.png: is not an image"):
        stage.on_demand(SMALL, inputs, Execution()).read("000001")
    source = stage.on_demand(SMALL, inputs, Execution(skip_bad_images=True))
    assert source.read("000001")["boxes"].shape == (0, 4)
    assert len(source.read("000002")["boxes"]) > 3
    assert source.manifest["skipped"] == {"000001": "is not an image in a known format"}


def test_a_file_of_boxes_has_none_on_demand(pictures):
    with pytest.raises(BadSetting, match=r"^method = 'file' has boxes only for the images that the file lists"):
        stage.on_demand(Settings(method="file", file="boxes.npz"), Inputs({"images": pictures}), Execution())


def test_a_smaller_limit_keeps_the_beginning(pictures, tmp_path):
    everything = propose(pictures, SMALL, tmp_path / "all")
    few = propose(pictures, replace(SMALL, max_boxes=3), tmp_path / "few")
    for image_id in pictures.image_ids:
        np.testing.assert_array_equal(few.read(image_id)["boxes"], everything.read(image_id)["boxes"][:3])
    assert few.manifest["summary"] == {
        "images": 5,
        "boxes": 15,
        "boxes_per_image": 3.0,
        "images_without_boxes": 0,
        "order": METHODS["selective-search"].order,
    }


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_ranking_keeps_its_scores_in_order_and_its_limit_the_best(pictures, tmp_path, jobs):
    pictures.image_path("000002").write_text("not an image")
    everything = propose(pictures, EDGES, tmp_path / "all", jobs=jobs, skip_bad_images=True)
    assert everything.manifest["summary"]["order"] == "a ranking by score"
    few = propose(pictures, replace(EDGES, max_boxes=3), tmp_path / "few", part_size=3, skip_bad_images=True)
    for image_id in pictures.image_ids:
        record = everything.read(image_id)
        assert record["scores"].shape == record["boxes"].shape[:1]
        assert (np.diff(record["scores"]) <= 0).all()
        assert (len(record["scores"]) > 3) == (image_id != "000002")
        for column in ("boxes", "scores"):
            np.testing.assert_array_equal(few.read(image_id)[column], record[column][:3])


def test_the_seed_changes_the_order_and_not_the_set(pictures, tmp_path):
    first, second = (propose(pictures, replace(SMALL, seed=seed), tmp_path / str(seed)) for seed in (0, 1))
    a, b = (reader.read("000000")["boxes"] for reader in (first, second))
    assert not np.array_equal(a, b)
    assert set(map(tuple, a)) == set(map(tuple, b))


# Masks


def box_of(mask):
    """The box of a mask bool [H, W]."""
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_proposals_with_masks_are_those_without(pictures, tmp_path):
    plain, masked = (propose(pictures, settings, tmp_path / str(settings.masks)) for settings in (SMALL, MASKED))
    few = propose(pictures, replace(MASKED, max_boxes=3), tmp_path / "few")
    assert set(plain.read("000000")) == {"boxes", "image_size"}
    for image_id in pictures.image_ids:
        record, kept = masked.read(image_id), few.read(image_id)
        np.testing.assert_array_equal(record["boxes"], plain.read(image_id)["boxes"])
        assert record["searched_size"].tolist() == [80, 60]
        assert len(kept["boxes"]) == 3
        for number in range(3):
            np.testing.assert_array_equal(read_mask(kept, number), read_mask(record, number))


def test_of_the_regions_with_a_box_the_largest_is_kept():
    """Of all that the segmentations and their trees have with exactly this box."""
    image = photo((90, 120))
    proposals = selective_search.find(replace(MASKED, resize_width=0), (120, 90), image, {})
    forests = selective_search.search_forests(image, MASKED)
    boxes = all_boxes(forests)
    text, ends = encode_regions(forests, np.arange(len(boxes)))
    areas = np.array([run_lengths(text[start:end])[1::2].sum() for start, end in pairwise([0, *ends.tolist()])])
    record = {**proposals.columns(), "image_size": np.array([120, 90], np.int32)}
    shared = 0
    for number, box in enumerate(proposals.boxes):
        of_box = areas[(boxes == box).all(axis=1)]
        shared += len({*of_box.tolist()}) > 1
        assert read_mask(record, number).sum() == of_box.max()
    assert shared > 10


def test_a_proposals_box_is_its_masks(pictures, tmp_path):
    """And the characters are those of pycocotools, also in the cache's one file."""
    reader = propose(pictures, MASKED, tmp_path / "cache")
    with h5py.File(tmp_path / "cache" / "data.h5") as file:
        for place, image_id in enumerate(pictures.image_ids):
            record = reader.read(image_id)
            first, end = file["offsets"][place : place + 2]
            ends, text = file["mask_end"][first:end], file["masks/counts"][file["masks/offsets"][place] :]
            width, height = file["searched_size"][place].tolist()
            for number, (start, stop) in enumerate(pairwise([0, *ends.tolist()])):
                mask = read_mask(record, number)
                assert box_of(mask) == record["boxes"][number].tolist()
                counts = text[start:stop].tobytes()
                assert counts == pycocotools.mask.encode(np.asfortranarray(mask, np.uint8))["counts"]
                assert pycocotools.mask.area({"size": [height, width], "counts": counts}) == mask.sum()


@pytest.mark.parametrize(("width", "height"), [(1, 37), (37, 1), (33, 90)])
@pytest.mark.parametrize("resize_width", [0, 20, 50])
def test_masks_of_resized_images(tmp_path, width, height, resize_width):
    folder = Pictures(tmp_path, {"a": textured(3, 90, 90)[:height, :width]})
    settings = replace(MASKED, resize_width=resize_width, min_side=2)
    record = propose(folder, settings, tmp_path / "cache").read("a")
    searched = record["searched_size"]
    assert searched.tolist() == list(searched_size(width, height, resize_width, settings.max_side))
    assert len(record["boxes"]) >= 1
    for number, box in enumerate(record["boxes"]):
        as_searched = read_mask(record, number, as_searched=True)
        assert as_searched.shape == (searched[1], searched[0])
        np.testing.assert_allclose(box_of(as_searched), box * np.tile(searched / (width, height), 2), atol=1e-4)
        assert read_mask(record, number).shape == (height, width)


def test_an_image_that_is_skipped_has_no_masks(pictures, tmp_path):
    pictures.image_path("000002").write_text("not an image")
    reader = propose(pictures, MASKED, tmp_path / "cache", skip_bad_images=True)
    record = reader.read("000002")
    assert {name: record[name].tolist() for name in ("mask_end", "masks/counts", "searched_size")} == {
        "mask_end": [],
        "masks/counts": [],
        "searched_size": [0, 0],
    }
    assert box_of(read_mask(reader.read("000003"), 0)) == reader.read("000003")["boxes"][0].tolist()


def test_masks_are_of_our_selective_search_and_part_of_its_key():
    assert identity_of(SMALL)["masks"] is False
    assert identity_of(MASKED) == {**identity_of(SMALL), "masks": True}
    assert "masks" not in identity_of(OPENCV)
    with pytest.raises(BadSetting, match="'masks' is a setting of method = 'selective-search', and method is"):
        build_settings(Settings, {"method": "selective-search-opencv", "masks": True})


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_bad_image_stops_or_is_skipped(pictures, tmp_path, jobs, caplog):
    pictures.image_path("000002").write_text("not an image")
    with pytest.raises(BadImage, match=r"000002\.png.*repair or remove it"):
        propose(pictures, SMALL, tmp_path / "stops", jobs=jobs)
    with caplog.at_level(logging.WARNING, "stages.propose"):
        reader = propose(pictures, SMALL, tmp_path / "skips", jobs=jobs, skip_bad_images=True)
    assert list(reader.skipped()) == ["000002"]
    assert f"{pictures.image_path('000002')}: skipped, it " in caplog.text
    record = reader.read("000002")
    assert record["boxes"].shape == (0, 4)
    np.testing.assert_array_equal(record["image_size"], [0, 0])
    assert min(len(reader.read(image_id)["boxes"]) for image_id in ("000001", "000003")) > 3


def test_any_file_that_read_image_knows(tmp_path):
    """Grey, 16-bit, palette and one-pixel files give boxes too."""
    folder = Pictures(tmp_path, {"grey": textured(0)[:, :, 0], "palette": textured(1), "dot": textured(2)[:1, :1]})
    Image.fromarray(textured(1)).convert("P").save(folder.image_path("palette"))
    Image.fromarray(textured(3)[:, :, 0].astype(np.uint16) * 257).save(folder.image_path("deep"))
    folder.image_ids += ("deep",)
    reader = propose(folder, SMALL, tmp_path / "cache")
    assert reader.lengths()[2] == 1
    assert min(reader.lengths()) >= 1
    np.testing.assert_array_equal(reader.read("dot")["boxes"], [[0, 0, 1, 1]])


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_of_the_cache_shows_with_any_number_of_jobs(pictures, tmp_path, jobs):
    """joblib asks for tasks in a thread of its own; what goes wrong there must stop the run, not hang it."""
    settings = replace(SMALL, method="sliding-window")

    def claim():
        yield SimpleNamespace(item_ids=("000000",))
        raise CacheError("no claim")

    written = []
    output: Any = SimpleNamespace(
        claim=claim,
        remaining_items=5,
        write=lambda *call: written.append(call),
        identity=SimpleNamespace(settings={}),
    )
    with pytest.raises(CacheError, match="no claim"):
        stage.run(settings, Inputs({"images": pictures}), output, Execution(jobs=jobs))
    assert len(written) == 1


def test_sliding_windows_as_a_stage(pictures, tmp_path):
    settings = Settings(method="sliding-window", scales=(0.5,), aspects=(1.0,), stride=0.5, max_boxes=4)
    reader = propose(pictures, settings, tmp_path / "windows", jobs=2)
    np.testing.assert_array_equal(reader.lengths(), [4] * 5)
    assert stage.identity(settings, Inputs()) == {"order": "seeded with the image's content"}


def test_dense_windows_as_a_stage(pictures, tmp_path):
    settings = Settings(method="dense", anchor_side=64, anchor_longest=100, anchor_scales=(1, 2), max_boxes=50)
    reader = propose(pictures, settings, tmp_path / "dense", jobs=2)
    np.testing.assert_array_equal(reader.lengths(), [50] * 5)
    assert "scores" not in reader.schema.rows


# From a file


def save_boxes(path: Path, image_ids: Sequence[str], boxes: np.ndarray) -> None:
    """The same boxes [n, 4] for each of the images."""
    arrays: dict[str, Any] = dict.fromkeys(image_ids, boxes)
    np.savez(path, **arrays)


@pytest.mark.parametrize("settings", [SMALL, MASKED])
def test_a_finished_cache_is_a_proposal_file(pictures, tmp_path, settings):
    """Of its boxes; masks are not read."""
    made = propose(pictures, settings, tmp_path / "made")
    settings = Settings(method="file", file=str(tmp_path / "made" / "data.h5"))
    again = propose(pictures, settings, tmp_path / "again", jobs=2)
    for image_id, record in again.records():
        assert set(record) == {"boxes", "image_size"}
        for name, values in record.items():
            np.testing.assert_array_equal(values, made.read(image_id)[name])
    few = propose(pictures, replace(settings, max_boxes=2), tmp_path / "few")
    np.testing.assert_array_equal(few.read("000001")["boxes"], made.read("000001")["boxes"][:2])


def test_the_order_of_a_file_is_its_ranking(pictures, tmp_path, caplog):
    boxes = np.array([[30, 30, 90, 50], [0, 0, 9, 9], [30, 30, 80, 50], [5, 5, 9, 9]])
    save_boxes(tmp_path / "boxes.npz", pictures.image_ids, boxes)
    settings = Settings(method="file", file=str(tmp_path / "boxes.npz"))
    with caplog.at_level(logging.WARNING, "stages.propose"):
        reader = propose(pictures, settings, tmp_path / "cache")
    assert "boxes.npz: 5 boxes reached over their image's edge" in caplog.text
    np.testing.assert_array_equal(reader.read("000003")["boxes"], [[30, 30, 80, 50], [0, 0, 9, 9], [5, 5, 9, 9]])


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_file_that_does_not_fit_stops_the_run(pictures, tmp_path, jobs):
    settings = Settings(method="file", file=str(tmp_path / "boxes.npz"))
    save_boxes(tmp_path / "boxes.npz", pictures.image_ids[:4], np.array([[0, 0, 5, 5]]))
    with pytest.raises(StageError, match=r"boxes\.npz: has no boxes for image '000004'"):
        propose(pictures, settings, tmp_path / "missing", jobs=jobs)
    save_boxes(tmp_path / "boxes.npz", pictures.image_ids, np.array([[300, 300, 305, 305]]))
    with pytest.raises(StageError, match=r"boxes\.npz: image '00000.': box .* outside its image of 80 x 60"):
        propose(pictures, settings, tmp_path / "outside", jobs=jobs)


def test_the_key_names_the_content_and_not_the_path(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([[0, 0, 5, 5]]))
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes())
    first, second = (Settings(method="file", file=str(tmp_path / name)) for name in ("a.npz", "b.npz"))
    assert identity_of(first) == identity_of(second)
    assert stage.identity(first, Inputs()) == stage.identity(second, Inputs())
    np.savez(tmp_path / "b.npz", x=np.array([[0, 0, 5, 6]]))
    assert stage.identity(first, Inputs()) != stage.identity(second, Inputs())


def test_the_key_names_the_opencv_that_searches(monkeypatch):
    import cv2

    theirs = stage.identity(OPENCV, Inputs())
    assert theirs == {"opencv": cv2.__version__.split(".")[0], "order": "seeded with the image's content"}
    assert stage.identity(SMALL, Inputs()) == {"implementation": 2, **theirs}


def test_the_two_implementations_find_the_same_boxes(pictures, tmp_path):
    ours, theirs = (propose(pictures, settings, tmp_path / settings.method) for settings in (SMALL, OPENCV))
    assert ours.item_ids == theirs.item_ids
    for image_id in ours.item_ids:
        ours_boxes, theirs_boxes = (canonical_boxes(reader.read(image_id)["boxes"]) for reader in (ours, theirs))
        np.testing.assert_array_equal(ours_boxes, theirs_boxes)


def test_copies_of_an_image_get_the_same_boxes_whatever_their_names(pictures):
    """Also where only some are kept."""
    first, second = (pictures.image_file(image_id) for image_id in pictures.image_ids[:2])

    def boxes(name: str, file: ImageFile) -> np.ndarray:
        record = stage.propose(replace(SMALL, max_boxes=3), stage.Task(name, file, {})).record
        assert record is not None
        return record["boxes"]

    np.testing.assert_array_equal(boxes("a", first), boxes("b", first))
    assert content_of(first.read(), first.size) != content_of(second.read(), second.size), "of one size"


@pytest.mark.parametrize("settings", [replace(SMALL, seed=7), replace(OPENCV, seed=7)], ids=lambda each: each.method)
def test_the_order_is_that_of_the_method_seeded_with_the_pixels(pictures, tmp_path, settings):
    """By position in the hierarchies where there are any, else by size; for each image another one."""
    reader = propose(pictures, settings, tmp_path / "cache")
    assert len({content_of(pictures.read_image(image_id), (80, 60)) for image_id in pictures.image_ids}) == 5
    for image_id in pictures.image_ids:
        image = pictures.read_image(image_id)
        content = content_of(image, (80, 60))
        proposals = METHODS[settings.method].load().find(settings, (80, 60), image, {})
        if settings.method == "selective-search":
            rows = rows_by_position(proposals, content, 7)
        else:
            rows = rows_by_size(proposals.boxes, content, 7)
        np.testing.assert_array_equal(reader.read(image_id)["boxes"], proposals.boxes[rows])


def test_what_seeds_the_order_is_every_pixel_and_the_shape():
    image = textured(0)
    changed = image.copy()
    changed[59, 79, 2] ^= 1
    shapes = [(80, 60), (60, 80)]
    contents = [content_of(image, shapes[0]), content_of(changed, shapes[0]), content_of(image, shapes[1])]
    assert len({*contents}) == 3
    assert content_of(image.copy(), shapes[0]) == contents[0]
    assert content_of(None, shapes[0]) == "80 x 60"


def test_missing_contrib_modules_stop_the_run(pictures, tmp_path, monkeypatch):
    import cv2

    monkeypatch.delattr(cv2, "ximgproc")
    propose(pictures, SMALL, tmp_path / "ours")
    with pytest.raises(
        StageError, match=r"'selective-search-opencv' needs .* set method = 'selective-search', or install"
    ):
        propose(pictures, OPENCV, tmp_path / "theirs")


@pytest.mark.parametrize("settings", [SMALL, OPENCV], ids=lambda settings: settings.method)
def test_a_long_search_is_announced(pictures, tmp_path, caplog, monkeypatch, settings):
    for method in (selective_search, selective_search_opencv):
        monkeypatch.setattr(method, "SLOW_PIXELS", 3000)
    with caplog.at_level(logging.WARNING, "stages.propose"):
        propose(pictures, replace(settings, resize_width=40), tmp_path / "small")
        assert not caplog.records
        propose(pictures, replace(settings, resize_width=0), tmp_path / "full")
    assert len(caplog.records) == 1
    assert "80 x 60 pixels" in caplog.text
    assert "resize_width = 500" in caplog.text


@pytest.mark.parametrize("settings", [SMALL, OPENCV], ids=lambda settings: settings.method)
@pytest.mark.parametrize(("changes", "advised"), [({"min_side": 80}, True), ({"min_side": 79}, False)])
def test_a_min_side_that_leaves_only_the_whole_image_is_announced_once(
    pictures, tmp_path, caplog, settings, changes, advised
):
    with caplog.at_level(logging.WARNING, "stages.propose"):
        reader = propose(pictures, replace(settings, resize_width=0, **changes), tmp_path / "cache")
    assert [record.getMessage() for record in caplog.records] == advised * [
        f"{pictures.image_path('000000')} is searched at 80 x 60 pixels, where propose.min_side = 80 leaves only the "
        "whole image as a proposal; lower min_side, or search it larger (resize_width, max_side)"
    ]
    if advised:
        assert reader.lengths().tolist() == [1] * len(pictures.image_ids)


def test_no_proposals_at_all_is_a_warning(pictures, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "stages.propose"):
        propose(pictures, Settings(method="edge-boxes", min_score=1000.0), tmp_path / "none")
    assert caplog.messages == ["no proposals for any of 5 images; check the settings of method = 'edge-boxes'"]


def test_a_dead_worker_is_a_sentence(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "attempt_alone", die)
    with pytest.raises(StageError, match=r"propose: a worker process died, .* run again with fewer --jobs"):
        propose(pictures, SMALL, tmp_path / "cache", jobs=2)


def die(*call):
    """What the kernel does to a process that takes too much memory."""
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    "values",
    [
        {"method": "edge-box"},
        {"base_k": 0},
        {"sigma": 0.0},
        {"stride": 0.0},
        {"scales": [0.1, -1.0]},
        {"max_boxes": -1},
    ],
)
def test_impossible_settings(values):
    with pytest.raises(StageError, match=next(iter(values))):
        build_settings(Settings, values)


# Recall


def record(image_id, boxes, labels, difficult):
    return SimpleNamespace(
        image_id=image_id,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int32),
        difficult=np.array(difficult, bool),
    )


RECORDS = [
    record("a", [[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]], [0, 1, 0], [False, False, True]),
    record("b", [[0, 0, 10, 10]], [0], [False]),
    record("c", [], [], []),
]
FOUND = {
    "a": np.array([[0, 0, 10, 5], [20, 20, 30, 29], [0, 0, 1, 1]], np.float32),
    "b": np.zeros((0, 4), np.float32),
    "c": np.array([[0, 0, 1, 1]], np.float32),
}


def test_recall_by_hand():
    """Best overlaps 0.5 and 0 of class 0, 0.9 of class 1; the difficult object does not count."""
    found = proposal_recall(FOUND, RECORDS)
    assert (found.objects, found.recall) == (3, pytest.approx(2 / 3))
    assert found.mean_average_best_overlap == pytest.approx((0.25 + 0.9) / 2)
    assert proposal_recall(FOUND, RECORDS, iou=0.7).recall == pytest.approx(1 / 3)


def test_recall_without_objects():
    found = proposal_recall(FOUND, RECORDS[2:])
    assert found.objects == 0
    assert np.isnan(found.recall)
    assert np.isnan(found.mean_average_best_overlap)


def test_recall_of_a_cache(pictures, tmp_path):
    reader = propose(pictures, SMALL, tmp_path / "cache")
    by_id = {
        image_id: record(image_id, [[20 + number, 10, 60, 40]], [0], [False])
        for number, image_id in enumerate(pictures.image_ids)
    }
    dataset: Any = SimpleNamespace(record=by_id.__getitem__)
    found = recall(reader, dataset)
    assert found == proposal_recall({image_id: reader.read(image_id)["boxes"] for image_id in by_id}, by_id.values())
    assert found.objects == 5
    assert found.mean_average_best_overlap > 0.8


# Regions of min-cuts

CUTS = Settings(method="min-cut", superpixel_side=8, seeds=4)


def test_regions_that_share_a_box_are_all_kept(pictures, tmp_path):
    reader = propose(pictures, CUTS, tmp_path / "all")
    few = propose(pictures, replace(CUTS, max_boxes=4), tmp_path / "few")
    assert reader.manifest["summary"]["order"] == METHODS["min-cut"].order
    shared = 0
    for image_id in pictures.image_ids:
        record, kept = reader.read(image_id), few.read(image_id)
        masks = [read_mask(record, number) for number in range(len(record["boxes"]))]
        assert [box_of(mask) for mask in masks] == record["boxes"].tolist()
        assert len({mask.tobytes() for mask in masks}) == len(masks)
        shared += len(masks) - len(np.unique(record["boxes"], axis=0))
        assert len(kept["boxes"]) == 4
        for number in range(4):
            np.testing.assert_array_equal(read_mask(kept, number), masks[number])
    assert shared > 0


def test_regions_on_demand_are_those_of_the_cache(pictures, tmp_path):
    reader = propose(pictures, CUTS, tmp_path / "all", jobs=2)
    computed = stage.on_demand(CUTS, Inputs({"images": pictures}), Execution())
    for image_id in pictures.image_ids:
        record = computed.read(image_id)
        assert set(record) == set(reader.schema.rows) | set(reader.schema.per_item) | {"masks/counts"}
        for name, values in reader.read(image_id).items():
            np.testing.assert_array_equal(record[name], values)


def test_images_that_are_not_exhaustive_get_no_proposals_where_only_the_others_are_searched(tmp_path, pictures):
    plain = propose(pictures, SMALL, tmp_path / "all")
    pictures.images_not_exhaustive = frozenset({"000001", "000004"})
    settings = replace(SMALL, only_exhaustive=True)
    reader = propose(pictures, settings, tmp_path / "exhaustive")
    on_demand = stage.on_demand(settings, Inputs({"images": pictures}), Execution())
    for image_id, record in reader.records():
        expected = plain.read(image_id)
        boxes = expected["boxes"][: 0 if image_id in pictures.images_not_exhaustive else None]
        np.testing.assert_array_equal(record["boxes"], boxes)
        np.testing.assert_array_equal(record["image_size"], expected["image_size"])
        np.testing.assert_array_equal(on_demand.record(image_id)["boxes"], boxes)
    every = propose(pictures, SMALL, tmp_path / "again")
    assert all(len(record["boxes"]) for _, record in every.records())


def test_a_region_proposal_network_searches_all_images():
    with pytest.raises(BadSetting, match="only_exhaustive = true is not for method = 'rpn'"):
        Settings(method="rpn", only_exhaustive=True)
