"""The project's own data: scenes of shapes for detection, and single objects of other shapes for pre-training.

Everything is determined by the seed: image k of a split depends on (seed, split, k) alone, however many are drawn.
Boxes tightly enclose the visible part of an object, as VOC's annotation guidelines require. Objects of which less than
VISIBLE is visible, or that are smaller than TINY pixels, are `difficult`.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.contract.settings import all_of, setting
from stages.datasets.class_masks import VOID
from stages.datasets.mask_files import write_indices
from stages.datasets.materialise import materialised
from stages.datasets.records import BadDataset
from stages.datasets.silhouettes import CLASSIFICATION, DETECTION, Silhouette, placed, rasterise
from stages.datasets.textures import (
    Canvas,
    add_clutter,
    add_lines,
    as_pixels,
    background,
    contrasting,
    paint,
    textured,
    windows,
)
from stages.datasets.voc_writer import WrittenObject, write_annotation, write_image_sets

SHAPES = tuple(DETECTION)
SHAPES_CLASSIFICATION = tuple(CLASSIFICATION)
VERSION = 1  # of the drawing code; raised whenever the same settings would give other pixels
TAIL_VERSION = 1  # of sets with a long tail, and of those collected for a class each
COLLECTED = "collected"
MASKS_VERSION = 1  # of the masks of a set that is drawn with them
VISIBLE = 0.35
TINY = 18
JPEG_QUALITY = 90
SOLID = 128  # the mask value from which a pixel belongs to the object
FLIPPABLE = ("arrow", "crescent")


@dataclass(frozen=True)
class ShapesSettings:
    """The numbers of scenes to draw per split; `trainval` is train and val together."""

    seed: int = setting(0, "Seed for the scenes.", at_least=0)
    train: int = setting(200, "Scenes in the train split.", at_least=0)
    val: int = setting(100, "Scenes in the val split.", at_least=0)
    test: int = setting(100, "Scenes in the test split.", at_least=0)


@dataclass(frozen=True)
class ShapesOptions:
    """Options of `shapes:SPLIT`; `images` None is the split's usual number."""

    seed: int = setting(0, "Seed for the scenes.", at_least=0)
    images: int | None = setting(None, "Number of scenes to draw; none: the usual number for the split.", at_least=1)
    masks: bool = setting(False, "Whether to draw the set with masks of its objects, for segmentation.")
    long_tail: float = setting(
        1.0, "How many times as often as the rarest class the commonest is drawn; 1: all equally often.", at_least=1
    )


@dataclass(frozen=True)
class CollectedOptions:
    """Options of `shapes:collected`, images that were collected for a class each, as ILSVRC's train set: in each, only
    the objects of that class are annotated."""

    seed: int = setting(0, "Seed for the scenes.", at_least=0)
    long_tail: float = setting(
        1.0, "As of the other splits, for objects of other classes than the image's.", at_least=1
    )
    per_class: int = setting(100, "Images per class.", at_least=1)


@dataclass(frozen=True)
class ClassificationSettings:
    """Options of `shapes-classification:SPLIT`: images per class, and their side in pixels."""

    seed: int = setting(0, "Seed for the images.", at_least=0)
    per_class: int = setting(600, "Images per class.", at_least=1)
    side: int = setting(64, "Side of an image, in pixels.", at_least=16, at_most=512)


@dataclass(frozen=True)
class Thing:
    """One object in a scene: its class, antialiased mask uint8 [h, w], the mask's position (x, y) and its pose."""

    name: str
    mask: NDArray[np.uint8]
    at: tuple[int, int]
    pose: str

    @property
    def pixels(self) -> int:
        """The number of its pixels if nothing hid or cut it."""
        return int((self.mask >= SOLID).sum())


@dataclass(frozen=True)
class Scene:
    """A drawn image, uint8 [H, W, 3], and its objects.

    `owner` int16 [H, W] is the number of the object seen at each pixel, -1 for the background; `edges` bool [H, W] are
    the pixels that an object's outline shares with what is behind it.
    """

    pixels: NDArray[np.uint8]
    objects: tuple[WrittenObject, ...]
    owner: NDArray[np.int16]
    edges: NDArray[np.bool_]


def settings_for(split: str, options: ShapesOptions) -> ShapesSettings:
    """The settings that draw what one split needs. Raises BadDataset for an unknown split."""
    every = ShapesSettings(seed=options.seed)
    if split not in ("train", "val", "trainval", "test"):
        raise BadDataset(f"shapes:{split}: there is no such split; it may be train, val, trainval, test or collected")
    if options.images is None:
        return every
    none = replace(every, train=0, val=0, test=0)
    if split == "trainval":
        return replace(none, val=options.images // 3, train=options.images - options.images // 3)
    return replace(none, **{split: options.images})


def materialised_shapes(settings: ShapesSettings, work: Path, *, masks: bool = False, long_tail: float = 1.0) -> Path:
    """The folder below `work`/datasets with the detection set for these settings, drawn if it does not exist.

    A set with `masks` is a folder of its own, whose images and annotations are those of the set without; so is one with
    a `long_tail`, whose scenes are others.
    """
    label = f"shapes-v{VERSION}-masks-v{MASKS_VERSION}" if masks else f"shapes-v{VERSION}"
    identity = all_of(settings)
    if long_tail != 1:
        label, identity = f"{label}-tail-v{TAIL_VERSION}", {**identity, "long_tail": long_tail}
    return materialised(
        label, identity, work, lambda folder: draw_shapes(folder, settings, masks=masks, long_tail=long_tail)
    )


def materialised_collected(options: CollectedOptions, work: Path) -> Path:
    """The folder below `work`/datasets with the images collected for a class each, drawn if it does not exist."""
    label = f"shapes-collected-v{TAIL_VERSION}"
    return materialised(label, all_of(options), work, lambda folder: draw_collected(folder, options))


def draw_collected(folder: Path, options: CollectedOptions) -> None:
    """Draws the split "collected" into `folder`: image k is collected for class k modulo the number of classes, so that
    a set with more images per class begins with those of one with fewer."""
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    annotated = {}
    for index in range(options.per_class * len(SHAPES)):
        image_id, name = f"{COLLECTED}_{index:05d}", SHAPES[index % len(SHAPES)]
        scene = draw_scene(generator(options.seed, COLLECTED, index), weights_of(options.long_tail), name)
        annotated[image_id] = tuple(drawn for drawn in scene.objects if drawn.name == name)
        save_jpeg(folder / "JPEGImages" / f"{image_id}.jpg", scene.pixels)
        write_annotation(folder / "Annotations" / f"{image_id}.xml", scene.pixels.shape, annotated[image_id])
    write_image_sets(folder / "ImageSets" / "Main", {COLLECTED: annotated}, SHAPES)


def weights_of(long_tail: float) -> NDArray[np.float64] | None:
    """The share of each class, falling by the same factor from each to the next; None: all the same."""
    if long_tail == 1:
        return None
    weights = np.geomspace(long_tail, 1, len(SHAPES))
    return np.asarray(weights / weights.sum())


def materialised_classification(split: str, settings: ClassificationSettings, work: Path) -> Path:
    """The folder below `work`/datasets with one split of the classification set, drawn if it does not exist."""
    if split not in ("train", "val"):
        raise BadDataset(f"shapes-classification:{split}: there is no such split; it may be train or val")
    identity = {"split": split, **all_of(settings)}
    label = f"shapes-classification-v{VERSION}"
    return materialised(label, identity, work, lambda folder: draw_classification(folder, split, settings))


def draw_shapes(folder: Path, settings: ShapesSettings, *, masks: bool = False, long_tail: float = 1.0) -> None:
    """Draws the detection set into `folder`, in the devkit's layout: JPEGImages, Annotations, ImageSets/Main, and with
    `masks` SegmentationClass, SegmentationObject and ImageSets/Segmentation."""
    weights = weights_of(long_tail)
    of_masks = ("SegmentationClass", "SegmentationObject", "ImageSets/Segmentation") if masks else ()
    for part in ("JPEGImages", "Annotations", "ImageSets/Main", *of_masks):
        (folder / part).mkdir(parents=True, exist_ok=True)
    splits: dict[str, dict[str, tuple[WrittenObject, ...]]] = {}
    for split, count in (("train", settings.train), ("val", settings.val), ("test", settings.test)):
        splits[split] = {}
        for index in range(count):
            image_id, scene = f"{split}_{index:05d}", draw_scene(generator(settings.seed, split, index), weights)
            save_jpeg(folder / "JPEGImages" / f"{image_id}.jpg", scene.pixels)
            write_annotation(folder / "Annotations" / f"{image_id}.xml", scene.pixels.shape, scene.objects)
            splits[split][image_id] = scene.objects
            if masks:
                for kind, indices in zip(of_masks, scene_masks(scene), strict=False):
                    write_indices(folder / kind / f"{image_id}.png", indices)
    splits["trainval"] = splits["train"] | splits["val"]
    write_image_sets(folder / "ImageSets" / "Main", splits, SHAPES)
    if masks:
        write_image_sets(folder / "ImageSets" / "Segmentation", splits, ())


def scene_masks(scene: Scene) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The masks of a scene's classes and of its objects as indices from 1, each uint8 [H, W]; edges are VOID."""
    of_classes = np.array([0, *(SHAPES.index(drawn.name) + 1 for drawn in scene.objects)], np.uint8)
    of_objects = (scene.owner + 1).astype(np.uint8)
    classes = np.where(scene.edges, np.uint8(VOID), of_classes[of_objects])
    return classes, np.where(scene.edges, np.uint8(VOID), of_objects)


def draw_classification(folder: Path, split: str, settings: ClassificationSettings) -> None:
    """Draws one split of the classification set into `folder`, with one sub-folder per class."""
    for name in CLASSIFICATION:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(settings.per_class):
            rng = generator(settings.seed, f"classification/{split}/{name}", index)
            save_jpeg(folder / name / f"{index:05d}.jpg", draw_single(rng, name, settings.side))


def generator(seed: int, split: str, index: int) -> np.random.Generator:
    """The random number generator of one image."""
    return np.random.default_rng([seed, zlib.crc32(split.encode()), index])


def save_jpeg(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Writes uint8 [H, W, 3] as a JPEG file."""
    Image.fromarray(pixels).save(path, quality=JPEG_QUALITY)


def draw_scene(rng: np.random.Generator, weights: NDArray[np.float64] | None = None, first: str | None = None) -> Scene:
    """Draws a scene: a cluttered background, one to five objects that may occlude each other, and some lines on top.

    `weights`, float64 [classes], are the shares of the classes (None: equal ones); `first` is the class of the first
    object (None: any).
    """
    width, height = (int(rng.integers(*span)) for span in ((200, 281), (150, 211)))
    if rng.uniform() < 0.2:
        width, height = height, width
    canvas = background(rng, height, width)
    canvas = add_clutter(rng, canvas, blobs=int(rng.integers(2, 7)), lines=int(rng.integers(2, 6)))
    wanted = int(rng.choice(5, p=(0.2, 0.3, 0.25, 0.15, 0.1))) + 1
    owner = np.full((height, width), -1, np.int16)
    edges = np.zeros((height, width), np.bool_)
    things: list[Thing] = []
    for _ in range(wanted):
        thing = placed_thing(rng, owner, things, weights, None if things else first)
        if thing is not None:
            draw_thing(rng, canvas, thing)
            own(owner, thing, len(things))
            mark_edges(edges, thing)
            things.append(thing)
    canvas = add_lines(rng, canvas, int(rng.integers(0, 3)))
    objects = [described(owner, number, thing) for number, thing in enumerate(things)]
    return Scene(as_pixels(canvas), tuple(objects), owner, edges)


def placed_thing(
    rng: np.random.Generator,
    owner: NDArray[np.int16],
    things: list[Thing],
    weights: NDArray[np.float64] | None = None,
    name: str | None = None,
) -> Thing | None:
    """A new object, placed on the map `owner` int16 [H, W] so that all objects stay visible enough; None if that fails.

    Most objects keep clear of others and of the border; some are placed over another one or cut by the border. It is of
    the class `name`, or of one drawn with the `weights` (see `draw_scene`).
    """
    if name is None:
        drawn = rng.integers(len(SHAPES)) if weights is None else rng.choice(len(SHAPES), p=weights)
        name = SHAPES[int(drawn)]
    manner = rng.choice(3, p=(0.62, 0.22, 0.16))  # free, over another, cut by the border
    least_left, least_inside = ((0.9, 0.99), (0.22, 0.99), (0.75, 0.4))[manner]
    for _ in range(30):
        thing = random_thing(rng, name, owner.shape, things if manner == 1 else [], at_border=manner == 2)
        if still_visible(owner, thing, things, least_left, least_inside):
            return thing
    return None


def random_thing(
    rng: np.random.Generator, name: str, shape: tuple[int, ...], over: list[Thing], *, at_border: bool
) -> Thing:
    """An object of random size, tilt and position: anywhere, at the border, or partly `over` one of these things."""
    height, width = shape
    radius = 0.5 * np.exp(rng.uniform(np.log(20), np.log(min(150.0, 0.8 * min(height, width)))))
    scale = (radius * rng.uniform(0.85, 1.15), radius)
    flip = bool(rng.uniform() < 0.5)
    outline = placed(DETECTION[name](rng), scale, np.deg2rad(rng.uniform(-20, 20)), flip)
    mask, offset = rasterise(outline)
    centre = rng.uniform((radius, radius), (width - radius, height - radius))
    if over:
        other = over[int(rng.integers(len(over)))]
        reach = radius + 0.5 * max(other.mask.shape)
        angle = rng.uniform(0, 2 * np.pi)
        middle = np.array(other.at) + 0.5 * np.array(other.mask.shape[::-1])
        centre = middle + rng.uniform(0.45, 0.95) * reach * np.array([np.cos(angle), np.sin(angle)])
    elif at_border:
        side, inwards = int(rng.integers(4)), rng.uniform(-0.3, 0.7) * radius
        centre[side % 2] = inwards if side < 2 else (width, height)[side % 2] - inwards
    pose = ("Left" if flip else "Right") if name in FLIPPABLE else "Frontal"
    return Thing(name, mask, (int(centre[0] + offset[0]), int(centre[1] + offset[1])), pose)


def still_visible(
    owner: NDArray[np.int16], thing: Thing, things: list[Thing], least_left: float, least_inside: float
) -> bool:
    """Whether at least `least_inside` of the new thing is in the image, and `least_left` of each other one visible.

    `owner` int16 [H, W] is the number of the thing seen at each pixel, -1 for the background."""
    trial = owner.copy()
    own(trial, thing, len(things))
    counts = np.bincount(trial.ravel() + 1, minlength=len(things) + 2)[1:]
    before = np.bincount(owner.ravel() + 1, minlength=len(things) + 2)[1:]
    inside = counts[len(things)] >= least_inside * thing.pixels
    untouched = counts[:-1] == before[:-1]
    left = [now >= least_left * other.pixels for now, other in zip(counts[:-1], things, strict=True)]
    return bool(inside and np.all(untouched | np.array(left, bool)))


def own(owner: NDArray[np.int16], thing: Thing, number: int) -> None:
    """Sets the pixels of the map `owner` [H, W] that now show the thing to its `number`."""
    on_canvas, on_mask = windows(owner.shape, thing.mask.shape, thing.at)
    owner[on_canvas][thing.mask[on_mask] >= SOLID] = number


def mark_edges(edges: NDArray[np.bool_], thing: Thing) -> None:
    """Sets the pixels of the map `edges` [H, W] that the thing covers in part, and clears those it covers whole."""
    on_canvas, on_mask = windows(edges.shape, thing.mask.shape, thing.at)
    mask = thing.mask[on_mask]
    edges[on_canvas] = np.where(mask == 0, edges[on_canvas], mask < 255)


def draw_thing(rng: np.random.Generator, canvas: Canvas, thing: Thing) -> None:
    """Paints an object on `canvas` [H, W, 3] in a colour that contrasts with its surroundings."""
    on_canvas, _ = windows(canvas.shape[:2], thing.mask.shape, thing.at)
    under = canvas[on_canvas].reshape(-1, 3).mean(0)
    paint(canvas, thing.mask, thing.at, textured(rng, thing.mask.shape, contrasting(rng, under)))


def described(owner: NDArray[np.int16], number: int, thing: Thing) -> WrittenObject:
    """The annotation of thing `number` on the map `owner` [H, W]: the box of its visible pixels, zero-based and
    half-open, and its flags."""
    rows, columns = np.nonzero(owner == number)
    box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    on_mask = windows(owner.shape, thing.mask.shape, thing.at)[1]
    inside = int((thing.mask[on_mask] >= SOLID).sum())
    tiny = min(box[2] - box[0], box[3] - box[1]) < TINY
    return WrittenObject(
        name=thing.name,
        box=box,
        difficult=tiny or len(rows) < VISIBLE * thing.pixels,
        truncated=inside < 0.97 * thing.pixels,
        occluded=len(rows) < 0.95 * inside,
        pose=thing.pose,
    )


def draw_single(rng: np.random.Generator, name: str, side: int) -> NDArray[np.uint8]:
    """An image of the classification set, uint8 [side, side, 3], mostly filled by an object of class `name`.

    Objects are stretched by a factor of up to 1.4 either way, as warped regions are, and slightly off-centre.
    """
    canvas = background(rng, side, side)
    canvas = add_clutter(rng, canvas, blobs=int(rng.integers(0, 3)), lines=int(rng.integers(0, 3)))
    radius = side * rng.uniform(0.27, 0.46)
    stretch = np.exp(rng.uniform(-0.17, 0.17))
    draw = single_outline(CLASSIFICATION[name], rng, (radius * stretch, radius / stretch))
    mask, offset = rasterise(draw)
    centre = side / 2 + rng.uniform(-0.09, 0.09, 2) * side
    draw_thing(rng, canvas, Thing(name, mask, (int(centre[0] + offset[0]), int(centre[1] + offset[1])), "Frontal"))
    if rng.uniform() < 0.3:
        canvas = add_lines(rng, canvas, 1)
    return as_pixels(canvas)


def single_outline(
    silhouette: Silhouette, rng: np.random.Generator, scale: tuple[float, float]
) -> list[NDArray[np.float64]]:
    """The outline of a single object, possibly mirrored and slightly tilted, as in the scenes."""
    return placed(silhouette(rng), scale, np.deg2rad(rng.uniform(-20, 20)), bool(rng.uniform() < 0.5))
