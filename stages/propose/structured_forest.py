"""Edges by structured forests (Dollár and Zitnick, PAMI 2015), from a model file in OpenCV's YAML, such as
`model.yml.gz` of opencv_extra.

OpenCV divides by a model's numbers and follows its indices unchecked, so that a damaged file would end the process, or
give edges from anywhere in memory: every number is checked here first.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import tempfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.files import cannot
from stages.contract.errors import ChangedInput, StageError
from stages.datasets.digests import remembered_of_file
from stages.input_files import named_file, read_whole

GZIP = b"\x1f\x8b"
MOST_BYTES = 500_000_000
OPTIONS = {
    "stride": 1,
    "shrinkNumber": 1,
    "patchSize": 1,
    "patchInnerSize": 1,
    "numberOfGradientOrientations": 1,
    "gradientSmoothingRadius": 0,
    "regFeatureSmoothingRadius": 0,
    "ssFeatureSmoothingRadius": 0,
    "gradientNormalizationRadius": 0,
    "selfsimilarityGridSize": 1,
    "numberOfTrees": 1,
    "numberOfTreesToEvaluate": 1,
}
"""The options of a model, with the least value of each."""
MOST_OPTION = 1000
TABLES = ("childs", "featureIds", "thresholds", "edgeBoundaries", "edgeBins")
SECTION = re.compile(r"^(\w+):[ \t]*$(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"^[ \t]+(\w+):[ \t]*(-?\d+)[ \t]*$", re.MULTILINE)
LIST = re.compile(r"\[([^\]]*)\]")


def resolve_path(model: str) -> Path:
    """`model` with `~` and `$VARIABLES` expanded. Raises StageError if it does not exist."""
    return named_file(model, "model file", "propose.model")


def model_sha256(model: str, work: Path | None) -> str:
    """The SHA-256 (hex) of the model file, remembered in the folder `work`. Raises StageError if it cannot be read."""
    path = resolve_path(model)

    def read() -> str:
        return hashlib.sha256(read_model(path)).hexdigest()

    return read() if work is None else str(remembered_of_file(path, work, "model", read))


def read_model(path: Path) -> bytes:
    """The bytes of the file. Raises StageError."""
    try:
        return read_whole(path, MOST_BYTES)
    except OSError as error:
        raise StageError(f"{path}: " + cannot("be read", error, "correct propose.model")) from error


class Forest:
    """A structured forest: OpenCV's detector, and the side of its patches in pixels."""

    def __init__(self, detector: Any, patch_size: int) -> None:
        self.detector = detector
        self.patch_size = patch_size

    def edges(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The strength of the edges in an image uint8 [H, W, 3] RGB: float32 [H, W], mostly 0 to 1.

        An image smaller than a patch is continued by its reflection, since OpenCV cannot look at it otherwise.
        """
        import cv2

        height, width = image.shape[:2]
        below, beside = (max(0, self.patch_size - side) for side in (height, width))
        padded = cv2.copyMakeBorder(image, 0, below, 0, beside, cv2.BORDER_REFLECT) if below or beside else image
        edges = self.detector.detectEdges(padded.astype(np.float32) / np.float32(255))
        return np.ascontiguousarray(edges[:height, :width])


@lru_cache(maxsize=1)
def load_forest(path: Path, sha256: str) -> Forest:
    """The forest in the file at `path`, loaded once per process.

    Raises ChangedInput if `sha256` (hex) is not the file's, and StageError for anything but a sound model.
    """
    import cv2

    content = read_model(path)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ChangedInput.of(path)
    try:
        text = as_text(content)
        options = check_model(text)
    except ValueError as error:
        raise StageError(
            f"{path}: is not an intact structured-forests model in OpenCV's YAML ({error}); propose.model takes "
            "opencv_extra's model.yml.gz"
        ) from error
    with tempfile.TemporaryDirectory() as folder:  # OpenCV reads by name; these are the bytes that were checked
        copy = Path(folder) / "model.yml"
        copy.write_text(text, encoding="utf-8")
        try:
            detector = cv2.ximgproc.createStructuredEdgeDetection(str(copy))
        except cv2.error as error:
            raise StageError(f"{path}: OpenCV cannot load this model ({error.err}); replace the file") from error
    return Forest(detector, options["patchSize"])


def as_text(content: bytes) -> str:
    """A model file's text, decompressed if it is. Raises ValueError."""
    try:
        return (gzip.decompress(content) if content.startswith(GZIP) else content).decode("utf-8")
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"its compression is damaged: {error}") from error
    except UnicodeDecodeError:
        raise ValueError("it is not text") from None


def check_model(text: str) -> dict[str, int]:
    """The options of a model, all of whose numbers have been checked. Raises ValueError, saying what is wrong."""
    sections = dict(SECTION.findall(text))
    missing = [name for name in ("options", *TABLES) if name not in sections]
    if missing:
        raise ValueError(f"it has no {missing[0]}")
    options = {name: int(value) for name, value in OPTION.findall(sections["options"])}
    for name, least in OPTIONS.items():
        if not least <= options.get(name, -1) <= MOST_OPTION:
            raise ValueError(f"its option {name} is {options.get(name, 'missing')}")
    patch, inner, shrink = (options[name] for name in ("patchSize", "patchInnerSize", "shrinkNumber"))
    if inner > patch or patch % shrink or options["numberOfTreesToEvaluate"] > options["numberOfTrees"]:
        raise ValueError("its options do not fit each other")
    check_tables(options, {name: numbers_in(name, sections[name]) for name in TABLES})
    return options


def numbers_in(name: str, body: str) -> NDArray[Any]:
    """The numbers of all lists in a section, [n], float64 for thresholds, otherwise int64. Raises ValueError."""
    words = [word for row in LIST.findall(body) for word in row.split(",") if row.strip()]
    try:
        numbers = np.array(words, np.float64 if name == "thresholds" else np.int64)
    except (ValueError, OverflowError):
        raise ValueError(f"{name} holds something other than its numbers") from None
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} holds something other than finite numbers")
    return numbers


def check_tables(options: dict[str, int], tables: dict[str, NDArray[Any]]) -> None:
    """Raises ValueError unless every index in a model's `tables`, each [n], leads into the right table."""
    children, bounds, bins = tables["childs"], tables["edgeBoundaries"], tables["edgeBins"]
    trees, nodes = options["numberOfTrees"], len(children) // options["numberOfTrees"]
    if not nodes or len(children) != trees * nodes or len({len(tables[name]) for name in TABLES[:3]}) > 1:
        raise ValueError("its trees have different numbers of nodes")
    channels = 2 * (options["numberOfGradientOrientations"] + 1) + 3
    cells = options["selfsimilarityGridSize"] ** 2
    features = ((options["patchSize"] // options["shrinkNumber"]) ** 2 + cells * (cells - 1) // 2) * channels
    places = np.tile(np.arange(nodes), trees)
    inner = children != 0  # their children are at childs - 1 and childs, behind them
    if not (children[inner] - 1 > places[inner]).all() or not (children < nodes).all():
        raise ValueError("childs leads out of its tree")
    if not within(tables["featureIds"], features):
        raise ValueError("featureIds names features that there are not")
    if len(bounds) <= len(children) or not within(bounds, len(bins) + 1) or (np.diff(bounds) < 0).any():
        raise ValueError("edgeBoundaries does not fit edgeBins")
    if not within(bins, options["patchInnerSize"] ** 2 * channels):
        raise ValueError("edgeBins names places outside a patch")


def within(numbers: NDArray[np.int64], limit: int) -> bool:
    """Whether all `numbers` are at least 0 and below `limit`."""
    return bool(((numbers >= 0) & (numbers < limit)).all())
