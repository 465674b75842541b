"""What is detected in an image: arrays, a table, COCO's results, a picture."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from rcnn.frames import pandas
from rcnn_cli.looking.showing import Showing
from stages import detections as stages_detections
from stages.boxes import Boxes
from stages.contract.errors import StageError
from stages.contract.settings import nearest
from stages.datasets.prelabels import coco_categories, coco_results
from stages.detections import best_first, shortest
from stages.images.reading import Pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

Identity = int | str
LISTED = 3
"""How many detections are named in a line of text."""


@dataclass(frozen=True)
class Detection:
    """One detected object.

    Attributes:
        name: the class.
        label: its index in the detector's classes.
        score: SVM margin, softmax probability or a sum of these, as the detector has it.
        precision: the share of true detections among those of the class that score at least as much, on the images that
            the detector was evaluated on; nan without an evaluation.
        box: (x1, y1, x2, y2) in pixels of the image, zero-based, half-open: width = x2 - x1.
        good_enough: whether it scores as much as the detector was told to ask for.
    """

    name: str
    label: int
    score: float
    precision: float
    box: tuple[float, float, float, float]
    good_enough: bool


@dataclass(frozen=True, eq=False)
class Detections:
    """The detections in one image, best first: by precision, of equal precisions by score.

    `len`, iteration and an index give single detections; a slice, a mask bool [n] or indices give those detections, and
    the name of a class gives the detections of that class. In a notebook they show themselves as a picture.

    Attributes:
        boxes: float32 [n, 4], (x1, y1, x2, y2) in pixels of the image, zero-based, half-open: width = x2 - x1.
        scores: float32 [n].
        labels: int32 [n], indices of `classes`.
        precision: float64 [n], the precision of each detection's class at its score, as evaluated; nan if unknown.
        drawn: bool [n], whether a picture shows a detection: those that are `good_enough`; where none is, the three
            best, in thin lines.
        classes: the names of all the detector's classes.
        image: the pixels, uint8 [H, W, 3] RGB, upright.
        name: what the image is called: its file's stem, unless it was given a name.
        path: its file, None for an array.
    """

    boxes: Boxes
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]
    precision: NDArray[np.float64]
    drawn: NDArray[np.bool_]
    classes: tuple[str, ...]
    image: Pixels
    name: str
    path: Path | None
    showing: Showing = field(repr=False)

    @staticmethod
    def of(
        found: stages_detections.Detections, showing: Showing, image: Pixels, name: str, path: Path | None
    ) -> Detections:
        """What a detector `found` in an image, best first."""
        order = best_first(found.scores, showing.precision(found))
        found = found.where(order)
        drawn = np.zeros(len(found), np.bool_)
        drawn[showing.choose(found)[0]] = True
        arrays = found.boxes, found.scores, found.labels, showing.precision(found), drawn
        return Detections(*arrays, showing.classes, image, name, path, showing)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the image in pixels."""
        height, width = self.image.shape[:2]
        return width, height

    @property
    def good_enough(self) -> NDArray[np.bool_]:
        """Which score at least as much as the detector was told to ask for (`Detector.rule`): bool [n]."""
        return np.asarray(self.scores >= self.showing.cuts[self.labels])

    @property
    def names(self) -> list[str]:
        """The class of each detection, by name."""
        return [self.classes[label] for label in self.labels]

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        return map(self.detection, range(len(self)))

    @overload
    def __getitem__(self, which: int) -> Detection: ...

    @overload
    def __getitem__(self, which: str | slice | NDArray[Any] | list[int]) -> Detections: ...

    def __getitem__(self, which: Any) -> Detection | Detections:
        """One detection, or some of them. Raises Error for the name of a class that the detector does not have."""
        if isinstance(which, str):
            return self.where(self.labels == self.label_of(which))
        if isinstance(which, int | np.integer):
            return self.detection(range(len(self))[int(which)])
        return self.where(np.arange(len(self))[which])

    def label_of(self, name: str) -> int:
        """The label of the class called `name`. Raises Error."""
        if name not in self.classes:
            raise StageError(f"'{name}': is not a class of this detector{nearest(name, self.classes)}")
        return self.classes.index(name)

    def where(self, rows: NDArray[Any]) -> Detections:
        """The detections selected by `rows`, bool [n] or indices; which are drawn is decided among them anew."""
        found = stages_detections.Detections(self.boxes[rows], self.scores[rows], self.labels[rows])
        return Detections.of(found, self.showing, self.image, self.name, self.path)

    def detection(self, row: int) -> Detection:
        """The detection in this row."""
        x1, y1, x2, y2 = self.boxes[row].tolist()
        return Detection(
            name=self.classes[self.labels[row]],
            label=int(self.labels[row]),
            score=shortest(self.scores[row]),
            precision=float(self.precision[row]),
            box=(x1, y1, x2, y2),
            good_enough=bool(self.good_enough[row]),
        )

    def to_pandas(self) -> DataFrame:
        """A table with a row for each detection: `image` (its name), `class`, `label`, `score`, `precision` (NaN if
        unknown), `x1`, `y1`, `x2`, `y2` in pixels, `good_enough`.

        Raises Error where pandas is not installed.
        """
        corners = dict(zip(("x1", "y1", "x2", "y2"), self.boxes.T, strict=True))
        numbers = {"label": self.labels, "score": self.scores, "precision": self.precision}
        named = {"image": [self.name] * len(self), "class": self.names}
        table: DataFrame = pandas().DataFrame({**named, **numbers, **corners, "good_enough": self.good_enough})
        return table

    def to_coco(
        self, image_id: Identity | None = None, category_ids: Mapping[str, Identity] | None = None
    ) -> list[dict[str, Any]]:
        """COCO's results: a list of {"image_id", "category_id", "bbox", "score"}, for `COCO.loadRes` of pycocotools.

        `bbox` is [x, y, width, height] in pixels, rounded to hundredths.

        Args:
            image_id: the image's id in the annotation file. By default its name, as a number if it consists of digits:
                000000397133.jpg is image 397133.
            category_ids: the id of each class by its name, as in the annotation file (COCO's own leave out some
                numbers). By default the classes are counted from 1, in the detector's order.

        Raises Error for a class without an id.
        """
        ids = category_ids or {category["name"]: category["id"] for category in coco_categories(self.classes)}
        missing = next((name for name in self.names if name not in ids), None)
        if missing is not None:
            raise StageError(f"category_ids: has no id of the class '{missing}'; give one for every class")
        if image_id is None:
            image_id = int(self.name) if self.name.isascii() and self.name.isdigit() else self.name
        results = coco_results(self.found, image_id)
        return [{**result, "category_id": ids[name]} for result, name in zip(results, self.names, strict=True)]

    def picture(self) -> Pixels:
        """The image with the detections that are `drawn`, and a line below it that explains the numbers, as `rcnn
        predict` draws it: uint8 RGB [H, W, 3]."""
        return self.showing.picture(self.image, self.found)

    @property
    def found(self) -> stages_detections.Detections:
        """Boxes, scores and labels alone, as stages have them."""
        return stages_detections.Detections(self.boxes, self.scores, self.labels)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Shows the picture in Matplotlib's axes `ax` (default: those of a new figure of its size); returns them."""
        from matplotlib import pyplot

        picture = self.picture()
        if ax is None:
            height, width = picture.shape[:2]
            dots = pyplot.rcParams["figure.dpi"]
            ax = pyplot.figure(figsize=(width / dots, height / dots)).add_axes((0, 0, 1, 1))
        ax.imshow(picture)
        ax.set_axis_off()
        return ax

    def _repr_png_(self) -> bytes:
        """The picture, for notebooks."""
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(self.picture()).save(file, "PNG")
        return file.getvalue()

    def __repr__(self) -> str:
        width, height = self.size
        first = ", ".join(f"{one.name} {one.score:.2f}" for one in self[:LISTED])
        more = ", ..." if len(self) > LISTED else ""
        found = f"{len(self)} ({int(self.good_enough.sum())} good enough): {first}{more}" if len(self) else "none"
        return f"<Detections in {self.name}, {width} x {height}: {found}>"
