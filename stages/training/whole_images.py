"""Whole images for training a detector: which are drawn, how they are augmented, and what is read of them.

Which image an iteration takes, and how, depends on (seed, iteration) alone. Symbols: m objects of an image.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from cache import Record
from stages.boxes import Boxes, has_area, reaches
from stages.contract.errors import BadSetting, StageError
from stages.contract.execution import Execution
from stages.contract.inputs import Inputs, ItemReader
from stages.datasets import Dataset
from stages.images.batches import read_ahead
from stages.images.reading import Pixels
from stages.images.scale import image_scale, scaled_image
from stages.matching.examples import unused_regions
from stages.networks import NetworkCard, NetworkSource
from stages.networks.dense_reading import next_lower, without_weights
from stages.networks.feature_maps import FeatureMaps, check_maps, planes_of, prepared_image
from stages.plurals import number_of
from stages.training.augmentation import View, drawn_crop, drawn_scale, with_drawn_colours
from stages.training.image_memory import ImageMemory
from stages.training.ranks import Ranks
from stages.training.settings import WholeImageTraining

Examples = TypeVar("Examples")
BATCHES_AHEAD = 2


@dataclass(frozen=True)
class DrawnImage:
    """An image of a batch: its `position` in the dataset, which of the sides it gets, and whether it is mirrored.

    `random` draws its examples, `augmentation` its other scale, its crop and its colours.
    """

    position: int
    level: int
    mirrored: bool
    random: np.random.Generator
    augmentation: np.random.Generator


def drawn_images(settings: WholeImageTraining, count: int, iteration: int) -> list[DrawnImage]:
    """The images of an iteration's batch, of `count` in the dataset.

    Every epoch takes each image once, in an order drawn from (seed, epoch).
    """
    size = settings.images_per_batch
    drawn = []
    for number in range((iteration - 1) * size, iteration * size):
        epoch, place = divmod(number, count)
        position = int(order_of(settings.seed, epoch, count)[place])
        random = np.random.default_rng([settings.seed, iteration, number])
        level, mirrored = int(random.integers(len(settings.sides))), bool(random.random() < 0.5)
        augmentation = np.random.default_rng([settings.seed, iteration, number, 1])
        drawn.append(DrawnImage(position, level, mirrored and settings.mirror, random, augmentation))
    return drawn


@functools.lru_cache(maxsize=4)
def order_of(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order of `count` images in an epoch: int64 [count]."""
    return np.random.default_rng([seed, 0, epoch]).permutation(count)


@dataclass(frozen=True)
class Objects:
    """The m objects of an image: `boxes` float32 [m, 4] in its pixels, cropped and mirrored as it is, `labels` int32
    [m].

    `unused` bool [m] marks those that are neither positives nor negatives, `crowds` bool [m] those that are crowds.
    """

    boxes: Boxes
    labels: NDArray[np.int32]
    crowds: NDArray[np.bool_]
    unused: NDArray[np.bool_]

    @property
    def used(self) -> Boxes:
        """The boxes of the objects that are examples: float32 [k, 4]."""
        return self.boxes[~self.unused]

    def seen(self, view: View, least_visible: float) -> Objects:
        """These objects in a view of their image, those that are in sight. Of which less than the share
        `least_visible` is seen, are unused."""
        boxes = view.boxes(self.boxes)
        if view.crop is None:
            return Objects(boxes, self.labels, self.crowds, self.unused)
        unused = self.unused | ~reaches(view.visible(self.boxes), least_visible)
        kept = has_area(boxes)
        return Objects(boxes[kept], self.labels[kept], self.crowds[kept], unused[kept])


@dataclass(frozen=True)
class ScaledInput:
    """An image at another scale: `inputs` as in `TrainingImage`, and the factor `scale` to the trunk's input."""

    inputs: torch.Tensor
    scale: float


@dataclass(frozen=True)
class TrainingImage(Generic[Examples]):
    """An image as it enters the training: `inputs` [1, 3, H, W] for the trunk or, if `is_map`, the trunk's map of it
    [1, C, H', W'], with `map_size` (width, height) cells.

    `size` (width, height) is the image's own, or its crop's, `scale` the factor to the trunk's input. `view` says how
    it is cropped and mirrored. `lower`: the same at the next lower scale, where the training reads that, too.
    """

    inputs: torch.Tensor
    is_map: bool
    map_size: tuple[int, int]
    size: tuple[int, int]
    scale: float
    view: View
    objects: Objects
    examples: Examples
    lower: ScaledInput | None = None


Find = Callable[["TrainingImage[None]", DrawnImage], Examples]
"""Draws the examples of an image."""


class MapSizes:
    """How many cells the map of a network has for an input of any size; computed without weights."""

    def __init__(self, card: NetworkCard) -> None:
        self.network = without_weights(card)
        self.known: dict[tuple[int, int], tuple[int, int]] = {}

    def of(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in cells of the map of an input of `width` x `height` pixels, margins included."""
        if (width, height) not in self.known:
            with torch.inference_mode():
                maps = self.network.maps(torch.empty((1, 3, height, width), device="meta"))
            self.known[width, height] = (int(maps.shape[3]), int(maps.shape[2]))
        return self.known[width, height]


class WholeImages(Generic[Examples]):
    """Reads this rank's share of every batch ahead, with the examples that `find` draws in each image.

    With `maps`, those of a frozen trunk, nothing is decoded. A batch depends on its iteration alone.
    """

    def __init__(
        self,
        settings: WholeImageTraining,
        dataset: Dataset,
        memory: ImageMemory,
        source: NetworkSource,
        find: Find[Examples],
        execution: Execution,
        ranks: Ranks,
        *,
        regions_per_step: int,
        maps: ItemReader | None = None,
        counts: Record,
    ) -> None:
        self.settings = settings
        self.dataset = dataset
        self.memory = memory
        self.source = source
        self.find = find
        self.execution = execution
        self.ranks = ranks
        self.regions_per_step = regions_per_step
        self.maps = maps
        self.counts = counts
        self.sizes = MapSizes(source.card)

    def record(self) -> Record:
        """What the cache stores about the examples."""
        return self.counts

    def batches(self, first: int, last: int) -> Iterator[list[TrainingImage[Examples]]]:
        """The batches of the iterations `first` to `last`, read ahead. Raises BadImage."""
        ready = read_ahead(
            self.batch,
            range(first, last + 1),
            ahead=BATCHES_AHEAD,
            threads=1,
            initializer=torch.set_num_threads,
            initargs=(self.settings.threads,),
        )
        for _, batch in ready:
            yield batch

    def batch(self, iteration: int) -> list[TrainingImage[Examples]]:
        """This rank's share of an iteration's images."""
        drawn = drawn_images(self.settings, len(self.dataset.image_ids), iteration)
        return [self.image(image) for image in drawn[self.ranks.rank :: self.ranks.count]]

    def image(self, drawn: DrawnImage) -> TrainingImage[Examples]:
        """One image with its examples. Raises BadImage."""
        plain = self.from_maps(drawn) if self.maps is not None else self.from_pixels(drawn)
        return TrainingImage(**{**vars(plain), "examples": self.find(plain, drawn)})

    def from_pixels(self, drawn: DrawnImage) -> TrainingImage[None]:
        """The image as the trunk's input."""
        whole = self.memory.read(drawn.position)
        objects = self.objects(drawn)
        pixels, view, factor = augmented(whole, objects.used, drawn, self.settings)
        height, width = pixels.shape[:2]
        scales = [factor * image_scale(width, height, side, self.settings.longest) for side in self.settings.sides]
        inputs = self.scaled_input(pixels, scales[drawn.level], drawn.mirrored)
        cells = self.sizes.of(inputs.shape[3], inputs.shape[2])
        lower = None
        if self.settings.reads_lower_scale:
            scale = scales[next_lower(scales, drawn.level, range(len(scales)))]
            lower = ScaledInput(self.scaled_input(pixels, scale, drawn.mirrored), scale)
        seen = objects.seen(view, self.settings.least_visible)
        return self.described(inputs, False, cells, (width, height), scales[drawn.level], view, seen, lower)

    def scaled_input(self, pixels: Pixels, scale: float, mirrored: bool) -> torch.Tensor:
        """The trunk's input at a scale: float32 [1, 3, H, W]."""
        scaled = scaled_image(pixels, scale)
        ordered = scaled[:, ::-1] if mirrored else scaled
        border = self.settings.map_border
        return prepared_image(ordered, self.source.card.trunk, self.source.preprocessing, "cpu", border)

    def from_maps(self, drawn: DrawnImage) -> TrainingImage[None]:
        """The map of the image."""
        assert self.maps is not None
        maps = FeatureMaps.of_record(self.maps.read(self.dataset.image_ids[drawn.position]))
        every = maps.mirrored if drawn.mirrored else maps.maps
        cells = every[drawn.level]
        size = (cells.shape[1], cells.shape[0])
        inputs = planes_of(cells, self.execution.device)[None]
        lower = None
        if self.settings.reads_lower_scale:
            level = next_lower(maps.scales, drawn.level, range(len(maps.scales)))
            lower = ScaledInput(planes_of(every[level], self.execution.device)[None], maps.scales[level])
        view = View(maps.image_size[0], drawn.mirrored)
        seen = self.objects(drawn).seen(view, self.settings.least_visible)
        return self.described(inputs, True, size, maps.image_size, maps.scales[drawn.level], view, seen, lower)

    def described(
        self,
        inputs: torch.Tensor,
        is_map: bool,
        cells: tuple[int, int],
        size: tuple[int, int],
        scale: float,
        view: View,
        objects: Objects,
        lower: ScaledInput | None,
    ) -> TrainingImage[None]:
        """The image with its objects, on the device."""
        inputs = inputs.to(self.execution.device, non_blocking=True)
        if lower is not None:
            lower = ScaledInput(lower.inputs.to(self.execution.device, non_blocking=True), lower.scale)
        return TrainingImage(inputs, is_map, cells, size, scale, view, objects, None, lower)

    def objects(self, drawn: DrawnImage) -> Objects:
        """The objects of the whole image, as it is."""
        return objects_of(self.dataset, self.dataset.image_ids[drawn.position], self.settings.difficult)


def augmented(
    whole: Pixels, objects: Boxes, drawn: DrawnImage, settings: WholeImageTraining
) -> tuple[Pixels, View, float]:
    """An image uint8 [H, W, 3] that shows `objects` [m, 4], cropped and recoloured as the settings say, but not yet
    mirrored; how it is then seen, and the factor to its scale."""
    random = drawn.augmentation
    factor = drawn_scale(settings.scale_jitter, random)
    size = (whole.shape[1], whole.shape[0])
    jitter = settings.crop_jitter
    crop = drawn_crop(size, objects, jitter, settings.least_visible, random) if jitter else None
    pixels = whole if crop is None else crop.pixels(whole)
    if settings.colour_jitter:
        pixels = with_drawn_colours(pixels, settings.colour_jitter, random)
    return pixels, View(size[0], drawn.mirrored, crop), factor


def objects_of(dataset: Dataset, image_id: str, difficult: str) -> Objects:
    """The objects of an image as it is; `difficult` is the setting."""
    record = dataset.record(image_id)
    unused = unused_regions(record.boxes, record.difficult, record.crowds, difficult)
    return Objects(record.boxes, record.labels, record.crowds, unused)


def count_objects(stage: str, dataset: Dataset, difficult: str, execution: Execution) -> Record:
    """The number of objects to learn from, for the cache of the `stage`; `difficult` is the setting.

    Raises StageError if there are none."""
    count = 0
    with execution.progress(f"{stage}: objects", len(dataset.image_ids), "images") as bar:
        for image_id in dataset.image_ids:
            record = dataset.record(image_id)
            unused = unused_regions(record.boxes, record.difficult, record.crowds, difficult)
            count += int((~unused).sum())
            bar.advance()
    if not count:
        raise StageError(
            f"{stage}: none of the {len(dataset.image_ids)} images of {dataset.name} has an object to train on "
            "(crowds and ignored difficult objects do not count); annotate objects, or use another split"
        )
    return {"objects": np.array(count)}


def check_maps_settings(settings: WholeImageTraining, maps: Any) -> None:
    """Raises BadSetting unless the settings of the table `maps` give a frozen trunk's maps as this training draws
    them."""
    if not settings.trunk_is_frozen:
        raise BadSetting(
            "inputs.maps is for a trunk that stays as it is; set frozen = ['trunk'], or leave out inputs.maps"
        )
    if settings.jitters:
        name = settings.jitters[0]
        raise BadSetting(
            f"{name} = {getattr(settings, name)} changes the pixels of images, and inputs.maps has the maps of images "
            f"as they are; leave out {' and '.join(settings.jitters)}, or inputs.maps"
        )
    if (settings.sides, settings.longest) != (maps.sides, maps.longest):
        raise BadSetting(
            f"sides = {list(settings.sides)} and longest = {settings.longest} are not those of the maps, "
            f"{list(maps.sides)} and {maps.longest}; set them to the same values"
        )
    if settings.map_border != maps.border:
        raise BadSetting(
            f"its maps have border = {maps.border}, and the training {settings.map_border}; set both to the same value"
        )
    if settings.mirror and not maps.mirrored:
        raise BadSetting(
            "mirror = true needs the maps of mirrored images, too; set mirrored = true in the table of its maps"
        )


def maps_of_trunk(inputs: Inputs, source: NetworkSource, stage: str, border: int) -> ItemReader | None:
    """The maps among the inputs of a training, None if there are none. Raises BadSetting if another trunk made them, or
    with another border, StageError if images were skipped when they were made."""
    if "maps" not in inputs:
        return None
    maps = inputs.item_reader("maps")
    check_maps(stage, maps, source, border)
    skipped = maps.manifest.get("skipped", {})
    if skipped:
        image_id, reason = next(iter(skipped.items()))
        more = f", and {number_of(len(skipped) - 1, 'more image')}" if len(skipped) > 1 else ""
        raise StageError(
            f"{stage}: there are no maps of image '{image_id}'{more}, which maps skipped as unreadable (it {reason}); "
            "repair the file, or remove the image from the dataset, and run again"
        )
    return maps
