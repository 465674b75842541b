"""Structured forests so small that their edges can be worked out: model files in OpenCV's YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2

OPTIONS = {
    "stride": 2,
    "shrinkNumber": 2,
    "patchSize": 32,
    "patchInnerSize": 16,
    "numberOfGradientOrientations": 4,
    "gradientSmoothingRadius": 0,
    "regFeatureSmoothingRadius": 2,
    "ssFeatureSmoothingRadius": 8,
    "gradientNormalizationRadius": 4,
    "selfsimilarityGridSize": 5,
    "numberOfTrees": 2,
    "numberOfTreesToEvaluate": 1,
}
"""Those of opencv_extra's model, but for the number of trees."""
GRADIENT = 3 * 256 + 8 * 16 + 8
"""The feature: gradient magnitude in the middle of the patch (channel 3 of cells of 16 x 16)."""
COLUMN = [256 * channel + 16 * 8 + row for channel in range(13) for row in range(16)]
"""The places of an edge down the middle of the inner patch (columns first), in each of 13 channels, which are added."""
STUMPS: Mapping[str, Sequence[Sequence[float]]] = {
    "childs": [[2, 0, 0]] * 2,
    "featureIds": [[GRADIENT, 0, 0]] * 2,
    "thresholds": [[0.5, 0.0, 0.0]] * 2,
    "edgeBoundaries": [[0, 0, 0], [208, 208, 208], [416]],
    "edgeBins": [COLUMN, COLUMN],
}
"""Two equal trees of three nodes: where the gradient is weak no edges, else one down the middle of the patch."""


def write_forest(path: Path, tables: Mapping[str, Any] = STUMPS, options: Mapping[str, int] = OPTIONS) -> Path:
    """Writes the model; a name that ends in .gz is compressed."""
    file = cv2.FileStorage(str(path), cv2.FileStorage_WRITE)
    file.startWriteStruct("options", cv2.FileNode_MAP)
    for name, value in options.items():
        file.write(name, value)
    file.endWriteStruct()
    for name, rows in tables.items():
        file.startWriteStruct(name, cv2.FileNode_SEQ)
        for row in rows:
            file.startWriteStruct("", cv2.FileNode_SEQ + cv2.FileNode_FLOW)
            for value in row:
                file.write("", value)
            file.endWriteStruct()
        file.endWriteStruct()
    file.release()
    return path
