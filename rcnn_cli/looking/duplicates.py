"""`rcnn duplicates`: images of one dataset that show the same photograph as images of another, as a table, JSON, CSV
and a sheet of the pairs (R-CNN Appendix F)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rcnn_cli.outputs import OutputFolder
from rcnn_cli.running.near_duplicates import Side, compared, find, table_of
from rcnn_cli.running.runner import Options
from stages.contract.errors import BadImage, StageError
from stages.gist.duplicates import COUNT, Duplicates, Pair
from stages.images.reading import Pixels
from stages.pictures.drawing import contact_sheet, fitted, font_of, save_image, shortened
from stages.pictures.palette import INK, PAPER
from stages.plurals import number_of, plural
from stages.tables import aligned, csv_text

FILES = ("duplicates.json", "neighbours.csv", "pairs.png")
CELL = (230, 190)
GAP = 6
COLUMNS = 3
DRAWN, OTHERS = 60, 6
"""Pairs on the sheet, and how many of the closest others."""
PRINTED = 20


@dataclass(frozen=True)
class Compared:
    """What was found of B's images in A (`b` is None: of A's own), and where the results go by default."""

    a: Side
    b: Side | None
    found: Duplicates
    folder: Path

    @property
    def other(self) -> Side:
        """The set whose images are looked up: B, or A itself."""
        return self.b or self.a


def compare(texts: Sequence[str], threshold: float, work: Path, options: Options) -> Compared:
    """The duplicates in the first of one or two datasets, each a source or RECIPE.toml:NAME. Raises StageError."""
    sides = compared([table_of(text) for text in texts], work, options)
    a, b = sides[0], sides[1] if len(sides) > 1 else None
    if b is not None and a.reader.key == b.reader.key:
        raise StageError(f"{texts[0]} and {texts[1]} are the same images; name them once to find duplicates among them")
    folder = work / "results" / "duplicates" / "-".join(side.name for side in sides)
    return Compared(a, b, find(a, b, threshold, OTHERS), folder)


def tell(compared: Compared, folder: Path | None, as_json: bool) -> str:
    """Writes JSON, CSV and the sheet into `folder`; the table, or the JSON, that is to be printed."""
    output = OutputFolder(folder or compared.folder, given=folder is not None)
    output.check(FILES)
    values = as_values(compared)
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    output.write("duplicates.json", text + "\n")
    output.write("neighbours.csv", csv_text(neighbour_rows(compared)))
    with output.file("pairs.png") as path:
        save_image(sheet(compared), path)
    return text if as_json else f"{format_table(compared, values)}\nPairs, all neighbours, a sheet: {output.path}/"


def as_values(compared: Compared) -> dict[str, Any]:
    """The result as JSON values. Distances that do not exist are None."""
    found, a, b = compared.found, compared.a, compared.other
    exact = [pair for pair in found.pairs if pair.flickr_id is not None]
    images = {
        "same_file": found.images(pair for pair in found.pairs if pair.same_file),
        "same_flickr_id": found.images(exact),
        "near": found.images(pair for pair in found.pairs if found.is_near(pair)),
        "any": found.images(found.pairs),
    }
    return {
        "a": {"name": a.name, "images": len(a.images.image_ids), "descriptors": a.reader.key},
        "b": None
        if compared.b is None
        else {"name": b.name, "images": len(b.images.image_ids), "descriptors": b.reader.key},
        "threshold": found.threshold,
        "images_with_duplicates": images,
        "same_flickr_id_and_near": found.images(pair for pair in exact if found.is_near(pair)),
        "with_flickr_id": {
            side.name: sum(text is not None for text in side.described.flickr_ids) for side in sides(compared)
        },
        "without_texture": {side.name: without_texture(side, which) for side, which in textures(compared)},
        "skipped": {side.name: sorted(side.reader.manifest["skipped"]) for side in sides(compared)},
        "pairs": [pair_values(compared, pair) for pair in found.pairs],
        "closest_others": [pair_values(compared, pair) for pair in found.closest_others],
    }


def sides(compared: Compared) -> list[Side]:
    """A, and B where there is one."""
    return [compared.a] if compared.b is None else [compared.a, compared.b]


def textures(compared: Compared) -> list[tuple[Side, NDArray[np.bool_]]]:
    """Each side, and which of its images have no texture, bool [n]."""
    found = compared.found
    return list(zip(sides(compared), (found.without_texture_a, found.without_texture_b), strict=False))


def without_texture(side: Side, which: NDArray[np.bool_]) -> list[str]:
    """The ids of the images of a single colour; skipped ones are none of them."""
    return [
        image_id
        for image_id, without in zip(side.images.image_ids, which, strict=True)
        if without and image_id not in side.reader.manifest["skipped"]
    ]


def pair_values(compared: Compared, pair: Pair) -> dict[str, Any]:
    """A pair as JSON values."""
    return {
        "a": compared.a.images.image_ids[pair.a],
        "b": compared.other.images.image_ids[pair.b],
        "distance": None if math.isnan(pair.distance) else round(pair.distance, 6),
        "same_file": pair.same_file,
        "flickr_id": pair.flickr_id,
        "plain": pair.plain,
    }


def neighbour_rows(compared: Compared) -> list[list[Any]]:
    """A heading, and for each image of B its nearest image of A, and the distances of this and of the second."""
    rows: list[list[Any]] = [["image", "nearest", "distance", "second_distance"]]
    neighbours, ids = compared.found.neighbours, compared.a.images.image_ids
    for image_id, near, distances in zip(
        compared.other.images.image_ids, neighbours.rows, neighbours.distances, strict=True
    ):
        first = ids[near[0]] if near[0] >= 0 else ""
        rows.append([image_id, first, *(f"{value:.6f}" if math.isfinite(value) else "" for value in distances[:2])])
    return rows


def how_known(found: Duplicates, pair: Pair) -> str:
    """How a pair is known, in words."""
    words = [
        "same file" if pair.same_file else "",
        f"flickr {pair.flickr_id}" if pair.flickr_id else "",
        "GIST" if found.is_near(pair) else "",
        "little texture" if pair.plain else "",
    ]
    return ", ".join(word for word in words if word)


def format_table(compared: Compared, values: dict[str, Any]) -> str:
    """How many images have duplicates, and the first of the pairs."""
    found, b = compared.found, compared.other
    total = len(b.images.image_ids)
    where = f"also in {compared.a.name} ({number_of(len(compared.a.images.image_ids), 'image')})"
    images = values["images_with_duplicates"]
    counts = {
        "the same file": images["same_file"],
        "the same number on flickr": images["same_flickr_id"],
        f"GIST, distance under {found.threshold:g}": images["near"],
        "any of these": images["any"],
    }
    rows = [[words, f"{count:,}", f"{100 * count / total:.2f} %"] for words, count in counts.items()]
    lines = [
        f"{b.name}: {number_of(total, 'image')}; {where if compared.b else 'twice among them'}:",
        *aligned(rows, rules_before=()),
    ]
    without = [side.name for side in sides(compared) if not values["with_flickr_id"][side.name]]
    if without:
        lines.append(f"{' and '.join(without)} {'states' if len(without) == 1 else 'state'} no numbers of flickr.")
    if values["images_with_duplicates"]["same_flickr_id"]:
        same, near = values["images_with_duplicates"]["same_flickr_id"], values["same_flickr_id_and_near"]
        lines.append(f"Of {number_of(same, 'image')} with the same number on flickr GIST finds {near}.")
    count = sum(map(len, values["without_texture"].values()))
    if count:
        lines.append(f"{number_of(count, 'image')} of a single colour {'has' if count == 1 else 'have'} no descriptor.")
    lines += pair_lines(compared)
    if found.closest_others:
        others = "all other pairs" if found.pairs else "all pairs"
        lines.append(f"The closest of {others}: {found.closest_others[0].distance:.3f}.")
    return "\n".join(lines)


def pair_lines(compared: Compared) -> list[str]:
    """A table of the first pairs, if there are any."""
    found = compared.found
    if not found.pairs:
        return []
    rows = [["A", "B", "distance", "known by"]]
    for pair in found.pairs[:PRINTED]:
        values = pair_values(compared, pair)
        distance = "-" if values["distance"] is None else f"{pair.distance:.3f}"
        rows.append([values["a"], values["b"], distance, how_known(found, pair)])
    lines = aligned(rows, rules_before=(1,))
    if len(found.pairs) > PRINTED:
        rest = len(found.pairs) - PRINTED
        lines.append(f"and {rest:,} more {plural('pair', rest)}; of each image the {COUNT} nearest are listed")
    return lines


def sheet(compared: Compared) -> Pixels:
    """The pairs side by side, A's image on the left, and below them the closest that are none: uint8 RGB [H, W, 3]."""
    found = compared.found
    shown = found.pairs[:DRAWN]
    count = number_of(len(found.pairs), "pair")
    first = f"{count}{f', the first {DRAWN} of them' if len(found.pairs) > DRAWN else ''}. "
    where = "" if compared.b is None else f"Left: {compared.a.name}; right: {compared.b.name}. "
    first += f"{where}Numbers: the distance of the GIST descriptors; the threshold is {found.threshold:g}."
    parts = [pair_sheet(compared, shown, first)]
    if found.closest_others:
        parts.append(pair_sheet(compared, found.closest_others, "The closest pairs that are not taken for duplicates:"))
    size = (max(part.shape[1] for part in parts), sum(part.shape[0] for part in parts))
    canvas, top = Image.new("RGB", size, PAPER), 0
    for part in parts:
        canvas.paste(Image.fromarray(part), (0, top))
        top += part.shape[0]
    return np.asarray(canvas).copy()


def pair_sheet(compared: Compared, pairs: Sequence[Pair], heading: str) -> Pixels:
    """A contact sheet of pairs, or only its heading where there are none."""
    blank = np.full((1, COLUMNS * (2 * CELL[0] + GAP), 3), PAPER, np.uint8)
    images = [pair_image(compared, pair) for pair in pairs]
    titles = [f"{distance_of(pair)} {how_known(compared.found, pair)}" for pair in pairs]
    return contact_sheet(images or [blank], COLUMNS, titles, heading=[heading])


def distance_of(pair: Pair) -> str:
    """The distance for a title."""
    return "-" if math.isnan(pair.distance) else f"{pair.distance:.3f}"


def pair_image(compared: Compared, pair: Pair) -> Pixels:
    """Both images of a pair with their ids below: uint8 RGB [H, W, 3]."""
    font = font_of(12)
    line = sum(font.getmetrics()) + 2
    canvas = Image.new("RGB", (2 * CELL[0] + GAP, CELL[1] + line), PAPER)
    pen = ImageDraw.Draw(canvas)
    for number, (side, place) in enumerate(((compared.a, pair.a), (compared.other, pair.b))):
        image_id = side.images.image_ids[place]
        left = number * (CELL[0] + GAP)
        small, _ = fitted(read(side, image_id), CELL)
        canvas.paste(small, (left + (CELL[0] - small.width) // 2, (CELL[1] - small.height) // 2))
        text = shortened(image_id, font, CELL[0])
        pen.text((left + CELL[0] / 2, CELL[1] + 1), text, fill=INK, font=font, anchor="ma")
    return np.asarray(canvas).copy()


def read(side: Side, image_id: str) -> Pixels:
    """An image, or one white pixel for one that was skipped."""
    try:
        return side.images.read_image(image_id)
    except BadImage:
        if image_id not in side.reader.manifest["skipped"]:
            raise
        return np.full((1, 1, 3), 255, np.uint8)
