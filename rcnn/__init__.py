"""R-CNN, Fast and Faster R-CNN and OverFeat from Python: detectors on images, and the rows of caches.

    import rcnn

    detector = rcnn.load("recipes/shapes.toml")
    detections = detector("photo.jpg")
    features = rcnn.open("recipes/shapes.toml", "extract", split="test")

`load` gives the detector that a recipe trained, `open` a finished cache, and `run` makes the caches of a recipe. All
three read the same recipes as the command line and compute the same graph. Whatever can be put right by whoever calls
them is an `Error`, whose text is one sentence.

Names are imported on first use: `import rcnn` loads neither PyTorch nor numpy.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cache.errors import Error, IncompleteCache
    from rcnn.detections import Detection, Detections
    from rcnn.detector import Detector, load
    from rcnn.provenance import Provenance, Source
    from rcnn.rows import Row, Rows
    from rcnn.rows import open_rows as open  # noqa: A004  used as `rcnn.open`
    from rcnn.running import run
    from stages.contract.errors import BadImage

__all__ = [
    "BadImage",
    "Detection",
    "Detections",
    "Detector",
    "Error",
    "IncompleteCache",
    "Provenance",
    "Row",
    "Rows",
    "Source",
    "load",
    "open",
    "run",
]
DEFINED = {
    "BadImage": "stages.contract.errors",
    "Detection": "rcnn.detections",
    "Detections": "rcnn.detections",
    "Detector": "rcnn.detector",
    "Error": "cache.errors",
    "IncompleteCache": "cache.errors",
    "Provenance": "rcnn.provenance",
    "Row": "rcnn.rows",
    "Rows": "rcnn.rows",
    "Source": "rcnn.provenance",
    "load": "rcnn.detector",
    "open": "rcnn.rows",
    "run": "rcnn.running",
}
"""The module that defines each public name."""


def __getattr__(name: str) -> Any:
    """Imports a public name from the module that defines it."""
    if name not in DEFINED:
        raise AttributeError(f"module 'rcnn' has no attribute {name!r}")
    value = getattr(importlib.import_module(DEFINED[name]), "open_rows" if name == "open" else name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, for completion."""
    return sorted({*globals(), *__all__})
