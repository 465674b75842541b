"""The maps stage: whole images in, the trunk's maps out."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cache import Part, Reader, Record, Schema, Writer
from stages.contract.errors import BadImage
from stages.contract.execution import Execution, Progress
from stages.contract.inputs import Inputs
from stages.contract.processes import fill_output
from stages.contract.recent_records import RecentRecords
from stages.contract.settings import check_device
from stages.datasets import Dataset
from stages.images.batches import fill_items, images_ahead
from stages.images.scale import image_scale, scaled_image
from stages.maps import Settings
from stages.networks import NetworkSource
from stages.networks.feature_maps import ComputedMaps, FeatureMaps, compute_maps, maps_schema, network_input
from stages.networks.memory import keep_large_buffers
from stages.networks.parts import Maps, NetworkPart, about_network
from stages.networks.precision import arithmetic, load_first, loaded, not_finite


def items(settings: Settings, inputs: Inputs) -> Sequence[str]:
    """The images of the dataset."""
    return list(inputs.dataset("images").image_ids)


def schema(settings: Settings, inputs: Inputs) -> Schema:
    """The cells of each image's maps (see `maps_schema`)."""
    return schema_of(settings, inputs.network("network"))


def schema_of(settings: Settings, source: NetworkSource) -> Schema:
    """The columns of the maps of this network."""
    return maps_schema(source.card.trunk, len(settings.sides), settings.dtype, settings.mirrored)


def run(settings: Settings, inputs: Inputs, output: Writer, execution: Execution) -> None:
    """Computes the maps of every image in the parts that can be claimed.

    On the CPU, `execution.jobs` single-threaded processes take one part at a time; on CUDA, one process.
    """
    with execution.progress("maps", output.remaining_items, "images") as bar:
        maps = on_demand(settings, inputs, execution)
        fill_output("maps", functools.partial(fill_parts, maps, output), output, execution, bar)


def on_demand(settings: Settings, inputs: Inputs, execution: Execution) -> MapsOnDemand:
    """The maps of every image as the cache would hold them, computed when they are read.

    Raises BadSetting for a precision that the device lacks, StageError for weights that cannot be loaded.
    """
    source = inputs.network("network")
    check_device(settings, execution.device, "maps.")
    if not execution.device.startswith("cuda"):
        load_first(source, settings.precision, execution)
    at_once = max(images_ahead(execution.device), execution.jobs if execution.device.startswith("cuda") else 1)
    return MapsOnDemand(settings, inputs.dataset("images"), source, execution.in_worker, at_once + 2)


def summarise(settings: Settings, inputs: Inputs, reader: Reader) -> dict[str, Any]:
    """The network, its trunk alone, and the number of cells per image."""
    lengths = np.asarray(reader.lengths())
    source = inputs.network("network")
    return {
        "network": source.identity(),
        "trunk": source.trunk_identity(),
        **({"border": settings.border} if settings.border else {}),
        "cells_per_image": round(float(lengths.mean()), 1) if len(lengths) else 0.0,
    }


def network_parts(settings: Settings, inputs: Inputs, image_id: str) -> list[NetworkPart]:
    """The trunk, with this image at the first scale."""
    network = inputs.network("network").load()
    pixels, trunk = inputs.dataset("images").read_image(image_id), network.card.trunk
    height, width = pixels.shape[:2]
    scaled = scaled_image(pixels, image_scale(width, height, settings.sides[0], settings.longest))
    about = {
        **about_network(network),
        "image": "an image whose shorter side was scaled to one of sides, the longer to longest at most",
        "sides": list(settings.sides),
        "longest": settings.longest,
        "margin": f"{trunk.margin[0] + settings.border} pixels of 0 (the mean colour) before the first row and column, "
        f"{trunk.margin[1] + settings.border} after the last",
        "maps": f"{trunk.layer}: {trunk.channels} channels, a cell every {trunk.stride} pixels, the first centred on "
        f"pixel {trunk.first_centre - settings.border:g} of the scaled image",
    }
    image = network_input(scaled, network, settings.border).contiguous()
    return [
        NetworkPart("maps", Maps(network), {"image": image}, ("maps",), {"image": {2: "height", 3: "width"}}, about)
    ]


class MapsOnDemand(ComputedMaps):
    """The maps of each image of `images`; bad images have none if they are skipped.

    Proposals and features that are made from the same maps read an image's record one soon after the other: the last
    `recent` ones are held, so that an image is decoded and convolved once.
    """

    def __init__(
        self, settings: Settings, images: Dataset, source: NetworkSource, execution: Execution, recent: int
    ) -> None:
        self.settings = settings
        self.images = images
        self.source = source
        self.execution = execution
        self.recent = RecentRecords(recent)
        self.schema = schema_of(settings, source)
        self.manifest = {"skipped": {}, "summary": {"network": source.identity(), "border": settings.border}}

    @property
    def item_ids(self) -> tuple[str, ...]:
        """The images of the dataset."""
        return self.images.image_ids

    def record(self, item_id: str) -> Record:
        """One image's record, held for the next reader. Raises as `computed`."""
        return self.recent.get((item_id, self.images.generation), lambda: self.computed(item_id))

    def computed(self, item_id: str) -> Record:
        """One image's record. Raises BadImage unless bad images are skipped, StageError if a value overflows."""
        try:
            pixels = self.images.read_image(item_id)
        except BadImage as error:
            self.manifest["skipped"][item_id] = self.execution.skip(error)
            return self.schema.empty()
        settings, device = self.settings, self.execution.device
        keep_large_buffers()
        with arithmetic(settings.precision, device):
            network = loaded(self.source, settings.precision, device)
            maps = compute_maps(
                pixels, network, settings.sides, settings.longest, settings.dtype, settings.mirrored, settings.border
            )
        check_finite(maps, settings.dtype)
        return maps.record()


def check_finite(maps: FeatureMaps, dtype: str) -> None:
    """Raises StageError unless all values are finite."""
    if all(np.isfinite(cells).all() for cells in (*maps.maps, *maps.mirrored)):
        return
    raise not_finite("maps", "values", dtype)


def fill_parts(maps: MapsOnDemand, output: Writer, parts: Iterable[Part], bar: Progress) -> None:
    """Fills `parts` in this process; images are decoded while the network runs.

    Raises BadImage (unless bad images are skipped), StageError, CacheError.
    """
    depth = images_ahead(maps.execution.device)
    fill_items(maps.computed, maps.manifest["skipped"], output, parts, bar, ahead=depth, threads=depth)
