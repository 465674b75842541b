"""Records that a new cache copies from finished ones: the same bytes as if they had been computed."""

import json
import pickle
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache import Adoption, Column, DamagedPart, Identity, LostSource, Reader, Schema, Shard, Writer, find_adoption
from cache.adoption import read_item_keys
from tests.cache.samples import SCHEMA, sample_ids, sample_record


def keys_of(ids):
    """Keys that depend on the id alone, as the sample records do."""
    return {item_id: f"{item_id:>32}" for item_id in ids}


def make(folder, ids, keys=None, *, part_size=4, adopt=True, shard="1/1", skipped=(), compression="none"):
    """Fills a cache whose identity is its folder's name; (its manifest, the ids that were computed)."""
    keys = keys_of(ids) if keys is None else keys
    adoption = find_adoption(folder, keys, SCHEMA) if adopt else None
    writer = Writer(
        folder,
        Identity("extract", 1, {"name": folder.name}),
        ids,
        SCHEMA,
        part_size=part_size,
        shard=Shard.parse(shard),
        compression=compression,
        adoption=adoption,
    )
    computed: list[str] = []
    expected = writer.remaining_items
    for part in writer.claim():
        computed += part.item_ids
        left_out = {item: "cannot be read" for item in part.item_ids if item in skipped}
        records = [SCHEMA.empty() if item in left_out else sample_record(item) for item in part.item_ids]
        writer.write(part, records, left_out)
    assert len(computed) == expected
    manifest = {} if writer.unfinished() else writer.finish({}, item_keys=keys)
    writer.release()
    return manifest, computed


def parts(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*.h5"))}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_parts_are_the_bytes_that_would_be_computed(tmp_path_factory, data):
    """Whatever the relatives hold, in whichever order, parts and compression."""
    folder = tmp_path_factory.mktemp("caches")
    everything = data.draw(st.permutations(sample_ids(14)))
    sizes, compressions = st.integers(1, 6), st.sampled_from(["none", "gzip"])
    known = set()
    for name in ("one", "other")[: data.draw(st.integers(1, 2))]:
        ids = data.draw(st.lists(st.sampled_from(everything), min_size=1, unique=True))
        make(folder / name, ids, part_size=data.draw(sizes), adopt=False, compression=data.draw(compressions))
        known |= set(ids)
    ids = data.draw(st.lists(st.sampled_from(everything), min_size=1, unique=True))
    size, compression = data.draw(sizes), data.draw(compressions)
    manifest, computed = make(folder / "new", ids, part_size=size, compression=compression)
    make(folder / "elsewhere" / "new", ids, part_size=size, compression=compression)
    assert parts(folder / "new") == parts(folder / "elsewhere" / "new")
    assert sorted(computed) == sorted(set(ids) - known)
    assert sum(manifest.get("adopted", {}).values()) == len(set(ids) & known)
    assert Reader(folder / "new").manifest["summary"] == {}
    assert {path.name for path in (folder / "new").iterdir()} - set(parts(folder / "new")) == {
        "plan.json", "manifest.json", "data.h5", "items.json",
    }  # fmt: skip


def test_only_items_of_the_same_key_are_copied_and_never_skipped_ones(tmp_path):
    ids = sample_ids(8)
    make(tmp_path / "old", ids[:6], skipped={ids[1]})
    changed = {**keys_of(ids), ids[3]: "its image is another by now"}
    manifest, computed = make(tmp_path / "new", ids, changed)
    assert computed == [ids[1], ids[3], ids[6], ids[7]]
    assert manifest["adopted"] == {"old": 4}
    assert manifest["skipped"] == {}


def test_the_cache_with_the_most_is_copied_from(tmp_path):
    ids = sample_ids(9)
    make(tmp_path / "a", ids[:3], adopt=False)
    make(tmp_path / "b", ids[:7], adopt=False)
    make(tmp_path / "c", ids[6:8], adopt=False)
    manifest, computed = make(tmp_path / "new", ids)
    assert manifest["adopted"] == {"b": 7, "c": 1}
    assert computed == [ids[8]]


def test_shards_and_an_interruption(tmp_path):
    ids = sample_ids(15)
    make(tmp_path / "old", ids[::2], adopt=False)
    make(tmp_path / "elsewhere" / "new", ids)
    adoption = find_adoption(tmp_path / "new", keys_of(ids), SCHEMA)
    identity = Identity("extract", 1, {"name": "new"})
    interrupted = Writer(tmp_path / "new", identity, ids, SCHEMA, part_size=4, adoption=adoption)
    first = next(interrupted.claim())
    interrupted.write(first, [sample_record(item) for item in first.item_ids])
    interrupted.release()
    assert make(tmp_path / "new", ids, shard="2/2")[0] == {}
    manifest, computed = make(tmp_path / "new", ids, shard="1/2")
    assert computed == [ids[9], ids[11]]
    assert manifest["adopted"] == {"old": 8}
    assert parts(tmp_path / "new") == parts(tmp_path / "elsewhere" / "new")


def test_a_copy_of_the_writer_in_another_process_merges_too(tmp_path):
    ids = sample_ids(4)
    make(tmp_path / "old", ids[1:3], adopt=False)
    adoption = find_adoption(tmp_path / "new", keys_of(ids), SCHEMA)
    writer = Writer(tmp_path / "new", Identity("extract", 1), ids, SCHEMA, part_size=4, adoption=adoption)
    part = next(writer.claim())
    assert part.item_ids == (ids[0], ids[3])
    pickle.loads(pickle.dumps(writer)).write(part, [sample_record(item) for item in part.item_ids])
    assert writer.finish({})["adopted"] == {"old": 2}
    writer.release()


def test_a_damaged_source_is_named_and_a_removed_one_too(tmp_path):
    ids = sample_ids(8)
    make(tmp_path / "old", ids[:5], adopt=False)
    adoption = find_adoption(tmp_path / "new", keys_of(ids), SCHEMA)
    content = bytearray((tmp_path / "old" / "part-00001.h5").read_bytes())
    content[700:] = bytes(len(content) - 700)
    (tmp_path / "old" / "part-00001.h5").write_bytes(content)
    with pytest.raises(DamagedPart, match=r"old/part-00001\.h5"):
        list(adoption.records(ids))
    shutil.rmtree(tmp_path / "old")
    with pytest.raises(LostSource, match="records were to be copied from this cache, but it is no longer complete"):
        list(adoption.records(ids))
    assert find_adoption(tmp_path / "new", keys_of(ids), SCHEMA).places == {}


@pytest.mark.parametrize("damage", ["not JSON", "another key", "torn", "no list"])
def test_damaged_keys_of_items_are_not_believed(tmp_path, damage, caplog):
    ids = sample_ids(4)
    make(tmp_path / "old", ids, adopt=False)
    path = tmp_path / "old" / "items.json"
    value = json.loads(path.read_text())
    if damage == "another key":
        value["items"][ids[0]] = value["items"][ids[1]]
    texts = {"not JSON": "{", "another key": json.dumps(value), "torn": path.read_text()[:40], "no list": "[]"}
    path.write_text(texts[damage])
    assert read_item_keys(tmp_path / "old", value["key"]) is None
    assert make(tmp_path / "new", ids)[1] == ids
    assert "items.json: damaged; nothing is reused from this cache" in caplog.text


def test_unfinished_caches_and_those_with_other_columns_are_no_sources(tmp_path):
    ids = sample_ids(6)
    make(tmp_path / "unfinished", ids, adopt=False)
    (tmp_path / "unfinished" / "manifest.json").unlink()
    make(tmp_path / "old", ids, adopt=False)
    other = Schema("image", {"boxes": Column("float32", (4,))})
    assert find_adoption(tmp_path / "new", keys_of(ids), other).places == {}
    assert find_adoption(tmp_path / "new", keys_of(ids), SCHEMA).counts(ids) == {"old": 6}
    assert find_adoption(tmp_path / "old", keys_of(ids), SCHEMA).places == {}
    assert Adoption({}).missing(ids) == tuple(ids)
