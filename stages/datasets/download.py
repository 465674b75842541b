"""Fetching PASCAL VOC: resumable downloads, verified by checksum and unpacked atomically, file by file."""

from __future__ import annotations

import contextlib
import fcntl
import filecmp
import hashlib
import http.client
import logging
import os
import shutil
import ssl
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from cache.files import cannot
from stages.contract.errors import StageError
from stages.contract.execution import Progress, silent
from stages.contract.settings import nearest
from stages.datasets.layout import read_image_set
from stages.datasets.records import BadDataset

log = logging.getLogger("stages.datasets")

ProgressFactory = Callable[[str, int, str], AbstractContextManager[Progress]]

MIRROR_VARIABLE = "RCNN_VOC_MIRROR"
CHUNK = 1 << 20
TIMEOUT_SECONDS = 30
ATTEMPTS = 4
PAUSE_SECONDS = 1.0  # before the second attempt; doubled before each later one
NETWORK_ERRORS = (urllib.error.URLError, ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException)
TORCHVISION_YEARS = {
    "voc2007": (("2007", "trainval"), ("2007-test", "test")),
    "voc2012": (("2012", "trainval"),),
}
"""Per name, the keys of torchvision's table and the image set that each archive contains."""


class BadDownload(StageError):
    """A dataset that could not be fetched, has a wrong checksum, or comes in an archive that cannot be unpacked."""


@dataclass(frozen=True)
class Archive:
    """A tar file at `url`; once unpacked, its folder `base` is in VOC's layout and has the image set `split`."""

    filename: str
    url: str
    md5: str
    base: str
    split: str


def archives_of(name: str) -> tuple[Archive, ...]:
    """The archives of the dataset `name`, with torchvision's URLs and checksums. Raises BadDataset."""
    if name not in TORCHVISION_YEARS:
        raise BadDataset(f"'{name}' is not a dataset that can be fetched{nearest(name, TORCHVISION_YEARS)}")
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    rows = [(DATASET_YEAR_DICT[year], split) for year, split in TORCHVISION_YEARS[name]]
    return tuple(Archive(row["filename"], row["url"], row["md5"], row["base_dir"], split) for row, split in rows)


def fetch(name: str, directory: Path | str, progress: ProgressFactory = silent, *, mirror: str | None = None) -> Path:
    """Fetches "voc2007" (trainval and test) or "voc2012" (trainval) into `directory`; returns its VOC20xx folder.

    Complete image sets are skipped. `mirror`, or $RCNN_VOC_MIRROR, is a URL with files of the same names. Raises
    BadDownload.
    """
    archives = archives_of(name)
    place = Path(directory)
    try:
        place.mkdir(parents=True, exist_ok=True)
        for archive in archives:
            fetch_archive(archive, place, progress, mirror or os.environ.get(MIRROR_VARIABLE))
    except OSError as error:
        raise BadDownload(f"{place}: " + cannot("be written", error, "free some disk space or name another")) from None
    return place / archives[0].base


def fetch_archive(archive: Archive, directory: Path, progress: ProgressFactory, mirror: str | None) -> None:
    """Downloads an archive and unpacks it below `directory`, unless its image set is already complete there."""
    if is_complete(directory / archive.base, archive.split):
        log.info("%s: '%s' is already there, skipping", directory / archive.base, archive.split)
        return
    path = directory / archive.filename
    with locked(path):
        if not path.exists():
            part = path.with_name(f"{path.name}.part")
            download(f"{mirror.rstrip('/')}/{archive.filename}" if mirror else archive.url, part, progress)
            require_checksum(part, archive.md5, path)
            os.replace(part, path)
        else:
            require_checksum(path, archive.md5, path)
        unpack(path, directory, progress)
    if not is_complete(directory / archive.base, archive.split):
        raise BadDownload(f"{path}: does not contain the whole image set '{archive.split}'; remove it and run again")
    log.info("%s: unpacked; %s is no longer needed and may be removed", directory / archive.base, path.name)


def is_complete(home: Path, split: str) -> bool:
    """Whether every image of the image set and its annotation exist (unpacking only moves complete files here)."""
    image_set = home / "ImageSets" / "Main" / f"{split}.txt"
    if not image_set.is_file():
        return False
    wanted = read_image_set(image_set)
    images = {path.stem for path in (home / "JPEGImages").glob("*.jpg")}
    annotations = {path.stem for path in (home / "Annotations").glob("*.xml")}
    return images.issuperset(wanted) and annotations.issuperset(wanted)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Locks a file against being fetched by other processes. Raises BadDownload if one is already fetching it."""
    with open(path.with_name(f".{path.name}.lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadDownload(f"{path}: another process is fetching it; wait for it to finish") from None
        yield


def download(url: str, part: Path, progress: ProgressFactory) -> None:
    """Downloads `url` to the file `part`, resuming at its end. Raises BadDownload.

    Lost connections are retried, until ATTEMPTS in a row have brought no data.
    """
    failures, before = 0, size_of(part)
    while True:
        try:
            return receive(url, part, progress)
        except ValueError:
            raise BadDownload(f"{url}: is not a valid download address; correct the mirror's URL") from None
        except NETWORK_ERRORS as error:
            kept = size_of(part)
            failures, before = (failures + 1 if kept <= before else 1), max(kept, before)
            if failures == ATTEMPTS or is_final(error):
                then = f"run again to resume from the {kept:,} bytes kept" if kept else "try again, or another mirror"
                raise BadDownload(f"{url}: could not be fetched ({network_reason(error)}); {then}") from None
            log.warning("%s: %s, trying again", url, network_reason(error))
            time.sleep(PAUSE_SECONDS * 2 ** (failures - 1))


def size_of(path: Path) -> int:
    """The file's size in bytes; 0 if it does not exist."""
    return path.stat().st_size if path.exists() else 0


def require_checksum(file: Path, md5: str, path: Path) -> None:
    """Raises BadDownload if `file`, whose final name is `path`, has another MD5 checksum, and moves it to PATH.bad."""
    actual = md5_of(file)
    if actual != md5:
        bad = path.with_name(f"{path.name}.bad")
        os.replace(file, bad)
        raise BadDownload(f"{bad}: has the checksum {actual}, not {md5}; it was set aside; run again to download it")


def receive(url: str, part: Path, progress: ProgressFactory) -> None:
    """Appends to `part` what is missing of `url`; starts over if the server does not support resuming."""
    have = size_of(part)
    try:
        response = requested(url, have)
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if total_of(error.headers.get("Content-Range")) == have:
            return
        have = 0
        response = requested(url, have)
    with response:
        continued = response.status == HTTPStatus.PARTIAL_CONTENT and starts_at(response, have)
        start = have if continued else 0
        length = int(response.headers.get("Content-Length") or 0)
        with part.open("ab" if continued else "wb") as file, progress("fetch", start + length, "bytes") as bar:
            bar.advance(start)
            copy(response, file, bar)
    if length and size_of(part) < start + length:
        raise http.client.IncompleteRead(b"", start + length - size_of(part))


def requested(url: str, start: int) -> http.client.HTTPResponse:
    """The server's response to a request for `url` from byte `start` on."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    return response


def copy(response: http.client.HTTPResponse, file: BinaryIO, bar: Progress) -> None:
    """Writes the whole response to the open binary `file`."""
    while chunk := response.read(CHUNK):
        file.write(chunk)
        bar.advance(len(chunk))


def starts_at(response: http.client.HTTPResponse, position: int) -> bool:
    """Whether a partial response starts at the requested byte."""
    return (response.headers.get("Content-Range") or "").strip().startswith(f"bytes {position}-")


def total_of(content_range: str | None) -> int | None:
    """The size of the whole file in a Content-Range header, such as "bytes */1234"."""
    total = (content_range or "").rpartition("/")[2]
    return int(total) if total.isdecimal() else None


def is_final(error: Exception) -> bool:
    """Whether retrying is pointless: a client error such as 404."""
    return isinstance(error, urllib.error.HTTPError) and error.code < 500


def network_reason(error: Exception) -> str:
    """The reason for a network error, in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection was lost"
    return str(getattr(error, "reason", None) or error or type(error).__name__)


def md5_of(path: Path) -> str:
    """The MD5 checksum (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def unpack(path: Path, directory: Path, progress: ProgressFactory) -> None:
    """Unpacks the tar file `path` below `directory`, where each file appears only when complete. Raises BadDownload.

    Members or links that lead out of the folder, and devices, are refused (tarfile's "data" filter).
    """
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=directory))
    try:
        with tarfile.open(path) as tar, progress("unpack", path.stat().st_size, "bytes") as bar:
            for member in tar:
                if not PurePosixPath(member.name).name.startswith("._"):  # what macOS adds to archives
                    tar.extract(member, temporary, filter="data")
                bar.advance(member.size)
        move_into(temporary, directory)
    except (tarfile.TarError, EOFError) as error:
        raise BadDownload(f"{path}: cannot be unpacked ({error}); remove it and run again") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def move_into(source: Path, target: Path) -> None:
    """Moves every file below `source` to the same relative path below `target`, on the same disk.

    Raises BadDownload, without moving anything, if one of these paths exists with other content.
    """
    moves = [
        (Path(folder) / name, target / Path(folder).relative_to(source) / name)
        for folder, _, names in os.walk(source)
        for name in names
    ]
    for unpacked, place in moves:
        if os.path.lexists(place) and not (place.is_file() and filecmp.cmp(unpacked, place, shallow=False)):
            raise BadDownload(
                f"{place}: already exists and differs from the archive's; move it away, or name another folder"
            )
    for unpacked, place in moves:
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(unpacked, place)
