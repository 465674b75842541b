"""Fetching archives from a local server: resumed, checked, unpacked safely, and skipped when they are there."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import io
import re
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stages.datasets import BadDataset, download
from stages.datasets.download import Archive, BadDownload, archives_of, fetch, is_complete, unpack


class Server(ThreadingHTTPServer):
    """Serves `files` from memory; `ranges` tells whether it continues files, `cuts` how many bytes of each of the next
    answers it sends before it breaks off; `requests` are (path, Range header)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.cuts: list[int] = []
        self.status: int | None = None
        self.requests: list[tuple[str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        content = self.server.files.get(self.path.lstrip("/"))
        if self.server.status or content is None:
            return self.send_error(self.server.status or 404)
        start = 0
        if asked and self.server.ranges:
            match = re.fullmatch(r"bytes=(\d+)-", asked)
            assert match is not None, asked
            start = int(match[1])
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else None
        self.wfile.write(content[start:][:cut])
        return None

    def log_message(self, *_: object) -> None:
        """Keeps quiet."""


def tar_of(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def voc_files(split: str, ids: tuple[str, ...]) -> dict[str, bytes]:
    base = "VOCdevkit/VOC2007"
    files = {f"{base}/ImageSets/Main/{split}.txt": "".join(f"{one}\n" for one in ids).encode()}
    for one in ids:
        files[f"{base}/JPEGImages/{one}.jpg"] = f"jpeg {one}".encode() * 500
        files[f"{base}/Annotations/{one}.xml"] = b"<annotation/>"
    return files


TRAINVAL = tar_of(voc_files("trainval", ("1", "2")))
TEST = tar_of(voc_files("test", ("3",)))


def archive(name: str, content: bytes, split: str, address: str) -> Archive:
    return Archive(f"{name}.tar", f"{address}/{name}.tar", hashlib.md5(content).hexdigest(), "VOCdevkit/VOC2007", split)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that has voc2007 as two small archives, at the addresses that `fetch` believes to be the right ones."""
    server = Server()
    server.files = {"trainval.tar": TRAINVAL, "test.tar": TEST}
    archives = (
        archive("trainval", TRAINVAL, "trainval", server.address),
        archive("test", TEST, "test", server.address),
    )
    monkeypatch.setattr(download, "archives_of", lambda name: archives)
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.001)
    monkeypatch.delenv("RCNN_VOC_MIRROR", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.01), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_both_archives_end_up_in_one_folder(server: Server, tmp_path: Path) -> None:
    home = fetch("voc2007", tmp_path)
    assert home == tmp_path / "VOCdevkit" / "VOC2007"
    assert is_complete(home, "trainval")
    assert is_complete(home, "test")
    assert (home / "JPEGImages" / "3.jpg").read_bytes() == b"jpeg 3" * 500
    assert visible(tmp_path) == ["VOCdevkit", "test.tar", "trainval.tar"]
    assert [path for path, _ in server.requests] == ["/trainval.tar", "/test.tar"]


def test_what_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    home = fetch("voc2007", tmp_path)
    for name in ("trainval.tar", "test.tar"):
        (tmp_path / name).unlink()
    server.requests.clear()
    fetch("voc2007", tmp_path)
    assert server.requests == []
    (home / "JPEGImages" / "3.jpg").unlink()
    fetch("voc2007", tmp_path)
    assert [path for path, _ in server.requests] == ["/test.tar"]
    assert (home / "JPEGImages" / "3.jpg").exists()


def test_an_archive_that_is_there_is_only_unpacked(server: Server, tmp_path: Path) -> None:
    (tmp_path / "trainval.tar").write_bytes(TRAINVAL)
    fetch("voc2007", tmp_path)
    assert [path for path, _ in server.requests] == ["/test.tar"]


def test_an_interrupted_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    (tmp_path / "trainval.tar.part").write_bytes(TRAINVAL[:3000])
    fetch("voc2007", tmp_path)
    assert server.requests[0] == ("/trainval.tar", "bytes=3000-")
    assert (tmp_path / "trainval.tar").read_bytes() == TRAINVAL


def test_a_connection_that_breaks_off_is_taken_up_again(server: Server, tmp_path: Path) -> None:
    server.cuts = [1000, 2000, 0, 500]
    fetch("voc2007", tmp_path)
    asked = [header for path, header in server.requests if path == "/trainval.tar"]
    assert asked == [None, "bytes=1000-", "bytes=3000-", "bytes=3000-", "bytes=3500-"]
    assert (tmp_path / "trainval.tar").read_bytes() == TRAINVAL


def test_a_connection_that_brings_nothing_is_given_up_and_the_rest_kept(server: Server, tmp_path: Path) -> None:
    server.cuts = [1000, 0, 0, 0, 0, 0, 0]
    with pytest.raises(BadDownload, match=r"the connection was lost.*run again to resume from the 1,000 bytes kept"):
        fetch("voc2007", tmp_path)
    assert (tmp_path / "trainval.tar.part").read_bytes() == TRAINVAL[:1000]
    server.cuts = []
    fetch("voc2007", tmp_path)
    assert is_complete(tmp_path / "VOCdevkit/VOC2007", "trainval")


def test_a_server_that_cannot_continue_starts_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "trainval.tar.part").write_bytes(b"x" * 3000)
    fetch("voc2007", tmp_path)
    assert (tmp_path / "trainval.tar").read_bytes() == TRAINVAL


@pytest.mark.parametrize("extra", [b"", b"too long"])
def test_a_part_that_is_already_whole_or_too_long(server: Server, tmp_path: Path, extra: bytes) -> None:
    (tmp_path / "trainval.tar.part").write_bytes(TRAINVAL + extra)
    fetch("voc2007", tmp_path)
    assert (tmp_path / "trainval.tar").read_bytes() == TRAINVAL
    assert [header for path, header in server.requests if path == "/trainval.tar"][1:] == ([None] if extra else [])


def test_a_wrong_checksum_is_told_and_the_file_set_aside(server: Server, tmp_path: Path) -> None:
    server.files["trainval.tar"] = TRAINVAL[:-1] + b"x"
    with pytest.raises(BadDownload, match=r"trainval\.tar\.bad: has the checksum [0-9a-f]{32}, not ") as caught:
        fetch("voc2007", tmp_path)
    assert "\n" not in str(caught.value)
    assert visible(tmp_path) == ["trainval.tar.bad"]
    server.files["trainval.tar"] = TRAINVAL
    fetch("voc2007", tmp_path)
    assert is_complete(tmp_path / "VOCdevkit/VOC2007", "trainval")


def test_a_damaged_archive_on_disk_is_set_aside_too(server: Server, tmp_path: Path) -> None:
    (tmp_path / "trainval.tar").write_bytes(b"something else")
    with pytest.raises(BadDownload, match="it was set aside"):
        fetch("voc2007", tmp_path)
    assert visible(tmp_path) == ["trainval.tar.bad"]


def test_a_missing_file_is_told_at_once(server: Server, tmp_path: Path) -> None:
    server.files.clear()
    with pytest.raises(BadDownload, match=r"trainval\.tar: could not be fetched \(the server answered 404 Not Found\)"):
        fetch("voc2007", tmp_path)
    assert len(server.requests) == 1


def test_a_server_in_trouble_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.status = 503
    with pytest.raises(BadDownload, match="answered 503"):
        fetch("voc2007", tmp_path)
    assert len(server.requests) == download.ATTEMPTS


def test_no_network_is_one_sentence(server: Server, tmp_path: Path) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(BadDownload, match=r"could not be fetched \(.*refused") as caught:
        fetch("voc2007", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_mirror_by_argument_or_variable(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files = {f"pub/voc/{name}": content for name, content in server.files.items()}
    fetch("voc2007", tmp_path / "a", mirror=f"{server.address}/pub/voc/")
    monkeypatch.setenv("RCNN_VOC_MIRROR", f"{server.address}/pub/voc")
    fetch("voc2007", tmp_path / "b")
    assert {path for path, _ in server.requests} == {"/pub/voc/trainval.tar", "/pub/voc/test.tar"}


def test_a_mirror_that_is_no_address(server: Server, tmp_path: Path) -> None:
    with pytest.raises(BadDownload, match="is not a valid download address"):
        fetch("voc2007", tmp_path, mirror="somewhere")


def test_only_one_process_fetches_a_file(server: Server, tmp_path: Path) -> None:
    with open(tmp_path / ".trainval.tar.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BadDownload, match="another process is fetching it"):
            fetch("voc2007", tmp_path)
    fetch("voc2007", tmp_path)


def test_a_folder_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadDownload, match="cannot be written"):
        fetch("voc2007", tmp_path / "file" / "below")


def test_progress_counts_every_byte(server: Server, tmp_path: Path) -> None:
    bars: list[tuple[str, int, list[int]]] = []

    class Bar:
        def __init__(self, label: str, total: int, unit: str) -> None:
            self.done: list[int] = []
            bars.append((label, total, self.done))

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def advance(self, items: int = 1, rows: int = 0) -> None:
            self.done.append(items)

    (tmp_path / "trainval.tar.part").write_bytes(TRAINVAL[:3000])
    fetch("voc2007", tmp_path, Bar)
    totals = {(label, total): sum(done) for label, total, done in bars if label == "fetch"}
    assert totals == {("fetch", len(TRAINVAL)): len(TRAINVAL), ("fetch", len(TEST)): len(TEST)}
    assert [label for label, _, _ in bars] == ["fetch", "unpack"] * 2


# Unpacking


def link(name: str, target: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = tarfile.SYMTYPE, target
        tar.addfile(member)
    return stream.getvalue()


@pytest.mark.parametrize("content", [tar_of({"../escaped": b"x"}), link("inside", "../../escaped"), link("x", "/etc")])
def test_a_member_that_would_escape_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "bad.tar").write_bytes(content)
    with pytest.raises(BadDownload, match=r"bad\.tar: cannot be unpacked"):
        unpack(tmp_path / "bad.tar", tmp_path / "place", download.silent)
    assert list((tmp_path / "place").iterdir()) == []
    assert visible(tmp_path) == ["bad.tar", "place"]


@pytest.mark.parametrize("content", [b"", b"no archive" * 300, TRAINVAL[:2500]])
def test_a_file_that_is_no_whole_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.tar").write_bytes(content)
    with pytest.raises(BadDownload, match=r"bad\.tar: cannot be unpacked"):
        unpack(tmp_path / "bad.tar", tmp_path, download.silent)
    assert visible(tmp_path) == ["bad.tar"]


def test_an_archive_without_the_image_set_is_an_error(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tar_of({"readme.txt": b"hello"})
    server.files["trainval.tar"] = other
    monkeypatch.setattr(download, "archives_of", lambda name: (archive("trainval", other, "trainval", server.address),))
    with pytest.raises(BadDownload, match="does not contain the whole image set 'trainval'"):
        fetch("voc2007", tmp_path)


# The real table


def test_the_addresses_and_checksums_are_torchvisions() -> None:
    trainval, test = archives_of("voc2007")
    assert (trainval.md5, test.md5) == ("c52e279531787c972589f7e41ab4ae64", "b6e924de25625d8de591ea690078ad9f")
    assert (trainval.split, test.split) == ("trainval", "test")
    (twelve,) = archives_of("voc2012")
    assert twelve.base == "VOCdevkit/VOC2012"
    assert twelve.filename == "VOCtrainval_11-May-2012.tar"
    with pytest.raises(BadDataset, match="'voc2077' is not a dataset that can be fetched, did you mean 'voc2007'"):
        archives_of("voc2077")


def test_what_the_user_changed_is_not_unpacked_over(server: Server, tmp_path: Path) -> None:
    home = fetch("voc2007", tmp_path)
    (home / "JPEGImages" / "3.jpg").unlink()
    (home / "Annotations" / "3.xml").write_text("corrected by hand")
    with pytest.raises(BadDownload, match=r"3\.xml: already exists and differs from the archive's"):
        fetch("voc2007", tmp_path)
    assert (home / "Annotations" / "3.xml").read_text() == "corrected by hand"
    assert not (home / "JPEGImages" / "3.jpg").exists()
