"""What one look at a cache's folder finds."""

import os
import shutil

import pytest

from cache import CacheState, Identity, NewerVersion, Reader, caches_in, nearest_relative, remove_cache
from cache.files import write_sealed
from cache.parts import verify_part
from cache.writer import set_aside
from tests.cache.samples import IDENTITY, fill, manifest_of, open_writer, sample_ids, sample_record

IDS = sample_ids(10)


@pytest.fixture
def folder(tmp_path):
    """A finished cache of 10 items in parts of 4, 4 and 2."""
    fill(tmp_path / "stage" / "c", IDS)
    return tmp_path / "stage" / "c"


def look(folder, key=IDENTITY.key):
    state = CacheState(folder, key)
    return state.condition, state.fault, (state.items_done, state.items), state.complete


def damage_of(folder):
    damage = CacheState(folder).damage
    assert damage is not None
    return damage


def test_missing_partial_complete(tmp_path):
    folder = tmp_path / "c"
    assert look(folder) == ("missing", "", (0, 0), False)
    assert not CacheState(folder).exists
    assert CacheState(folder).missing_parts is None
    writer = open_writer(folder, IDS)
    assert look(folder) == ("partial", "", (0, 10), False)
    writer.release()
    fill(folder, IDS, shard="2/2")
    assert look(folder) == ("partial", "", (4, 10), False)
    assert CacheState(folder).missing_parts == [0, 2]
    make_parts(folder)
    assert look(folder) == ("partial", "no manifest.json; the next run writes it", (10, 10), False)
    fill(folder, IDS)
    assert look(folder) == ("complete", "", (10, 10), True)
    manifest = CacheState(folder).manifest
    assert manifest is not None
    assert manifest["items"] == 10


def test_a_look_is_of_one_moment(folder):
    before = CacheState(folder, IDENTITY.key)
    assert before.complete
    (folder / "manifest.json").unlink()
    assert before.complete
    assert not CacheState(folder, IDENTITY.key).complete


def make_parts(folder):
    """Writes the parts and no manifest."""
    writer = open_writer(folder, IDS)
    for part in writer.claim():
        writer.write(part, [sample_record(item_id) for item_id in part.item_ids])
    return writer


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["plan.json", "manifest.json"])
def test_a_damaged_plan_or_manifest_is_named(folder, name):
    flip(folder / name)
    condition, fault, progress, complete = look(folder)
    assert (condition, complete) == ("damaged", False)
    assert progress == ((0, 0) if name == "plan.json" else (10, 10))
    assert fault.startswith(f"damaged {name} (")
    damage = damage_of(folder)
    assert damage.path == folder / name
    set_aside(damage)
    assert f"no {name} (a damaged one was set aside as {name}.damaged-0)" in CacheState(folder).fault


def test_damaged_and_lost_parts_are_numbered(folder):
    os.truncate(folder / "part-00001.h5", 700)
    assert look(folder) == ("damaged", "damaged part 1", (6, 10), False)
    set_aside(damage_of(folder))
    assert not CacheState(folder).finished
    assert look(folder) == ("damaged", "damaged part 1", (6, 10), False)
    (folder / "part-00002.h5").unlink()
    assert CacheState(folder).missing_parts == [1, 2]
    os.truncate(folder / "part-00000.h5", 700)
    assert look(folder) == ("damaged", "damaged parts 0, 1", (0, 10), False)


def test_a_view_that_is_missing_is_damage_of_a_complete_cache(folder):
    (folder / "data.h5").unlink()
    assert look(folder) == ("damaged", "damaged data.h5 (the file is missing)", (10, 10), True)
    CacheState(folder).write_view()
    verify_part(folder / "data.h5")
    assert look(folder)[0] == "complete"


def test_parts_without_their_plan(folder):
    (folder / "plan.json").unlink()
    assert CacheState(folder).exists
    fault = "no plan.json, but 3 parts exist; the next run rewrites it and keeps the parts that match"
    assert look(folder) == ("damaged", fault, (0, 0), False)


def test_anothers_cache(folder):
    condition, fault, _, complete = look(folder, "0" * 12)
    assert (condition, complete) == ("foreign", False)
    assert IDENTITY.key in fault


def test_a_newer_version(folder):
    path = folder / "manifest.json"
    write_sealed(path, {**manifest_of(folder), "format": 99})
    state = CacheState(folder, IDENTITY.key)
    assert (state.condition, state.fault) == (
        "newer", "written by a newer version (format 99); update rcnn, or use another --work"
    )  # fmt: skip
    with pytest.raises(NewerVersion, match="format 99"):
        _ = state.complete


def test_a_manifest_that_is_read_again_is_read_from_the_file_once(folder, monkeypatch):
    manifest_of(folder)
    monkeypatch.setattr("cache.manifest.read_sealed", lambda *_: pytest.fail("read again"))
    manifest_of(folder)["summary"] = "of a copy"
    assert manifest_of(folder)["summary"] == {}


def test_finishing_opens_each_part_at_most_twice(tmp_path, monkeypatch):
    """Once for all that its parts say, and once for the whole numbers that the view copies."""
    writer = make_parts(tmp_path / "c")
    opened, original = [], Reader.open_part

    def counted(self, index):
        if self.current is None or self.current[0] != index:
            opened.append(index)
        return original(self, index)

    monkeypatch.setattr(Reader, "open_part", counted)
    writer.finish({})
    assert opened == [0, 1, 2, 0, 1, 2]


def test_caches_are_found_and_removed(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "stage" / "without-plan")
    for name in ("plan.json", "manifest.json"):
        (tmp_path / "stage" / "without-plan" / name).unlink()
    (tmp_path / "stage" / "empty").mkdir()
    (tmp_path / "stage" / "file").write_text("")
    assert [state.folder.name for state in caches_in(tmp_path)] == ["c", "without-plan"]
    remove_cache(folder)
    assert [state.folder.name for state in caches_in(tmp_path)] == ["without-plan"]


def test_the_nearest_relative_says_what_differs(folder):
    settings = dict(IDENTITY.settings)
    wanted = Identity(IDENTITY.stage, IDENTITY.schema_version + 1, settings, IDENTITY.inputs, IDENTITY.libraries)
    relative = nearest_relative(folder.parent, wanted)
    assert relative is not None
    words, manifest = relative
    assert words == [f"{IDENTITY.stage}'s format {IDENTITY.schema_version} -> {IDENTITY.schema_version + 1}"]
    assert manifest["key"] == IDENTITY.key
    assert nearest_relative(folder.parent, wanted, lambda manifest: manifest["key"] != IDENTITY.key) is None
    assert nearest_relative(folder.parent / "none", wanted) is None
