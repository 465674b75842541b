"""What was read and is wrong is damage, every bit of it; what could not be read is not."""

import contextlib
import errno
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import cache
import cache.files
import cache.parts
from cache import CacheError, Column, DamagedFile, DamagedManifest, DamagedPart, DamagedPlan, Identity, Reader, Schema
from cache.files import read_sealed, write_json
from cache.manifest import read_manifest
from cache.parts import check_place, read_header, verify_descriptor, verify_part
from cache.plan import plan_in, read_plan
from cache.view import open_view, view_fault, write_view
from cache.writer import Writer
from tests.cache.samples import IDENTITY, SCHEMA, fill, manifest_of, open_writer, sample_ids, sample_record

PROJECT = Path(__file__).parents[2]
OTHER = Identity("extract", 1, {"padding": 0}, {"images": "0123456789ab"})


@pytest.fixture
def folder(tmp_path):
    """A finished cache of three parts."""
    fill(tmp_path / "c", sample_ids(9), 3)
    return tmp_path / "c"


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Retries do not wait, and nothing counts as verified before."""
    monkeypatch.setattr(cache.files, "PAUSES", (0, 0))
    monkeypatch.setattr(cache.parts, "VERIFIED", {})
    monkeypatch.delenv("RCNN_TRUST_DISK", raising=False)


def flip(path, place, bit=0):
    with path.open("r+b") as file:
        (byte,) = os.pread(file.fileno(), 1, place)
        os.pwrite(file.fileno(), bytes([byte ^ 1 << bit]), place)


def assert_right(folder):
    for item_id, record in Reader(folder).records():
        for name, values in sample_record(item_id).items():
            np.testing.assert_array_equal(record[name], values)


def assert_noticed_or_right(folder):
    with contextlib.suppress(DamagedPart):
        assert_right(folder)


def in_place(content, path):
    """The same file with other bytes, as a disk's fault leaves it: size, inode and times stay."""
    state = path.stat()
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


# Parts


def test_every_bit_of_a_part_counts(tmp_path):
    """Each of all single flips, header included, is noticed by comparing the header and the SHA-256."""
    schema, folder = Schema(rows={"boxes": Column("float32", (4,))}), tmp_path / "c"
    writer = Writer(folder, IDENTITY, ["a", "b"], schema, part_size=2)
    for part in writer.claim():
        writer.write(part, [{"boxes": np.full((rows, 4), rows, np.float32)} for rows in (1, 2)])
    writer.release()
    path = folder / "part-00000.h5"
    content, plan = path.read_bytes(), read_plan(folder)
    place = (plan.identity.stage, plan.key, 0, 2)
    unnoticed = []
    with path.open("r+b") as file:
        for position, byte in enumerate(content):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([byte ^ 1 << bit]), position)
                try:
                    check_place(path, verify_descriptor(path, file.fileno()), *place)
                    unnoticed.append((position, bit))
                except DamagedPart:
                    pass
            os.pwrite(file.fileno(), bytes([byte]), position)
        check_place(path, verify_descriptor(path, file.fileno()), *place)
    assert unnoticed == []


def test_every_bit_of_a_header_is_noticed_by_whoever_opens_the_part(folder):
    """A greater format too: it is a later version's only if the names in the header are others."""
    path = folder / "part-00001.h5"
    content, reader = path.read_bytes(), Reader(folder)
    for position in range(512):
        for bit in range(8):
            changed = bytearray(content)
            changed[position] ^= 1 << bit
            path.write_bytes(changed)
            with pytest.raises(DamagedPart):
                reader.open_part(1).read("boxes", slice(None))
            reader.close()
    path.write_bytes(content.replace(b'"format": 1, "stage"', b'"format": 2, "staged"').replace(b" \n", b"\n", 1))
    with pytest.raises(CacheError, match="written by a newer version"):
        reader.open_part(1)


@pytest.mark.parametrize("trust", ["", "1"])
def test_a_flipped_bit_is_noticed_or_harmless_on_reading(folder, trust, monkeypatch):
    """Also where the disk is trusted: HDF5's own checksums cover what is not data, fletcher32 the data."""
    monkeypatch.setenv("RCNN_TRUST_DISK", trust)
    path = folder / "part-00001.h5"
    content = path.read_bytes()
    noticed = 0
    for number in range(512 * 8, len(content) * 8, 419):
        changed = bytearray(content)
        changed[number // 8] ^= 1 << number % 8
        path.write_bytes(changed)
        try:
            assert_right(folder)
        except DamagedPart as error:
            noticed += error.path == path
    assert noticed > 50


def test_lengths_and_skipped_items_of_a_damaged_part_are_an_error_or_right(folder):
    """Lengths are read without comparing the SHA-256."""
    path = folder / "part-00001.h5"
    content, reader = path.read_bytes(), Reader(folder)
    expected = [reader.lengths().tolist(), reader.lengths("candidates").tolist(), {}]
    for number in range(512 * 8, len(content) * 8, 419):
        changed = bytearray(content)
        changed[number // 8] ^= 1 << number % 8
        path.write_bytes(changed)
        with contextlib.suppress(DamagedPart):
            reader.close()
            assert [reader.lengths().tolist(), reader.lengths("candidates").tolist(), reader.skipped()] == expected


def test_the_heap_of_a_damaged_part_is_never_read(folder):
    """HDF5 keeps the skipped items there, without a checksum, and looks for them for ever where a bit is flipped."""
    path = folder / "part-00001.h5"
    content = path.read_bytes()
    heap = content.index(b"GCOL")
    for number in range(8 * (heap + 8), 8 * (heap + 40)):
        flip(path, number // 8, number % 8)
        with pytest.raises(DamagedPart):
            Reader(folder).skipped()
        flip(path, number // 8, number % 8)
    assert path.read_bytes() == content
    assert Reader(folder).skipped() == {}


def test_zeros_in_place_of_minus_one_are_noticed_which_fletcher32_cannot(tmp_path):
    """A lost sector: 0xffff and 0 are the same to fletcher32."""
    schema = Schema(rows={"label": Column("int32")})
    writer = Writer(tmp_path / "c", IDENTITY, ["a"], schema)
    for part in writer.claim():
        writer.write(part, [{"label": np.full(500, -1, np.int32)}])
    writer.finish({})
    writer.release()
    path = tmp_path / "c" / "part-00000.h5"
    content = path.read_bytes()
    assert content.count(b"\xff" * 512) > 0
    path.write_bytes(content.replace(b"\xff" * 512, bytes(512), 1))
    with pytest.raises(DamagedPart, match="SHA-256"):
        Reader(tmp_path / "c").read("a")


def test_a_part_is_hashed_once_in_a_process_and_again_when_it_changes(folder, monkeypatch):
    hashed = []
    original = cache.parts.verify_descriptor

    def counted(path, descriptor):
        hashed.append(path.name)
        return original(path, descriptor)

    monkeypatch.setattr(cache.parts, "verify_descriptor", counted)
    cache.parts.VERIFIED.clear()
    for _ in range(3):
        assert_right(folder)
    assert hashed == ["part-00000.h5", "part-00001.h5", "part-00002.h5"]
    pickle.loads(pickle.dumps(Reader(folder))).read("image-0000")
    assert len(hashed) == 3
    reader = Reader(folder)
    reader.read("image-0003")
    content = (folder / "part-00001.h5").read_bytes()
    in_place(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:], folder / "part-00001.h5")
    with pytest.raises(DamagedPart, match="SHA-256"):
        reader.read("image-0003")


def test_lengths_are_read_without_hashing(folder, monkeypatch):
    monkeypatch.setattr(cache.parts, "verify_descriptor", lambda *given: pytest.fail("hashed"))
    Reader(folder).lengths()


def test_whoever_trusts_the_disk_does_not_wait_for_hashes(folder, monkeypatch):
    monkeypatch.setattr(cache.parts, "verify_descriptor", lambda *given: pytest.fail("hashed"))
    monkeypatch.setenv("RCNN_TRUST_DISK", "1")
    assert_right(folder)
    monkeypatch.setenv("RCNN_TRUST_DISK", "yes")
    with pytest.raises(CacheError, match="RCNN_TRUST_DISK=yes: must be 1"):
        assert_right(folder)


def test_no_manifest_over_a_damaged_part(tmp_path):
    writer = open_writer(tmp_path / "c", sample_ids(9), 3)
    for part in writer.claim():
        writer.write(part, [sample_record(item_id) for item_id in part.item_ids])
    path = tmp_path / "c" / "part-00002.h5"
    flip(path, path.stat().st_size - 30)
    with pytest.raises(DamagedPart, match=r"part-00002\.h5: damaged \(its SHA-256"):
        writer.finish({})
    writer.release()
    assert not (tmp_path / "c" / "manifest.json").exists()


def test_a_part_of_another_cache_is_refused_and_made_again(folder, tmp_path):
    """The same ids and lengths, another key: nothing but the header tells."""
    writer = Writer(tmp_path / "other", OTHER, sample_ids(9), SCHEMA, part_size=3)
    for part in writer.claim():
        writer.write(part, [sample_record(item_id) for item_id in part.item_ids])
    writer.finish({})
    writer.release()
    path = folder / "part-00001.h5"
    right = path.read_bytes()
    shutil.copy(tmp_path / "other" / "part-00001.h5", path)
    verify_part(path)
    with pytest.raises(DamagedPart, match=rf"its header says key '{OTHER.key}' instead of '{IDENTITY.key}'") as caught:
        Reader(folder).read("image-0003")
    cache.set_aside(caught.value)
    fill(folder, sample_ids(9), 3)
    assert path.read_bytes() == right


def test_parts_of_before_are_read_and_checked_on_opening(folder, monkeypatch):
    """HDF5 1.8's index of chunks has no checksum: there a flipped bit made zeros of a chunk."""
    original = h5py.File

    def old_format(name, *given, **options):
        return original(name, *given, **options | ({"libver": ("v108", "v108")} if "libver" in options else {}))

    monkeypatch.setattr(cache.parts.h5py, "File", old_format)
    before = cache.parts.part_bytes(SCHEMA, sample_ids(9)[3:6], [sample_record(one) for one in sample_ids(9)[3:6]], {})
    monkeypatch.undo()
    path = folder / "part-00001.h5"
    header = read_header(path)
    cache.parts.write_part(path, {n: header[n] for n in ("stage", "key", "part", "items", "compression")}, before)
    assert_right(folder)
    content = path.read_bytes()
    nodes = [place for place in range(512, len(content)) if content.startswith(b"TREE", place)]
    assert nodes
    for place in range(nodes[0], nodes[0] + 64):
        flip(path, place)
        with pytest.raises(DamagedPart):
            Reader(folder).open_part(1)
        path.write_bytes(content)


# Plans and manifests


@pytest.mark.parametrize(("name", "damage"), [("plan.json", DamagedPlan), ("manifest.json", DamagedManifest)])
def test_every_bit_of_a_plan_and_a_manifest_is_noticed_or_harmless(tmp_path, name, damage):
    fill(tmp_path / "c", ["a"])
    path = tmp_path / "c" / name

    def read():
        return plan_in.__wrapped__(path, ()).as_json() if name == "plan.json" else read_manifest(path)

    content, expected = path.read_bytes(), read()
    noticed = 0
    with path.open("r+b") as file:
        for position, byte in enumerate(content):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([byte ^ 1 << bit]), position)
                try:
                    found = read()
                except damage as error:
                    noticed += error.path == path
                else:  # the name "sha256" is another: a file of before, with a member that nobody knows
                    assert {one: found[one] for one in expected} == expected, (position, bit)
            os.pwrite(file.fileno(), bytes([byte]), position)
    assert read() == expected
    assert noticed > 7 * len(content)


SHAPES = ["[]", "{}", "1", '"plan"', "null", "[" * 100_000, "9" * 5000, "{", "", '{"format": 1, "parts": [1]}',
          '{"item_ids": 5, "part_size": "x", "identity": [], "schema": {}}', "\xff"]  # fmt: skip


@pytest.mark.parametrize("text", SHAPES, ids=range(len(SHAPES)))
def test_other_shapes_are_damage_that_the_next_writer_mends(folder, text):
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*")}
    for name, damage in (("plan.json", DamagedPlan), ("manifest.json", DamagedManifest)):
        (folder / name).write_text(text, encoding="latin-1")
        with pytest.raises(damage, match=rf"{name}: damaged"):
            Reader(folder)
        with pytest.raises(damage) as caught:
            Reader(folder)
        cache.set_aside(caught.value)
        fill(folder, sample_ids(9), 3)
        assert_right(folder)
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*")} == before


@pytest.mark.parametrize("name", ["part_size", "key", "items_sha256", "schema", "item_ids", "identity"])
def test_a_changed_plan_is_made_again_and_every_part_is_kept(folder, name):
    """Whatever part size the process that mends it would have chosen."""
    path = folder / "plan.json"
    content = path.read_bytes()
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*")}
    place = content.index(f'"{name}"'.encode()) + len(name) + 5
    while not chr(content[place]).isalnum():
        place += 1
    flip(path, place)
    with pytest.raises(DamagedPlan, match=r"plan\.json: damaged"):
        Reader(folder)
    writer = open_writer(folder, sample_ids(9), 4)
    assert (writer.part_size, writer.unfinished()) == (3, [])
    writer.finish({})
    writer.release()
    assert path.read_bytes() == content
    assert (folder / "plan.json.damaged-0").exists()
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*")} == before
    assert_right(folder)


@pytest.mark.parametrize("there", [[0], [2], [0, 2], [1]])
def test_a_lost_plan_is_made_again_for_the_parts_that_are_there(tmp_path, there):
    """The last part is not full: 8 items in parts of three."""
    fill(tmp_path / "c", sample_ids(8), 3)
    (tmp_path / "c" / "plan.json").unlink()
    for index in {0, 1, 2} - set(there):
        (tmp_path / "c" / f"part-{index:05d}.h5").unlink()
    writer = open_writer(tmp_path / "c", sample_ids(8), 5)
    assert writer.part_size == 3
    assert [part.index for part in writer.unfinished()] == sorted({0, 1, 2} - set(there))
    writer.release()


def without_seal(path, **changes):
    value, sealed = read_sealed(path, DamagedFile)
    assert sealed
    write_json(path, value | changes)


def test_files_of_before_without_a_checksum_are_taken(folder):
    for name in ("plan.json", "manifest.json"):
        without_seal(folder / name)
    assert_right(folder)
    open_writer(folder, sample_ids(9), 4).release()
    assert not list(folder.glob("*.damaged-*"))


def test_a_plan_of_before_is_compared_with_itself_and_with_the_parts(folder):
    without_seal(folder / "plan.json", item_ids=[*sample_ids(8), "image-0009"])
    with pytest.raises(DamagedPlan, match="its list of items"):
        Reader(folder)
    without = [("part_size", 2), ("part_size", 4), ("key", "0" * 12)]
    for name, value in without:
        fill(folder, sample_ids(9), 3)
        without_seal(folder / "plan.json", **{name: value})
        with pytest.raises(DamagedPlan):
            Reader(folder)
        assert open_writer(folder, sample_ids(9), 5).part_size == 3
    assert not list(folder.glob("part-*.damaged-*"))


def test_a_manifest_of_other_parts_than_the_plan_is_not_believed(folder):
    manifest = manifest_of(folder)
    cache.files.write_sealed(folder / "manifest.json", {**manifest, "parts": manifest["parts"][:2]})
    with pytest.raises(DamagedManifest, match=r"its parts differ from those of the plan\.json"):
        Reader(folder)


def test_an_observer_that_comes_late_puts_a_mended_plan_back(folder):
    cache.set_aside(DamagedPlan(folder / "plan.json", "seen before another process wrote it again"))
    assert read_plan(folder).part_size == 3
    assert not list(folder.glob("*.damaged-*"))


# What cannot be read

REFUSALS = [errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.ENOMEM, errno.EIO, errno.ESTALE]


def refuse(monkeypatch, path, code, times=10**9):
    """The file `path` cannot be opened or looked at, `times` times."""
    left = [times]

    def refusing(original):
        def opened(name, *given, **options):
            if isinstance(name, str | os.PathLike) and Path(name).name == path.name and left[0]:
                left[0] -= 1
                raise OSError(code, os.strerror(code), str(path))
            return original(name, *given, **options)

        return opened

    monkeypatch.setattr(pathlib.Path, "open", refusing(pathlib.Path.open))
    monkeypatch.setattr(os, "stat", refusing(os.stat))


@pytest.mark.parametrize("code", REFUSALS, ids=errno.errorcode.get)
@pytest.mark.parametrize("name", ["part-00001.h5", "plan.json", "manifest.json"])
def test_a_file_that_cannot_be_read_is_a_sentence_and_no_damage(folder, monkeypatch, name, code):
    before = sorted(os.listdir(folder))
    refuse(monkeypatch, folder / name, code)
    attempts = [
        lambda: assert_right(folder),
        lambda: open_writer(folder, sample_ids(9), 3).unfinished(),
        lambda: verify_part(folder / name),
        lambda: read_header(folder / name),
    ]
    for attempt in attempts[: 2 if name == "plan.json" else 1 if name == "manifest.json" else 4]:
        with pytest.raises(CacheError, match=rf"{name}: cannot be read \({os.strerror(code)}\)") as caught:
            attempt()
        assert not isinstance(caught.value, DamagedFile)
    monkeypatch.undo()
    shutil.rmtree(folder / "claims", ignore_errors=True)
    assert sorted(os.listdir(folder)) == before
    assert_right(folder)


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN], ids=errno.errorcode.get)
def test_what_a_network_disk_gives_later_is_waited_for(folder, monkeypatch, code):
    monkeypatch.setattr(cache.files, "PAUSES", (0, 0))
    refuse(monkeypatch, folder / "part-00001.h5", code, times=2)
    assert_right(folder)


def test_hdf5_failing_on_sound_bytes_is_tried_again_and_then_a_sentence(folder, monkeypatch):
    original, failures = h5py.File, [1]

    def failing(*given, **options):
        if failures[0]:
            failures[0] -= 1
            raise OSError("Can't synchronously read data (memory allocation failed)")
        return original(*given, **options)

    monkeypatch.setattr(cache.parts.h5py, "File", failing)
    assert_right(folder)
    failures[0] = 10**9
    with pytest.raises(
        CacheError, match=r"part-00000\.h5: HDF5 cannot read it .*although its SHA-256 is correct"
    ) as caught:
        Reader(folder).read("image-0000")
    assert not isinstance(caught.value, DamagedFile)


def test_no_more_files_may_be_opened(folder):
    """Really: the process has as many as it may."""
    code = (
        "import os, resource, sys; from pathlib import Path; from cache import CacheError, DamagedFile, Reader;"
        "reader = Reader(Path(sys.argv[1])); reader.read('image-0000');"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); files = []\n"
        "try:\n  while True: files.append(os.open(os.devnull, os.O_RDONLY))\nexcept OSError: pass\n"
        "reader.close()\n"
        "os.close(files.pop()) if len(sys.argv) > 2 else files.append(os.open(os.devnull, os.O_RDONLY))\n"
        "try: print(len(reader.read('image-0003')))\n"
        "except DamagedFile as error: print('DAMAGED', error)\n"
        "except CacheError as error: print(error)\n"
    )
    for more, expected in (([], "Too many open files"), (["one"], "4")):
        line = [sys.executable, "-c", code, str(folder), *more]
        told = subprocess.run(line, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
        assert expected in told
    assert_right(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_part_that_another_user_may_not_read_is_left_alone(folder):
    (folder / "part-00001.h5").chmod(0)
    with pytest.raises(
        CacheError, match=r"part-00001\.h5: cannot be read \(Permission denied\); check its owner and permissions"
    ):
        assert_right(folder)
    (folder / "part-00001.h5").chmod(0o600)
    assert_right(folder)


def test_a_missing_part_is_damage_unless_the_whole_folder_is_away(folder):
    reader = Reader(folder)
    (folder / "part-00001.h5").unlink()
    with pytest.raises(DamagedPart, match="the file is missing"):
        reader.read("image-0003")
    folder.rename(folder.with_name("unmounted"))
    with pytest.raises(CacheError, match="its disk is not mounted") as caught:
        reader.read("image-0003")
    assert not isinstance(caught.value, DamagedFile)


# The view


def test_a_view_whose_part_is_gone_has_nan_and_whole_numbers_that_are_right(folder):
    (folder / "part-00001.h5").rename(folder / "part-00001.h5.damaged-0")
    ids = sample_ids(9)
    with h5py.File(folder / "data.h5") as file:
        offsets, boxes, scores = file["offsets"][:], file["boxes"][:], file["candidates/score"][:]
        gone = slice(offsets[3], offsets[6])
        assert offsets[6] > offsets[3]
        assert np.isnan(boxes[gone]).all()
        assert np.isnan(file["fc7"][gone]).all()
        assert np.isnan(scores[file["candidates/offsets"][3] : file["candidates/offsets"][6]]).all()
        assert not np.isnan(boxes[: offsets[3]]).any()
        assert file["image_size"][:].tolist() == [sample_record(one)["image_size"].tolist() for one in ids]
    with pytest.raises(CacheError, match=r"shows part-00001\.h5, which does not exist"), open_view(folder / "data.h5"):
        pass


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_characters_of_a_view_are_not_copied_and_empty_where_their_part_is_gone(tmp_path, compression):
    schema, ids = Schema(tables={"masks": {"counts": Column("S1")}}), sample_ids(3)
    writer = Writer(tmp_path / "c", IDENTITY, ids, schema, part_size=1, compression=compression)
    texts = dict(zip(ids, (b"12", b"", b"345"), strict=True))
    for part in writer.claim():
        (item_id,) = part.item_ids
        writer.write(part, [{"masks/counts": np.frombuffer(texts[item_id], "S1")}])
    writer.finish({})
    writer.release()
    reader = Reader(tmp_path / "c")
    assert {item_id: record["masks/counts"].tobytes() for item_id, record in reader.records()} == texts
    with h5py.File(tmp_path / "c" / "data.h5") as file:
        assert file["masks/counts"].is_virtual
        assert file["masks/counts"][:].tobytes() == b"12345"
    (tmp_path / "c" / "part-00000.h5").unlink()
    with h5py.File(tmp_path / "c" / "data.h5") as file:
        assert file["masks/counts"][:].tolist() == [b"", b"", b"3", b"4", b"5"]


def test_a_view_of_more_parts_than_files_may_be_open(tmp_path):
    """NaN or right without the project, right with it, and a sentence where the system allows no more."""
    fill(tmp_path / "c", sample_ids(90), 1)
    code = (
        "import resource, sys, h5py, numpy as np; from pathlib import Path\n"
        "import cache; from cache.view import open_view\n"
        "folder, hard = Path(sys.argv[1]), int(sys.argv[2])\n"
        "from tests.cache.samples import sample_ids, sample_record\n"
        "right = np.concatenate([sample_record(one)['boxes'] for one in sample_ids(90)])\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (48, hard))\n"
        "with h5py.File(folder / 'data.h5') as file: boxes = file['boxes'][:]; sizes = file['image_size'][:]\n"
        "lost = np.isnan(boxes); print(int(lost.sum()) > 0, bool((boxes == right)[~lost].all()))\n"
        "print(sizes.tolist() == [sample_record(one)['image_size'].tolist() for one in sample_ids(90)])\n"
        "with cache.open(folder / 'data.h5') as reader:\n"
        "  print(all((reader.read(one)['boxes'] == sample_record(one)['boxes']).all() for one in sample_ids(90)))\n"
        "try:\n  with open_view(folder / 'data.h5') as file: print(bool((file['boxes'][:] == right).all()))\n"
        "except cache.CacheError as error: print(error)\n"
    )
    for hard, last in ((1024, "True"), (48, "this process can open only 48")):
        line = [sys.executable, "-c", code, str(tmp_path / "c"), str(hard)]
        told = subprocess.run(line, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.splitlines()
        assert told[:3] == ["True True", "True", "True"]
        assert last in told[3]


def test_what_is_wrong_with_a_view_is_said_and_mended(folder):
    path, plan = folder / "data.h5", read_plan(folder)
    content = path.read_bytes()
    assert view_fault(folder, plan, thorough=True) is None
    path.unlink()
    assert view_fault(folder, plan) == "the file is missing"
    for length in (0, 100, 600, len(content) - 1):
        path.write_bytes(content[:length])
        assert view_fault(folder, plan)
    path.write_bytes(content)
    flip(path, len(content) - 40)
    assert view_fault(folder, plan) is None
    assert "SHA-256" in (view_fault(folder, plan, thorough=True) or "")
    write_view(Reader(folder))
    assert view_fault(folder, plan, thorough=True) is None


def test_every_bit_of_a_view_is_noticed(folder):
    path, plan = folder / "data.h5", read_plan(folder)
    content = path.read_bytes()
    for number in range(0, len(content) * 8, 61):
        flip(path, number // 8, number % 8)
        assert view_fault(folder, plan, thorough=True)
        flip(path, number // 8, number % 8)


def test_a_view_of_before_is_taken_until_every_byte_is_read(folder):
    plan = read_plan(folder)
    with h5py.File(folder / "data.h5", "w", libver=("v110", "v110")) as file:
        file["boxes"] = [1.0]
    assert view_fault(folder, plan) is None
    assert "earlier version" in (view_fault(folder, plan, thorough=True) or "")
    os.truncate(folder / "data.h5", 300)
    assert view_fault(folder, plan)
