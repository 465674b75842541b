"""The gist stage: whole images in, one descriptor per image out."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

from cache import Column, Part, Record, Schema, Writer
from stages.contract.errors import BadImage
from stages.contract.execution import Execution, Progress
from stages.contract.inputs import Inputs, OnDemand
from stages.contract.processes import fill_output
from stages.datasets.image_set import ImageSet
from stages.gist import Settings
from stages.gist.descriptor import gist
from stages.images.batches import fill_items


def items(settings: Settings, inputs: Inputs) -> Sequence[str]:
    """The images of the dataset."""
    return list(inputs.of_type("images", ImageSet).image_ids)


def schema(settings: Settings, inputs: Inputs) -> Schema:
    """Per image `gist` float32 [settings.length], as the filters give it; zeros if the image was skipped."""
    return schema_of(settings)


def schema_of(settings: Settings) -> Schema:
    """The columns of the cache."""
    return Schema(item="image", per_item={"gist": Column("float32", (settings.length,))})


def run(settings: Settings, inputs: Inputs, output: Writer, execution: Execution) -> None:
    """Describes the images of the parts that can be claimed, in `execution.jobs` processes, one part each at a time."""
    descriptors = on_demand(settings, inputs, execution)
    with execution.progress("gist", output.remaining_items, "images") as bar:
        fill_output("gist", functools.partial(fill_parts, descriptors, output), output, execution, bar)


def on_demand(settings: Settings, inputs: Inputs, execution: Execution) -> DescriptorsOnDemand:
    """The descriptors as the cache would hold them, computed when they are read."""
    return DescriptorsOnDemand(settings, inputs.of_type("images", ImageSet), execution.in_worker)


class DescriptorsOnDemand(OnDemand):
    """The descriptor of each image of `images`; that of a bad image is zero if it is skipped."""

    def __init__(self, settings: Settings, images: ImageSet, execution: Execution) -> None:
        self.settings = settings
        self.images = images
        self.execution = execution
        self.schema = schema_of(settings)
        self.manifest = {"skipped": {}, "summary": {}}

    @property
    def item_ids(self) -> tuple[str, ...]:
        """The images of the dataset."""
        return self.images.image_ids

    def record(self, item_id: str) -> Record:
        """One image's record. Raises BadImage unless bad images are skipped."""
        try:
            pixels = self.images.read_image(item_id)
        except BadImage as error:
            self.manifest["skipped"][item_id] = self.execution.skip(error)
            return self.schema.empty()
        return {"gist": gist(pixels, self.settings)}


def fill_parts(descriptors: DescriptorsOnDemand, output: Writer, parts: Iterable[Part], bar: Progress) -> None:
    """Fills `parts` in this process. Raises BadImage (unless bad images are skipped), CacheError."""
    fill_items(descriptors.record, descriptors.manifest["skipped"], output, parts, bar)
