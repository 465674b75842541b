"""`rcnn units`: the regions that activate a unit of a cached convolutional layer most (R-CNN section 3.1).

Units are counted from 1, (row, column, channel), as in the paper's figures: 3,4,80 of 6 x 6 x 256.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache import Reader
from rcnn_cli.looking.results import results_folder
from rcnn_cli.outputs import OutputFolder
from rcnn_cli.progress import progress
from rcnn_cli.recipes.detectors import detector_node, main_detector, tables_that_make
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.running.runner import check_readable
from stages.contract.errors import StageError
from stages.contract.settings import nearest
from stages.extract import WARP
from stages.extract.pictures import UnitRow, View, seen_regions, unit_sheet
from stages.extract.units import TopRegions, class_selectivity, selective_units, strongest_regions
from stages.features.reading import NOT_LAYERS
from stages.file_names import file_name
from stages.networks import Preprocessing
from stages.networks.receptive_field import NotAMap, ReceptiveFields, receptive_fields
from stages.pictures.drawing import save_image
from stages.plurals import number_of

MONTAGE = 12


@dataclass(frozen=True)
class Unit:
    """A unit, counted from 0, and the class for which it was selected (None if the user named it)."""

    channel: int
    y: int
    x: int
    chosen_for: str | None = None

    def __str__(self) -> str:
        return f"{self.y + 1},{self.x + 1},{self.channel + 1}"


@dataclass(frozen=True)
class Maps:
    """A convolutional layer in a cache of features, with what is needed to show its regions."""

    node: Node
    reader: Reader
    dataset: Any
    layer: str
    fields: ReceptiveFields
    view: View


def open_maps(graph: Graph, split: str, layer: str | None, table: str | None) -> Maps:
    """The features of `split` from the table with this name (default: the main detector's), and `layer` (default: the
    deepest map).

    Raises StageError if there is no such table, split, layer or map, IncompleteCache if the cache is incomplete.
    """
    node = features_node(graph, split, table)
    check_readable(graph, node, "to show its units")
    reader = Reader(graph.folder(node))
    network = reader.manifest["summary"]["network"]
    settings = node.settings
    if settings.method != WARP:
        raise StageError(
            f"{graph.recipe.path}: the regions of [{node.table}] are cut out of maps, so its units have no receptive "
            'field within them; choose features with method = "warp"'
        )
    chosen, fields = chosen_layer(reader, network["name"], layer)
    view = View(
        network["input_size"],
        settings.mode,
        settings.padding,
        Preprocessing.from_json("recorded", network["preprocessing"]),
    )
    return Maps(node, reader, graph.dataset(split, "dataset"), chosen, fields, view)


def features_nodes(graph: Graph) -> list[Node]:
    """The recipe's nodes that make features: those of the main detector first, the others in the order of the file.

    Raises StageError if there are none.
    """
    nodes = graph.making("features")
    if not nodes:
        raise StageError(f"{graph.recipe.path}: extracts no features; add a table [extract]")
    order = tables_that_make(graph, "features")
    main = detector_node(graph).made_from("features") if main_detector(graph) else None
    return sorted(nodes, key=lambda node: (main is None or node.use is not main.use, order.index(node.use.name)))


def features_node(graph: Graph, split: str, table: str | None) -> Node:
    """The recipe's node of features on `split`. Raises StageError if there is none."""
    nodes = features_nodes(graph)
    if table is not None:
        named = [node for node in nodes if node.use.name == table]
        if not named:
            names = ", ".join(dict.fromkeys(node.use.name for node in nodes))
            raise StageError(f"--features {table}: is not an extract table of {graph.recipe.path}; it has {names}")
        nodes = named
    on_split = [node for node in nodes if node.dataset == split]
    if not on_split:
        splits = ", ".join(dict.fromkeys(node.dataset for node in nodes))
        raise StageError(f"{graph.recipe.path}: has features on {splits}, not on '{split}'; choose with --split")
    return on_split[0]


def chosen_layer(reader: Reader, network: str, layer: str | None) -> tuple[str, ReceptiveFields]:
    """The requested layer, or the deepest convolutional map in the cache. Raises StageError if it is not a map."""
    cached = [name for name in reader.manifest["summary"]["layers"] if name not in NOT_LAYERS]
    if layer is not None and layer not in cached:
        raise StageError(f"--layer {layer}: is not among the cached layers{nearest(layer, cached)}")
    maps: dict[str, ReceptiveFields] = {}
    for name in cached:
        try:
            maps[name] = receptive_fields(network, name)
        except NotAMap:
            continue
    if layer is None and not maps:
        raise StageError(
            f"{reader.folder}: none of its layers is a convolutional map; add one to extract.layers of the recipe"
        )
    if layer is not None and layer not in maps:
        advice = f"choose {' or '.join(maps)}" if maps else "add a convolutional layer to extract.layers of the recipe"
        raise StageError(f"--layer {layer}: not a convolutional map, so its units have no place in the image; {advice}")
    chosen = layer or min(maps, key=lambda name: int(np.prod(maps[name].shape[1:])))
    return chosen, maps[chosen]


def parse_unit(text: str, shape: tuple[int, int, int], layer: str) -> Unit:
    """Parses "3,4,80" as a unit of a layer with this shape (C, H, W). Raises StageError."""
    channels, height, width = shape
    words = [word.strip() for word in text.split(",")]
    are_numbers = len(words) == 3 and all(word.isascii() and word.isdigit() for word in words)
    limits = (height, width, channels)
    if not are_numbers or not all(1 <= int(word) <= limit for word, limit in zip(words, limits, strict=True)):
        raise StageError(
            f"--unit {text}: is not a unit of {layer}; write ROW,COLUMN,CHANNEL "
            f"from 1,1,1 to {height},{width},{channels}"
        )
    y, x, channel = (int(word) - 1 for word in words)
    return Unit(channel, y, x)


def montage(maps: Maps, count: int) -> list[Unit]:
    """The `count` most class-selective units. Raises StageError unless the split has objects of two classes."""
    selectivity = class_selectivity(maps.reader, maps.layer, len(maps.dataset.classes))
    chosen = selective_units(selectivity, maps.fields.shape, count)
    if not chosen:
        raise StageError(
            f"--montage: needs objects of at least two classes on '{maps.node.dataset}' to find selective units; "
            f"name units with --unit"
        )
    units = []
    for unit, label in chosen:
        channel, y, x = (int(index) for index in np.unravel_index(unit, maps.fields.shape))
        units.append(Unit(channel, y, x, maps.dataset.classes[label]))
    return units


def show_units(
    graph: Graph,
    split: str,
    layer: str | None,
    table: str | None,
    units: Sequence[str],
    count: int | None,
    top: int,
    overlap: float,
    output: Path | None,
    as_json: bool,
) -> str:
    """Draws the units' top regions, writes picture and JSON, and returns the table, or the JSON, to print.

    `count`: how many class-selective units to add; by default MONTAGE if no units are named, else none. Raises
    StageError and as `open_maps`.
    """
    maps = open_maps(graph, split, layer, table)
    folder = OutputFolder(output or results_folder(graph) / "units", given=output is not None)
    name = file_name(f"{maps.node.use.name}-{split}-{maps.layer}")
    folder.check((f"{name}.png", f"{name}.json"))
    selected = list(dict.fromkeys(parse_unit(text, maps.fields.shape, maps.layer) for text in units))
    if count is None and not selected:
        count = MONTAGE
    selected += montage(maps, count) if count else []
    places = np.array([(unit.channel, unit.y, unit.x) for unit in selected], np.int64)
    with progress("units", len(maps.reader), "images") as bar:
        strongest = strongest_regions(
            maps.reader, maps.layer, maps.fields.shape, places, top, overlap, lambda: bar.advance(1)
        )
    values = [as_values(maps, unit, regions) for unit, regions in zip(selected, strongest, strict=True)]
    if not any(each["regions"] for each in values):
        raise StageError(
            f"--unit {' '.join(map(str, selected))}: no region of '{split}' gives an activation above 0; choose others"
        )
    with folder.file(f"{name}.png") as path:
        save_image(sheet(maps, selected, strongest), path)
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    folder.write(f"{name}.json", text + "\n")
    return text if as_json else f"{format_table(maps, values)}\nPicture and numbers: {folder.path / name}.png, .json"


def sheet(maps: Maps, units: Sequence[Unit], strongest: Sequence[TopRegions]) -> np.ndarray:
    """The picture, uint8 RGB [H, W, 3]: a section for each unit that any region activates. Reads each image once."""
    regions: dict[tuple[int, int], np.ndarray] = {}
    owners = [(number, place) for number, top in enumerate(strongest) for place in range(len(top.images))]
    images = np.array([strongest[number].images[place] for number, place in owners], np.int64)
    for image in np.unique(images):
        in_image = [owners[row] for row in np.flatnonzero(images == image)]
        pixels = maps.dataset.read_image(maps.reader.item_ids[image])
        boxes = np.array([strongest[number].boxes[place] for number, place in in_image], np.float32)
        regions.update(zip(in_image, seen_regions(pixels, boxes, maps.view), strict=True))
    rows = [
        UnitRow(
            title(maps, unit, top),
            [regions[number, place] for place in range(len(top.images))],
            top.normalised.tolist(),
            maps.fields.box(unit.y, unit.x),
        )
        for number, (unit, top) in enumerate(zip(units, strongest, strict=True))
        if len(top.images)
    ]
    return unit_sheet(rows, maps.view.side)


def title(maps: Maps, unit: Unit, top: TopRegions) -> str:
    """The heading of a unit's regions."""
    chosen = f", chosen for {unit.chosen_for}" if unit.chosen_for else ""
    return f"{maps.layer} unit ({str(unit).replace(',', ', ')}){chosen}: top {len(top.images)}"


def as_values(maps: Maps, unit: Unit, top: TopRegions) -> dict[str, Any]:
    """A unit and its regions as JSON values; boxes are zero-based and half-open, in pixels of the image."""
    classes = maps.dataset.classes
    return {
        "layer": maps.layer,
        "unit": [unit.y + 1, unit.x + 1, unit.channel + 1],
        "chosen_for": unit.chosen_for,
        "receptive_field": list(maps.fields.box(unit.y, unit.x)),
        "input_size": maps.view.side,
        "channel_maximum": top.channel_maximum,
        "regions": [
            {
                "image": maps.reader.item_ids[image],
                "box": [round(float(corner), 2) for corner in box],
                "activation": float(activation),
                "normalised": float(share),
                "class": classes[label] if label >= 0 else None,
            }
            for image, box, activation, share, label in zip(
                top.images, top.boxes, top.activations, top.normalised, top.labels, strict=True
            )
        ],
    }


def format_table(maps: Maps, units: Sequence[dict[str, Any]]) -> str:
    """The units as a table: receptive field, activations, and what the top regions show."""
    channels, height, width = maps.fields.shape
    rows = [("unit", "sees x", "sees y", "channel max", "top", "last", "regions show")]
    for unit in units:
        left, upper, right, lower = unit["receptive_field"]
        shown = Counter(region["class"] or "no object" for region in unit["regions"])
        activations = [region["activation"] for region in unit["regions"]] or [0.0]
        rows.append(
            (
                ",".join(map(str, unit["unit"])),
                f"{left}-{right}",
                f"{upper}-{lower}",
                f"{unit['channel_maximum']:.2f}",
                f"{activations[0]:.2f}",
                f"{activations[-1]:.2f}",
                ", ".join(f"{name} {count}" for name, count in shown.most_common()) or "nothing activates it",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    lines = ["  ".join([*(cell.rjust(wide) for cell, wide in zip(row, widths, strict=False)), row[6]]) for row in rows]
    head = (
        f"{maps.layer} of {maps.node.name}: {height} x {width} units (row, column) in each of {channels} channels, "
        f"input {maps.view.side} x {maps.view.side}; a region's class is that of an object with an IoU of at least 0.5"
    )
    chosen = [unit["chosen_for"] for unit in units if unit["chosen_for"]]
    foot = []
    if chosen:
        foot = [
            f"{number_of(len(chosen), 'unit')} chosen: each class's most selective one in turn, at most one per channel"
        ]
    return "\n".join([head, "", *lines, *foot])
