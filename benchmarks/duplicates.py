"""How well and how fast near-duplicates are found: `python -m benchmarks.duplicates SOURCE...`.

Images spread over a dataset are planted as variants (JPEG, smaller, cropped, ...) and looked up among all originals.
Then the closest pairs of different photographs, and the processor time of a descriptor and of exact neighbours among
many random ones.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from stages.datasets import open_dataset
from stages.gist import Settings
from stages.gist.descriptor import gist
from stages.gist.neighbours import THRESHOLD, Descriptors, distances_between, nearest, normalised

Variant = Callable[[Image.Image], Image.Image]


def jpeg(quality: int) -> Variant:
    """The image compressed once more."""

    def compress(image: Image.Image) -> Image.Image:
        content = io.BytesIO()
        image.save(content, "JPEG", quality=quality)
        return Image.open(content).convert("RGB")

    return compress


def scaled(share: float) -> Variant:
    """The image at a share of its sides."""
    return lambda image: image.resize(
        (max(1, round(image.width * share)), max(1, round(image.height * share))), Image.Resampling.LANCZOS
    )


def cropped(share: float) -> Variant:
    """The image without a share of each side, all of it cut off at the left and the top: the worst case."""
    return lambda image: image.crop(
        (round(image.width * share), round(image.height * share), image.width, image.height)
    )


def centred(share: float) -> Variant:
    """The image without a share of each side, half of it at either edge."""
    return lambda image: ImageOps.crop(image, (round(image.width * share / 2), round(image.height * share / 2)) * 2)


def then(*variants: Variant) -> Variant:
    """One after the other."""

    def apply(image: Image.Image) -> Image.Image:
        for variant in variants:
            image = variant(image)
        return image

    return apply


VARIANTS: dict[str, Variant] = {
    "JPEG 75": jpeg(75),
    "JPEG 30": jpeg(30),
    "JPEG 10": jpeg(10),
    "half size": scaled(0.5),
    "quarter size, JPEG 60": then(scaled(0.25), jpeg(60)),
    "crop 2 % (centre)": centred(0.02),
    "crop 5 % (centre)": centred(0.05),
    "crop 2 % (one corner)": cropped(0.02),
    "crop 5 % (one corner)": cropped(0.05),
    "crop 10 % (centre)": centred(0.1),
    "crop 20 % (centre)": centred(0.2),
    "crop 5 %, half size, JPEG 60": then(centred(0.05), scaled(0.5), jpeg(60)),
    "brighter by 20 %": lambda image: image.point(lambda value: min(255, round(1.2 * value))),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "mirrored": ImageOps.mirror,
}


def described(images: list[Image.Image]) -> Descriptors:
    """Their normalised descriptors."""
    return normalised(np.array([gist(np.asarray(image), Settings()) for image in images]))


def show_recall(originals: Descriptors, planted: list[int], images: list[Image.Image]) -> None:
    """Prints a line for each variant."""
    for name, variant in VARIANTS.items():
        queries = described([variant(image) for image in images])
        own = distances_between(queries, originals[planted])
        first = nearest(queries, [originals], 1).rows[:, 0] == planted
        print(
            f"{name:29} distance {np.median(own):.3f} median, {np.quantile(own, 0.95):.3f} 95 %; first neighbour "
            f"{100 * first.mean():5.1f} %; under {THRESHOLD:g} {100 * (own < THRESHOLD).mean():5.1f} %"
        )


def show_others(originals: Descriptors) -> None:
    """Prints how close different photographs come, normalised."""
    found = nearest(originals, [originals], 1, among_themselves=True)
    count = len(originals) * (len(originals) - 1) // 2
    false = {tuple(sorted((row, int(found.rows[row, 0])))) for row in np.flatnonzero(found.distances[:, 0] < THRESHOLD)}
    print(f"{count:,} pairs of originals: least distance {found.distances.min():.3f}, {len(false)} under {THRESHOLD:g}")


def show_speed(queries: int, rows: int, images: list[Image.Image]) -> None:
    """Prints the processor time of a descriptor, of an image's decoding apart, and of neighbours."""
    pixels = [np.asarray(image) for image in images]
    seconds = []
    for image in pixels:
        start = time.process_time()
        gist(image, Settings())
        seconds.append(time.process_time() - start)
    small = [np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)) for image in images]
    of_small = []
    for image in small:
        start = time.process_time()
        gist(image, Settings())
        of_small.append(time.process_time() - start)
    print(
        f"descriptor: {1000 * statistics.median(seconds):.2f} ms per decoded image (median), "
        f"{1000 * statistics.median(of_small):.2f} ms of it after warping"
    )
    random = np.random.default_rng(0)
    b = normalised(random.random((queries, Settings().length), np.float32))
    start = time.process_time()
    made = 0.0

    def parts() -> Iterator[Descriptors]:
        nonlocal made
        for first in range(0, rows, 512):
            began = time.process_time()
            part = normalised(random.random((min(512, rows - first), Settings().length), np.float32))
            made += time.process_time() - began
            yield part

    nearest(b, parts(), 5)
    took = time.process_time() - start - made
    print(f"{queries:,} x {rows:,} exact neighbours, five each: {took:.1f} s")


def main() -> None:
    """Measures and prints everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sources", nargs="+", help="the dataset, e.g. voc:DIR:trainval, or several as one")
    parser.add_argument("--planted", type=int, default=150, help="images that variants are made of")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=200_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        dataset = open_dataset(arguments.sources, work=Path(work))
        count = len(dataset.image_ids)
        planted = [count * place // arguments.planted for place in range(arguments.planted)]
        start = time.process_time()
        originals = np.concatenate(
            [described([Image.fromarray(dataset.read_image(image_id))]) for image_id in dataset.image_ids]
        )
        print(f"{count:,} images: {1000 * (time.process_time() - start) / count:.1f} ms each, read, decoded, described")
        images = [Image.fromarray(dataset.read_image(dataset.image_ids[place])) for place in planted]
    show_recall(originals, planted, images)
    show_others(originals)
    show_speed(arguments.queries, arguments.rows, images)


if __name__ == "__main__":
    main()
