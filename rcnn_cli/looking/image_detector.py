"""A detector of one image at a time, wherever it comes from: what predict, the Python interface and exports share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rcnn_cli.looking.showing import Showing, showing_of
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.running.runner import on_demand
from stages.contract.execution import Execution
from stages.contract.inputs import ItemReader
from stages.datasets.photos import Photos
from stages.detect.trace import suppression_across_tiles
from stages.detections import Detections
from stages.detections.suppression import Suppression
from stages.images.reading import Pixels


@dataclass(frozen=True)
class ImageDetector:
    """Detects objects in one image after another; nothing is cached, and an image forgets the one before.

    `reader` computes the detections of the image that `photos` shows; `showing` has the class names and says which
    detections are drawn; `origin` names what the detector is from, for JSON: its recipe and its table, or its file.
    `suppression` merges the detections of tiles (`detect_in_tiles`); None where tiles are not supported.
    """

    reader: ItemReader
    photos: Photos
    showing: Showing
    origin: Mapping[str, str]
    suppression: Suppression | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, by label."""
        return self.showing.classes

    def detect(self, pixels: Pixels, name: str, path: Path | None = None) -> Detections:
        """The detections in an image uint8 [H, W, 3] RGB, called `name` (a file's stem); boxes are in its pixels.

        Raises BadImage, whose sentence names `path`, for an image in which nothing can be proposed.
        """
        self.photos.show(name, pixels, path)
        record = self.reader.read(name, ("boxes", "score", "label"))
        return Detections(record["boxes"], record["score"], record["label"])


def detector_of_recipe(
    graph: Graph, node: Node, execution: Execution, threshold: float | None = None, precision: float | None = None
) -> ImageDetector:
    """The detector that the node of a recipe trained; `threshold` and `precision` as in `showing_of`.

    Raises IncompleteCache where it is not trained, StageError where it cannot detect on demand.
    """
    photos = Photos()
    reader: ItemReader = on_demand(graph, node, execution.in_worker, photos)
    showing = showing_of(graph, node, reader.manifest["summary"]["classes"], threshold, precision)
    origin = {"recipe": str(graph.recipe.path), "detector": node.name}
    return ImageDetector(reader, photos, showing, origin, suppression_across_tiles(node.settings))
