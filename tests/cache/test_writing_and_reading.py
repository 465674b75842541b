import json
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache import CacheError, Column, DamagedPlan, Identity, IncompleteCache, Reader, Record, Schema, Writer
from cache.files import read_sealed, write_sealed
from cache.parts import OpenPart
from cache.view import write_view
from tests.cache.samples import IDENTITY, SCHEMA, fill, manifest_of, open_writer, sample_ids, sample_record


def assert_holds_samples(folder, ids):
    seen = []
    for item_id, record in Reader(folder).records():
        seen.append(item_id)
        for name, values in sample_record(item_id).items():
            np.testing.assert_array_equal(record[name], values)
            assert record[name].dtype == values.dtype
    assert seen == list(ids)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 23), part_size=st.integers(1, 9), compression=st.sampled_from(["none", "gzip"]))
def test_what_is_written_is_read_back(tmp_path_factory, count, part_size, compression):
    folder = tmp_path_factory.mktemp("cache") / "c"
    fill(folder, sample_ids(count), part_size, compression=compression)
    assert_holds_samples(folder, sample_ids(count))


def test_zstd_is_read_back_without_being_told(tmp_path):
    pytest.importorskip("hdf5plugin")
    fill(tmp_path / "c", sample_ids(9), compression="zstd")
    assert_holds_samples(tmp_path / "c", sample_ids(9))


def test_threads_share_a_reader(tmp_path, monkeypatch):
    """They read in turn: an item of another part closes the part that is open."""
    ids = sample_ids(24)
    fill(tmp_path / "c", ids, 4)
    reader = pickle.loads(pickle.dumps(Reader(tmp_path / "c")))
    span, reading, at_once = OpenPart.span, [], []

    def slow_span(part, column, position):
        reading.append(position)
        at_once.append(len(reading))
        time.sleep(0.001)
        reading.pop()
        return span(part, column, position)

    def check(item_id):
        expected = sample_record(item_id)
        np.testing.assert_array_equal(reader.read(item_id, ["boxes"])["boxes"], expected["boxes"])
        rows = np.arange(len(expected["fc7"]))[::-1]
        np.testing.assert_array_equal(reader.rows(item_id, "fc7", rows), expected["fc7"][rows])

    monkeypatch.setattr(OpenPart, "span", slow_span)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(check, ids[::4] + ids[1::4]))
    assert set(at_once) == {1}


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_any_split_gives_the_same_bytes(tmp_path, shards):
    ids = sample_ids(23)
    fill(tmp_path / "whole", ids)
    for index in range(shards, 0, -1):
        fill(tmp_path / "split", ids, shard=f"{index}/{shards}")
    for part in sorted((tmp_path / "whole").glob("part-*.h5")):
        assert part.read_bytes() == (tmp_path / "split" / part.name).read_bytes()
    assert (tmp_path / "split" / "manifest.json").exists()


def test_the_view_opens_as_one_hdf5_file_and_may_be_moved(tmp_path):
    ids = sample_ids(23)
    fill(tmp_path / "c", ids)
    (tmp_path / "c").rename(tmp_path / "moved")
    with h5py.File(tmp_path / "moved" / "data.h5", "r") as file:
        offsets, found = file["offsets"][:], [one.decode() for one in file["image_ids"][:]]
        assert found == ids
        for position, item_id in enumerate(ids):
            rows = slice(offsets[position], offsets[position + 1])
            np.testing.assert_array_equal(file["fc7"][rows], sample_record(item_id)["fc7"])
            np.testing.assert_array_equal(file["image_size"][position], sample_record(item_id)["image_size"])
        candidates = np.concatenate([sample_record(item_id)["candidates/score"] for item_id in ids])
        np.testing.assert_array_equal(file["candidates/score"][:], candidates)


def test_the_user_block_says_what_a_part_is(tmp_path):
    fill(tmp_path / "c", sample_ids(5))
    header = json.loads((tmp_path / "c" / "part-00001.h5").read_bytes()[:512])
    assert (header["stage"], header["part"], header["items"], header["key"]) == ("extract", 1, 1, IDENTITY.key)


def test_some_rows_of_an_item_in_any_order(tmp_path):
    ids = sample_ids(12)
    fill(tmp_path / "c", ids)
    reader = Reader(tmp_path / "c")
    item_id = max(ids, key=lambda one: len(sample_record(one)["fc7"]))
    fc7 = sample_record(item_id)["fc7"]
    order = np.array([len(fc7) - 1, 0, 1, 0])
    np.testing.assert_array_equal(reader.rows(item_id, "fc7", order), fc7[order])
    assert reader.rows(item_id, "fc7", np.zeros(0, np.int64)).shape == (0, 8)
    with pytest.raises(CacheError, match="has no row"):
        reader.rows(item_id, "fc7", np.array([len(fc7)]))
    np.testing.assert_array_equal(reader.lengths(), [len(sample_record(one)["boxes"]) for one in ids])


def test_a_missing_item_is_an_error_that_names_it(tmp_path):
    fill(tmp_path / "c", sample_ids(3))
    with pytest.raises(CacheError, match="has no image 'image-9999'"):
        Reader(tmp_path / "c").read("image-9999")
    with pytest.raises(CacheError, match="has no column 'fc8'; it has boxes"):
        Reader(tmp_path / "c").read("image-0000", ["fc8"])


def test_no_manifest_no_complete_cache(tmp_path):
    fill(tmp_path / "c", sample_ids(9), shard="1/2")
    with pytest.raises(IncompleteCache, match="not a finished cache"):
        Reader(tmp_path / "c")
    with pytest.raises(IncompleteCache, match="not a finished cache"):
        Reader(tmp_path / "nothing")


def test_a_skipped_item_is_empty_and_on_record(tmp_path):
    ids = sample_ids(3)
    writer = open_writer(tmp_path / "c", ids)
    for part in writer.claim():
        writer.write(part, [SCHEMA.empty() for _ in part.item_ids], {ids[1]: "truncated"})
    manifest = writer.finish({})
    writer.release()
    assert manifest["skipped"] == {ids[1]: "truncated"}
    assert len(Reader(tmp_path / "c").read(ids[1])["boxes"]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fc7": np.zeros((2, 8), np.float32)}, "column 'fc7' is float32"),
        ({"fc7": np.zeros((3, 8), np.float16)}, r"column 'fc7' is float16 \[3, 8\] instead of float16 \[2, 8\]"),
        ({"more": np.zeros(1)}, "unknown \\['more'\\]"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(tmp_path, change, message):
    writer = open_writer(tmp_path / "c", ["a"])
    record: Record = {
        "boxes": np.zeros((2, 4), np.float32),
        "fc7": np.zeros((2, 8), np.float16),
        "image_size": np.zeros(2, np.int32),
        "candidates/score": np.zeros(0, np.float32),
    }
    with pytest.raises(CacheError, match=message):
        writer.write(next(writer.claim()), [{**record, **change}])
    writer.release()


@pytest.mark.parametrize("ids", [[], ["a", "a"], [""], ["a\n"], ["\ud800"]])
def test_impossible_ids_are_refused(tmp_path, ids):
    with pytest.raises(CacheError, match=r"there is no image|repeated, empty or has a control character"):
        Writer(tmp_path / "c", IDENTITY, ids, SCHEMA)


def test_ids_are_kept_as_data(tmp_path):
    ids = ["night/0001", "a b (1)", "caf\u00e9", "cafe\u0301", "x" * 300]
    fill(tmp_path / "c", ids)
    assert list(Reader(tmp_path / "c").item_ids) == ids
    with h5py.File(tmp_path / "c" / "data.h5") as file:
        assert file["image_ids"].asstr()[()].tolist() == ids


def test_names_of_files_that_are_no_utf8_are_kept(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    writer = fill(folder, sample_ids(3))
    writer.finish({"command": ["rcnn", str(folder)]})
    assert manifest_of(folder)["command"] == ["rcnn", str(folder)]
    assert_holds_samples(folder, sample_ids(3))
    write_sealed(tmp_path / "a.json", {"path": str(folder), "é": "é"})
    assert "é" in (tmp_path / "a.json").read_text("utf-8")
    assert read_sealed(tmp_path / "a.json", DamagedPlan) == ({"path": str(folder), "é": "é"}, True)


def test_a_folder_of_another_identity_is_not_written_to(tmp_path):
    fill(tmp_path / "c", sample_ids(3))
    with pytest.raises(CacheError, match="plan of another cache"):
        Writer(tmp_path / "c", Identity("extract", 1, {"padding": 0}), sample_ids(3), SCHEMA)
    with pytest.raises(CacheError, match="plan of another cache"):
        open_writer(tmp_path / "c", sample_ids(4))


def test_the_first_process_fixes_the_part_size(tmp_path):
    open_writer(tmp_path / "c", sample_ids(10), part_size=3).release()
    assert open_writer(tmp_path / "c", sample_ids(10), part_size=7).part_size == 3


def test_a_cache_from_a_newer_version_says_so(tmp_path):
    fill(tmp_path / "c", sample_ids(3))
    manifest = tmp_path / "c" / "manifest.json"
    write_sealed(manifest, {**json.loads(manifest.read_text()), "format": 99})
    with pytest.raises(CacheError, match="newer version"):
        Reader(tmp_path / "c")


def test_a_schema_without_rows(tmp_path):
    schema = Schema(item="class", per_item={"weights": Column("float64", (3,))})
    writer = Writer(tmp_path / "c", Identity("train-svm", 1), ["cat", "dog"], schema, part_size=1)
    for part in writer.claim():
        writer.write(part, [{"weights": np.full(3, part.index, np.float64)}])
    writer.finish({})
    writer.release()
    reader = Reader(tmp_path / "c")
    assert reader.read("dog")["weights"].tolist() == [1, 1, 1]
    assert reader.lengths().tolist() == [0, 0]
    with h5py.File(tmp_path / "c" / "data.h5") as file:
        assert file["weights"].shape == (2, 3)


def test_a_checkpoint_is_whole_or_not_there_and_goes_with_its_part(tmp_path):
    writer = open_writer(tmp_path / "c", ["a"])
    part = next(writer.claim())
    assert writer.checkpoint(part).load() is None
    writer.checkpoint(part).save({"weights": np.arange(3)})
    saved = writer.checkpoint(part).load()
    assert saved is not None
    assert saved["weights"].tolist() == [0, 1, 2]
    path = writer.checkpoint(part).path
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert writer.checkpoint(part).load() is None
    writer.write(part, [sample_record("a")])
    assert not path.exists()
    writer.release()


def test_a_part_says_what_its_items_were_made_from(tmp_path):
    """As the writer was told; nothing where it was told nothing, and the bytes are then those of earlier versions."""
    ids = sample_ids(5)
    fill(tmp_path / "plain", ids, part_size=2)
    fill(tmp_path / "told", ids, part_size=2, digests={one: f"made from {one}" for one in ids[:4]})
    told, plain = Reader(tmp_path / "told"), Reader(tmp_path / "plain")
    assert [told.digest(one) for one in ids] == [*(f"made from {one}" for one in ids[:4]), None]
    assert plain.digest(ids[0]) is None
    with h5py.File(tmp_path / "plain" / "part-00000.h5") as file:
        assert "image_sha256" not in file


@pytest.mark.parametrize(
    "classes", [[], ["cat", "Zürich", "a/b"], [f"class number {number}" for number in range(20_000)]]
)
def test_attributes_of_the_view_are_in_the_manifest_and_survive_its_loss(tmp_path, classes):
    """20,000 names take more than the 64 kB that HDF5 allows an attribute in its oldest format."""
    schema = Schema(rows={"label": Column("int32")})
    writer = Writer(tmp_path / "c", Identity("detect", 1), ["x", "y"], schema, part_size=1)
    for part in writer.claim():
        writer.write(part, [{"label": np.arange(2, dtype=np.int32)}])
    given = {"classes": classes, "score": "SVM margin", "side": 3}
    writer.finish({"attributes": given})
    writer.release()
    assert manifest_of(tmp_path / "c")["attributes"] == given
    for _ in range(2):
        with h5py.File(tmp_path / "c" / "data.h5") as file:
            assert list(file.attrs["classes"]) == classes
            assert (file.attrs["score"], file.attrs["side"]) == ("SVM margin", 3)
        (tmp_path / "c" / "data.h5").unlink()
        write_view(Reader(tmp_path / "c"))
