"""The one-file view: `data.h5` shows all parts as one HDF5 file, without copying them (virtual datasets)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py

from cache.files import write_atomically
from cache.parts import ids_array, offsets_of, part_name
from cache.reader import Reader
from cache.schema import Column

ATTRIBUTES = "attributes"


def write_view(path: Path, reader: Reader, attributes: Mapping[str, Any] | None = None) -> None:
    """Writes `path`: ids and offsets over all items for real, every column as a virtual dataset over the parts.

    The parts are named relative to the view, so that the folder can be moved as a whole. `attributes` become the file's
    own, by default those that the manifest of a complete cache records.
    """
    schema = reader.schema
    with h5py.File("view", "w", driver="core", backing_store=False, libver=("v110", "v110")) as file:
        file.create_dataset(f"{schema.item}_ids", data=ids_array(reader.item_ids))
        for prefix, columns in schema.ragged():
            offsets = offsets_of(reader.lengths(prefix.rstrip("/")))
            file.create_dataset(f"{prefix}offsets", data=offsets)
            bounds = [int(offsets[min(i * reader.part_size, len(reader))]) for i in range(reader.part_count + 1)]
            add_virtual(file, prefix, columns, bounds)
        bounds = [min(i * reader.part_size, len(reader)) for i in range(reader.part_count + 1)]
        add_virtual(file, "", schema.per_item, bounds)
        set_attributes(file, reader.manifest.get(ATTRIBUTES, {}) if attributes is None else attributes)
        file.flush()
        content = file.id.get_file_image()
    write_atomically(path, [content])


def set_attributes(file: h5py.File, attributes: Mapping[str, Any]) -> None:
    """Gives a file attributes: texts, numbers and lists of them; texts come back as `str`."""
    for name, value in attributes.items():
        texts = isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
        file.attrs.create(name, value, dtype=h5py.string_dtype() if texts else None)


def add_virtual(file: h5py.File, prefix: str, columns: Mapping[str, Column], bounds: list[int]) -> None:
    """One virtual dataset a column; part i has the rows from bounds[i] to bounds[i + 1]."""
    for name, column in columns.items():
        layout = h5py.VirtualLayout((bounds[-1], *column.shape), column.dtype)
        for index, low, high in spans(bounds):
            layout[low:high] = h5py.VirtualSource(
                part_name(index), prefix + name, (high - low, *column.shape), column.dtype
            )
        file.create_virtual_dataset(prefix + name, layout)


def spans(bounds: list[int]) -> Iterator[tuple[int, int, int]]:
    """(part, first row, last row + 1) of the parts that have rows."""
    for index in range(len(bounds) - 1):
        if bounds[index + 1] > bounds[index]:
            yield index, bounds[index], bounds[index + 1]
