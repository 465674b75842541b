"""Nothing finished is ever lost or torn: kills at random moments, several writers, flipped bits, a full disk."""

import errno
import hashlib
import inspect
import itertools
import json
import linecache
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cache.files
from cache import CacheError, DamagedPart, DiskFull, Reader, set_aside
from cache.claims import Claims, withdraw
from cache.parts import verify_part
from tests.cache.samples import fill, open_writer, sample_ids, sample_record

PROJECT = Path(__file__).parents[2]
KILLS = 20


def contents(folder):
    """The bytes of every part, and the manifest without what may differ."""
    parts = {path.name: path.read_bytes() for path in sorted(folder.glob("part-*.h5"))}
    manifest = json.loads((folder / "manifest.json").read_text())
    return parts, {name: manifest[name] for name in ("key", "items", "rows", "bytes", "parts")}


FILL_SLOWLY = """
import sys, time
from pathlib import Path
from tests.cache.samples import open_writer, sample_ids, sample_record
writer = open_writer(Path(sys.argv[1]), sample_ids(60), 3)
print("ready", flush=True)
for part in writer.claim():
    time.sleep(0.005)
    writer.write(part, [sample_record(one) for one in part.item_ids])
if not writer.unfinished():
    writer.finish({})
writer.release()
"""


def start_filling(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", FILL_SLOWLY, str(folder)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    return process


def test_sigkill_at_random_moments_loses_nothing_that_was_finished(tmp_path):
    fill(tmp_path / "undisturbed", sample_ids(60), 3)
    random_moment = random.Random(0)
    folder, interrupted = tmp_path / "c", 0
    for _ in range(KILLS):
        process = start_filling(folder)
        time.sleep(random_moment.uniform(0, 0.08))
        process.send_signal(signal.SIGKILL)
        interrupted += process.wait() == -signal.SIGKILL
        finished = {path.name: path.read_bytes() for path in folder.glob("part-*.h5")}
        for path in folder.glob("part-*.h5"):
            verify_part(path)
        writer = open_writer(folder, sample_ids(60), 3)
        assert {part.name for part in writer.parts} - {part.name for part in writer.unfinished()} == set(finished)
        if not writer.unfinished():
            break
    assert interrupted > 0
    fill(folder, sample_ids(60), 3)
    assert contents(folder) == contents(tmp_path / "undisturbed")
    assert sorted(os.listdir(folder)) == sorted(os.listdir(tmp_path / "undisturbed"))


def count_writes(folder, counts, number, both_are_there):
    writer = open_writer(folder, sample_ids(40), 2)
    both_are_there.wait()
    for part in writer.claim():
        time.sleep(0.01)
        writer.write(part, [sample_record(one) for one in part.item_ids])
        counts[number] += 1
    while writer.wait(lambda parts: None, 0.02):
        pass
    writer.finish({})
    writer.release()


def test_two_processes_fill_one_cache_and_share_the_work(tmp_path):
    fill(tmp_path / "alone", sample_ids(40), 2)
    context = multiprocessing.get_context("spawn")
    counts, both_are_there = context.Array("i", 2), context.Barrier(2)
    arguments = [(tmp_path / "c", counts, number, both_are_there) for number in range(2)]
    processes = [context.Process(target=count_writes, args=given) for given in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert contents(tmp_path / "c") == contents(tmp_path / "alone")
    assert counts[0] + counts[1] == 20
    assert min(counts[0], counts[1]) > 0


def test_a_dead_process_on_this_host_leaves_no_claim_behind(tmp_path):
    process = start_filling(tmp_path / "c")
    time.sleep(0.02)
    process.kill()
    process.wait()
    writer = open_writer(tmp_path / "c", sample_ids(60), 3)
    left = {part.name for part in writer.unfinished()}
    assert {part.name for part in writer.claim()} == left
    writer.release()


def test_a_host_that_died_is_known_by_its_heartbeat_standing_still(tmp_path):
    dead = Claims(tmp_path, host="another-host 1 1")
    assert dead.try_claim("part-00000.h5")
    dead.stopped.set()
    mine = Claims(tmp_path, patience=0.3)
    assert not mine.try_claim("part-00000.h5")
    time.sleep(0.4)
    assert mine.try_claim("part-00000.h5")
    mine.close()
    assert os.listdir(tmp_path) == []


def test_a_beating_heart_on_another_host_keeps_its_claim(tmp_path, monkeypatch):
    monkeypatch.setattr("cache.claims.BEAT_SECONDS", 0.05)
    alive = Claims(tmp_path, host="another-host 1 1")
    assert alive.try_claim("part-00000.h5")
    mine = Claims(tmp_path, patience=0.4)
    for _ in range(8):
        assert not mine.try_claim("part-00000.h5")
        time.sleep(0.1)
    alive.close()
    assert mine.try_claim("part-00000.h5")
    mine.close()


def test_a_claim_is_not_taken_from_who_took_it_over_in_the_meantime(tmp_path):
    """Two observers judge one claim dead; the second is late, and finds the first one's claim in its place."""
    dead = Claims(tmp_path)
    dead.owner["started"] = "another process of that number"
    assert dead.try_claim("part-00000.h5")
    path = tmp_path / "part-00000.h5"
    first, second = Claims(tmp_path), Claims(tmp_path)
    is_dead, judged = second.judge(path)
    assert is_dead
    assert judged == dead.text
    assert first.try_claim("part-00000.h5")
    assert not second.replace(path, judged)
    assert path.read_text() == first.text
    assert not second.try_claim("part-00000.h5")
    for one in (dead, second, first):
        one.close()
    assert os.listdir(tmp_path) == []


def test_a_claim_that_changes_at_the_moment_of_its_removal_is_put_back(tmp_path, monkeypatch):
    mine, path = Claims(tmp_path), tmp_path / "part-00000.h5"
    path.write_text("of a dead process")
    rename = os.rename

    def late(source, target):
        Path(source).write_text(mine.text)
        rename(source, target)

    monkeypatch.setattr("cache.claims.os.rename", late)
    assert not withdraw(path, "of a dead process")
    assert path.read_text() == mine.text
    assert os.listdir(tmp_path) == ["part-00000.h5"]


def test_of_many_that_take_over_one_claim_one_succeeds(tmp_path):
    for number in range(20):
        name = f"part-{number:05d}.h5"
        dead = Claims(tmp_path)
        dead.owner["started"] = "another process of that number"
        assert dead.try_claim(name)
        together = threading.Barrier(8)
        taken: list[bool] = []

        def take(claims, name=name, together=together, taken=taken):
            together.wait()
            taken.append(claims.try_claim(name))

        observers = [Claims(tmp_path) for _ in range(8)]
        threads = [threading.Thread(target=take, args=(claims,)) for claims in observers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(taken) == 1
        for claims in (dead, *observers):
            claims.close()
    assert os.listdir(tmp_path) == []


class Ended(BaseException):
    """What a signal raises."""


def test_a_claim_is_given_back_wherever_a_signal_ends_the_work(tmp_path):
    def end_at(line):
        """Claims and gives back, ended at that line of claims.py; whether there was such a line."""
        seen = itertools.count()

        def trace(frame, event, argument):
            if Path(frame.f_code.co_filename) != Path(inspect.getfile(Claims)):
                return None
            begins = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
            if begins.startswith("with "):  # a signal comes before or after a lock's release, a trace also within it
                return trace
            if event == "line" and next(seen) == line:
                sys.settrace(None)
                raise Ended
            return trace

        claims = Claims(tmp_path / str(line))
        claims.start_heart()
        before, ended = sys.gettrace(), False
        sys.settrace(trace)
        try:
            claims.try_claim("part-00000.h5")
            claims.release("part-00000.h5")
        except Ended:
            ended = True
        finally:
            sys.settrace(before)
            claims.close()
        assert not (claims.folder / "part-00000.h5").exists(), f"ended at line {line}"
        return ended

    lines = next(line for line in itertools.count() if not end_at(line))
    assert lines > 20


def test_who_died_while_it_took_a_claim_over_holds_nobody_up(tmp_path):
    dead, killed, mine = Claims(tmp_path), Claims(tmp_path), Claims(tmp_path)
    dead.owner["started"] = killed.owner["started"] = "another process of that number"
    assert dead.try_claim("part-00000.h5")
    assert killed.put(tmp_path / f"part-00000.h5.gone-{hashlib.sha256(dead.text.encode()).hexdigest()[:16]}")
    assert not mine.try_claim("part-00000.h5")
    assert mine.try_claim("part-00000.h5")
    for one in (dead, killed, mine):
        one.close()
    assert os.listdir(tmp_path) == []


def test_only_its_owner_gives_a_claim_back(tmp_path):
    writer, other = open_writer(tmp_path, sample_ids(8)), open_writer(tmp_path, sample_ids(8))
    copy = pickle.loads(pickle.dumps(other))
    part = next(writer.claim())
    claim = tmp_path / "claims" / part.name
    assert writer.claims is not None
    assert other.claims is not None
    other.claims.release(part.name)
    assert claim.read_text() == writer.claims.text
    copy.write(part, [sample_record(item) for item in part.item_ids])  # a copy in a worker process of the other
    assert claim.read_text() == writer.claims.text
    pickle.loads(pickle.dumps(writer)).write(part, [sample_record(item) for item in part.item_ids])
    assert not claim.exists()
    for one in (writer, other):
        one.release()
    assert not (tmp_path / "claims").exists()


def test_a_part_that_is_there_is_not_written_again(tmp_path):
    """What was half-written when its process was stopped may be swept up by whoever took over from it."""
    fill(tmp_path / "c", sample_ids(8))
    before = contents(tmp_path / "c")
    (first, second) = open_writer(tmp_path / "c", sample_ids(8)).parts
    stopped = open_writer(tmp_path / "c", sample_ids(8))
    inode = (tmp_path / "c" / first.name).stat().st_ino
    stopped.write(first, [sample_record(item) for item in first.item_ids])
    assert (tmp_path / "c" / first.name).stat().st_ino == inode
    os.truncate(tmp_path / "c" / second.name, 600)
    stopped.write(second, [sample_record(item) for item in second.item_ids])
    stopped.finish({"command": ["test"]})
    stopped.release()
    assert contents(tmp_path / "c") == before


def test_a_file_that_is_swept_up_under_its_writer_is_written_again(tmp_path, monkeypatch):
    writer, fsync = open_writer(tmp_path / "c", sample_ids(4)), os.fsync
    swept: list[Path] = []

    def sweep(descriptor):
        fsync(descriptor)
        swept.extend(path for path in (tmp_path / "c").glob("*.tmp-*"))
        for path in swept[:1]:
            path.unlink(missing_ok=True)

    monkeypatch.setattr(cache.files.os, "fsync", sweep)
    part = next(writer.claim())
    writer.write(part, [sample_record(item) for item in part.item_ids])
    monkeypatch.undo()
    assert len({path.name for path in swept}) == 2
    writer.finish({"command": ["test"]})
    writer.release()
    fill(tmp_path / "undisturbed", sample_ids(4))
    assert contents(tmp_path / "c") == contents(tmp_path / "undisturbed")


def test_only_what_the_dead_left_is_swept(tmp_path):
    writer = open_writer(tmp_path, sample_ids(4))
    part = next(writer.claim())
    writer.write(part, [sample_record(item) for item in part.item_ids])
    host = socket.gethostname()
    living = {f"work.tmp-{host}-{os.getpid()}-00000000", "manifest.json.tmp-another-host-7-00000000"}
    dead = {f"plan.json.tmp-{host}-{2**22 + 1}-00000000", "part-00000.h5.tmp-another-host-7-00000000"}
    for name in (*living, *dead, "checkpoint-00000.npz"):
        (tmp_path / name).touch()
    writer.finish({})
    writer.release()
    assert set(os.listdir(tmp_path)) == {*living, "plan.json", "part-00000.h5", "data.h5", "manifest.json"}


STOP = """
import os, signal, sys, time
from pathlib import Path
import cache.claims, cache.files
where, host, folder = sys.argv[1:]
if host:
    cache.claims.host_identity = lambda: host
    cache.files.socket.gethostname = lambda: host
cache.claims.BEAT_SECONDS = 0.05
from tests.cache.samples import open_writer, sample_ids, sample_record
def stop():
    print("stopped", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
writer = open_writer(Path(folder), sample_ids(12), 3)
parts = writer.claim()
first = next(parts)
if where == "in a file":
    fsync = os.fsync
    def stop_once(descriptor):
        fsync(descriptor)
        os.fsync = fsync
        stop()
    os.fsync = stop_once
else:
    stop()
writer.write(first, [sample_record(one) for one in first.item_ids])
for part in parts:
    writer.write(part, [sample_record(one) for one in part.item_ids])
print(writer.wait(lambda parts: None), flush=True)
writer.finish({"command": ["test"]})
writer.release()
"""


@pytest.mark.parametrize("where", ["at work", "in a file"])
@pytest.mark.parametrize("host", ["", "another-host"])
def test_a_stopped_process_holds_nobody_up_and_goes_on_when_all_is_done(tmp_path, host, where):
    fill(tmp_path / "undisturbed", sample_ids(12), 3)
    line = [sys.executable, "-c", STOP, where, host, str(tmp_path / "c")]
    stopped = subprocess.Popen(line, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert stopped.stdout is not None
    assert stopped.stdout.readline() == "stopped\n"
    writer = open_writer(tmp_path / "c", sample_ids(12), 3)
    assert writer.claims is not None
    writer.claims.patience = writer.claims.patience_here = 0.3
    while True:
        for part in writer.claim():
            writer.write(part, [sample_record(one) for one in part.item_ids])
        if not writer.wait(lambda parts: None, 0.02):
            break
    writer.finish({"command": ["test"]})
    writer.release()
    before = contents(tmp_path / "c")
    stopped.send_signal(signal.SIGCONT)
    printed, errors = stopped.communicate(timeout=60)
    assert (stopped.returncode, printed) == (0, "False\n"), errors
    assert contents(tmp_path / "c") == before == contents(tmp_path / "undisturbed")
    assert sorted(os.listdir(tmp_path / "c")) == sorted(os.listdir(tmp_path / "undisturbed"))


def test_free_parts_are_those_that_no_living_process_holds(tmp_path):
    writer, other = open_writer(tmp_path, sample_ids(20)), open_writer(tmp_path, sample_ids(20), shard="1/2")
    claimed = next(writer.claim())
    assert [part.index for part in writer.free()] == [1, 2, 3, 4]
    assert [part.index for part in other.free()] == [2, 4]
    writer.write(claimed, [sample_record(item) for item in claimed.item_ids])
    assert claimed not in writer.free()
    dead = Claims(tmp_path / "claims")
    dead.owner["started"] = "another process of that number"
    assert dead.try_claim("part-00002.h5")
    assert [part.index for part in other.free()] == [2, 4]
    writer.release()
    dead.close()


def test_a_torn_claim_file_is_taken_over_in_time(tmp_path):
    (tmp_path / "part-00000.h5").write_text("{")
    mine = Claims(tmp_path, patience=0.1)
    assert not mine.try_claim("part-00000.h5")
    time.sleep(0.2)
    assert mine.try_claim("part-00000.h5")
    mine.close()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_is_an_error_and_that_part_alone_is_made_again(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("cache") / "c"
    fill(folder, sample_ids(9), 3)
    before = contents(folder)
    path = folder / "part-00001.h5"
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    if place < 512:
        return_to_health(folder, path, before)
        return
    with pytest.raises(DamagedPart, match="SHA-256"):
        verify_part(path)
    assert_reading_raises_or_is_right(folder)
    return_to_health(folder, path, before)


def assert_reading_raises_or_is_right(folder):
    try:
        for item_id, record in Reader(folder).records():
            for name, values in sample_record(item_id).items():
                np.testing.assert_array_equal(record[name], values)
    except DamagedPart as error:
        if error.path.name != "part-00001.h5":
            raise


def return_to_health(folder, path, before):
    moved = set_aside(DamagedPart(path, "test"))
    assert moved.exists()
    assert not (folder / "manifest.json").exists()
    others = {one.name: one.stat().st_mtime_ns for one in folder.glob("part-*.h5")}
    fill(folder, sample_ids(9), 3)
    assert contents(folder) == before
    for name, time_written in others.items():
        assert (folder / name).stat().st_mtime_ns == time_written


@pytest.mark.parametrize("keep", [0, 100, 511, 512, 700, -1])
def test_a_truncated_part_is_noticed_without_reading_it(tmp_path, keep):
    fill(tmp_path / "c", sample_ids(9), 3)
    path = tmp_path / "c" / "part-00002.h5"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamagedPart, match=r"part-00002\.h5: damaged"):
        open_writer(tmp_path / "c", sample_ids(9), 3).unfinished()


def test_a_part_of_another_place_is_noticed(tmp_path):
    fill(tmp_path / "c", sample_ids(9), 3)
    shutil.copy(tmp_path / "c" / "part-00000.h5", tmp_path / "c" / "part-00001.h5")
    with pytest.raises(DamagedPart, match="its header says part 0 instead of 1"):
        list(Reader(tmp_path / "c").records())


@pytest.mark.parametrize("name", ["format", "stage", "key", "part", "items", "compression", '"bytes"'])
def test_a_header_that_can_still_be_read_but_is_not_the_one_written_is_noticed(tmp_path, name):
    """A flipped bit may leave valid JSON of the right length: the names and values are compared too."""
    fill(tmp_path / "c", sample_ids(9), 3)
    path = tmp_path / "c" / "part-00001.h5"
    content = bytearray(path.read_bytes())
    content[content.index(name.encode()) + 2] ^= 1
    path.write_bytes(content)
    json.loads(content[:512])
    with pytest.raises(DamagedPart, match=r"part-00001\.h5: damaged"):
        open_writer(tmp_path / "c", sample_ids(9), 3).unfinished()


@pytest.mark.parametrize(("value", "flipped"), [(b'"key": "', 8), (b'"part": ', 8), (b'"items": ', 9)])
def test_a_changed_value_in_a_header_is_noticed(tmp_path, value, flipped):
    fill(tmp_path / "c", sample_ids(9), 3)
    path = tmp_path / "c" / "part-00001.h5"
    content = bytearray(path.read_bytes())
    content[content.index(value) + flipped] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedPart, match=r"its header says (key|part|items) .* instead of"):
        open_writer(tmp_path / "c", sample_ids(9), 3).finish({})


def test_a_full_disk_is_a_sentence_and_what_is_finished_is_kept(tmp_path, monkeypatch):
    writer = open_writer(tmp_path / "c", sample_ids(9), 3)
    parts = writer.claim()
    writer.write(next(parts), [sample_record(one) for one in sample_ids(3)])
    second = next(parts)

    def no_space(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.files.os, "fsync", no_space)
    with pytest.raises(DiskFull, match="the disk is full; make room"):
        writer.write(second, [sample_record(one) for one in second.item_ids])
    monkeypatch.undo()
    writer.release()
    assert [part.index for part in open_writer(tmp_path / "c", sample_ids(9), 3).unfinished()] == [1, 2]
    assert not list((tmp_path / "c").glob("*.tmp-*"))
    fill(tmp_path / "c", sample_ids(9), 3)
    assert len(list(Reader(tmp_path / "c").records())) == 9


def test_a_disk_that_really_is_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        with pytest.raises(CacheError, match="the disk is full"):
            fill(disk / "c", sample_ids(4000), 400)
        finished = list((disk / "c").glob("part-*.h5"))
        for path in finished:
            verify_part(path)
        assert not list((disk / "c").glob("*.tmp-*"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path, monkeypatch):
    writer = open_writer(tmp_path / "c", ["a"])
    part = next(writer.claim())

    def refuse(source, target):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(cache.files.os, "link", refuse)
    with pytest.raises(CacheError, match=r"cannot be written \(Permission denied\)"):
        writer.write(part, [sample_record("a")])
    monkeypatch.undo()
    writer.release()
