"""The rows of a cache by image id, read when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache import CacheError, CacheState, Column, IncompleteCache, Reader
from cache import open as open_cache
from rcnn.frames import fits, pandas, table_columns
from rcnn.graphs import graph_of
from rcnn.provenance import Provenance, provenance_of
from rcnn.wording import in_python
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.running.runner import check_readable
from stages.contract.errors import StageError
from stages.contract.settings import nearest

if TYPE_CHECKING:
    import numpy as np
    from pandas import DataFrame

    from stages.images.reading import Pixels

NAMED_BY = {"label": "classes", "type": "types"}
"""The lists, among a cache's names, that these columns index."""


IMAGE = "image"
"""What an item of most caches is."""
LISTED = 8
"""How many columns are named in a line of text."""


class UnknownItem(CacheError, KeyError):
    """An item, or a column, that a cache does not have."""

    __str__ = Exception.__str__


class Row(Mapping[str, "np.ndarray"]):
    """One item of a cache, for example an image: its columns as arrays, each read when it is asked for.

        rows["test_00001"]["boxes"]     # float32 [n, 4]

    Columns of the same table have equally many rows.
    """

    def __init__(self, reader: Reader, item_id: str) -> None:
        self.reader = reader
        self.id = item_id

    def __getitem__(self, column: str) -> np.ndarray:
        """The column's values. Raises Error (which is a KeyError too) for a column that the cache does not have."""
        check_column(self.reader, column)
        return self.reader.read(self.id, [column])[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self.reader.schema.columns())

    def __len__(self) -> int:
        return len(self.reader.schema.columns())

    def __repr__(self) -> str:
        return f"<Row {self.id}: {listed(tuple(self))}>"


class Rows(Mapping[str, Row]):
    """A finished cache, by the ids of its items (images, classes, or the one network), in the cache's order.

    Every part is checked as it is read, and one is open at a time. Several threads may read, one at a time. `close`, or
    the end of a `with` block, closes the open file; reading opens it again.
    """

    def __init__(self, reader: Reader, images: Callable[[str], Pixels] | None = None) -> None:
        self.reader = reader
        self.images = images

    @staticmethod
    def of(graph: Graph, node: Node) -> Rows:
        """Those of a recipe's cache, which is complete, with the images of its dataset."""
        reader = Reader(graph.folder(node))
        if reader.schema.item != IMAGE:
            return Rows(reader)
        return Rows(reader, lambda image_id: graph.dataset(node.dataset).read_image(image_id))

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the open file."""
        self.reader.close()

    @property
    def folder(self) -> Path:
        """The folder that the cache is in."""
        return self.reader.folder

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the items."""
        return self.reader.item_ids

    @property
    def item(self) -> str:
        """What an item is: "image", "class" or "network"."""
        return self.reader.schema.item

    @cached_property
    def columns(self) -> Mapping[str, Column]:
        """Each column's `dtype` and the `shape` of one of its rows; further tables have "table/column"."""
        return self.reader.schema.columns()

    @property
    def settings(self) -> Mapping[str, Any]:
        """All settings of the stage that made it, defaults included, as its manifest records them."""
        recorded: Mapping[str, Any] = self.reader.manifest.get("all_settings", self.reader.manifest["settings"])
        return recorded

    @property
    def summary(self) -> Any:
        """What the stage says of the whole cache: an evaluation's mAP and APs, a network's layers, class names."""
        return self.reader.manifest["summary"]

    @property
    def names(self) -> Mapping[str, Any]:
        """What the numbers in columns are called: "classes" for `label`, "types" for `type`, and what "score" is."""
        recorded: Mapping[str, Any] = self.reader.manifest.get("attributes", {})
        return recorded

    @cached_property
    def provenance(self) -> Provenance:
        """Stage, recipe, inputs, versions, times."""
        return provenance_of(self.reader)

    def __getitem__(self, item_id: str) -> Row:
        """The item with this id. Raises Error (which is a KeyError too) for one that the cache does not have."""
        if item_id not in self.reader.positions:
            raise UnknownItem(
                f"{self.folder}: has no {self.item} {item_id!r}; .ids lists all {len(self):,}, from '{self.ids[0]}' on"
            )
        return Row(self.reader, item_id)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def array(self, column: str, ids: Sequence[str] | str | None = None) -> np.ndarray:
        """All values of a column, [rows, ...], those of all items (or of `ids`, in this order) one after another.

        Of a column with one row per item, [items, ...]. It is in memory as a whole: fc7 of 2,000 proposals in each of
        5,000 images would be 80 GB. Raises Error for a column or an item that the cache does not have.
        """
        import numpy as np

        check_column(self.reader, column)
        chosen = self.ids if ids is None else as_list(ids)
        values = [self[item_id][column] for item_id in chosen]
        if self.reader.schema.prefix_of(column) is None:
            values = [value[None] for value in values]
        return np.concatenate([self.columns[column].zeros(0), *values])

    def image(self, image_id: str) -> Pixels:
        """The pixels of an image of the cache, uint8 [H, W, 3] RGB, as its dataset reads it.

        Raises Error for an image that the cache does not have, for a cache of classes or of a network, and for a cache
        that was opened by its folder: only a recipe says where the images are.
        """
        if self.item != IMAGE:
            raise StageError(f"{self.folder}: has a row for each {self.item}, and no images")
        if self.images is None:
            raise StageError(
                f"{self.folder}: does not say where its images are; open it by its recipe, as in "
                "rcnn.open(recipe, 'detect', split='test')"
            )
        return self.images(self[image_id].id)

    def to_pandas(
        self,
        columns: Sequence[str] | str | None = None,
        *,
        table: str | None = None,
        ids: Sequence[str] | str | None = None,
    ) -> DataFrame:
        """A table of columns whose rows are one number or a vector of at most 8.

        Its index is the item's id and the row's number in the item; of columns with one row per item, the id alone. A
        vector takes a column of the table for each number: `boxes` becomes x1, y1, x2, y2, `image_size` width and
        height, any other `name_0`, `name_1`, ... Beside `label` stands `class`, its name; None: a proposal that is no
        object. Longer rows (features) are left out: read these with `array`.

        Args:
            columns: those to take; by default all that fit.
            table: "" for the columns with several rows per item, the default if there are any; the name of a further
                table ("candidates", "log"); or what an item is ("image", "class") for those with one row per item.
            ids: the items; by default all.

        Raises Error where pandas is not installed, for a column or table that the cache does not have, and for a column
        that was asked for and does not fit.
        """
        frames = pandas()
        prefix = self.prefix_of_table(table)
        chosen = self.chosen_columns(None if columns is None else as_list(columns), prefix)
        own = self.ids if ids is None else as_list(ids)
        named = {column: self.names[names] for column, names in NAMED_BY.items() if names in self.names}
        values: dict[str, Any] = {}
        for full in chosen:
            short = full.removeprefix(prefix or "")
            values |= table_columns(short, self.columns[full], self.array(full, own), named)
        if prefix is None:
            return frames.DataFrame(values, index=frames.Index(own, name=self.item))
        return frames.DataFrame(values, index=self.index_of_rows(prefix, own, frames))

    def prefix_of_table(self, table: str | None) -> str | None:
        """What the columns of a table begin with; None for those with one row per item. Raises StageError."""
        ragged = dict(self.reader.schema.ragged())
        if table is None:
            return "" if "" in ragged else None
        if table == self.item:
            return None
        prefix = f"{table}/" if table else ""
        if prefix not in ragged:
            tables = [self.item, *(one.removesuffix("/") for one in ragged if one)]
            raise StageError(f"{self.folder}: has no table '{table}'{nearest(table, tables)}")
        return prefix

    def chosen_columns(self, columns: Sequence[str] | None, prefix: str | None) -> list[str]:
        """The full names of the columns to take from a table. Raises StageError or UnknownItem."""
        schema = self.reader.schema
        inside = [name for name in self.columns if schema.prefix_of(name) == prefix]
        if columns is None:
            return [name for name in inside if fits(self.columns[name])]
        chosen = [name if name in self.columns else f"{prefix or ''}{name}" for name in columns]
        for name in chosen:
            check_column(self.reader, name)
            if name not in inside:
                raise StageError(
                    f"{self.folder}: column '{name}' is of another table than those before it; it has as many rows as "
                    f"{', '.join(one for one in self.columns if schema.prefix_of(one) == schema.prefix_of(name))}"
                )
            if not fits(self.columns[name]):
                raise StageError(
                    f"{self.folder}: a row of '{name}' has the shape {list(self.columns[name].shape)}, too much for a "
                    f"table; read it as an array with .array('{name}')"
                )
        return chosen

    def index_of_rows(self, prefix: str, ids: Sequence[str], frames: Any) -> Any:
        """The index of a table with several rows per item: id and number."""
        import numpy as np

        table = prefix.removesuffix("/")
        counts = self.reader.lengths(table)[[self.reader.position(one) for one in ids]] if ids else np.zeros(0, int)
        numbers = np.concatenate([np.zeros(0, int), *map(np.arange, counts)])
        items = np.repeat(np.array(ids, object), counts)
        return frames.MultiIndex.from_arrays([items, numbers], names=[self.item, "row"])

    def __repr__(self) -> str:
        made = self.provenance
        table = f" [{made.table}]" if made.table not in (None, made.stage) else ""
        return f"<Rows of {made.stage}{table} {made.key}: {len(self):,} × {self.item}; {listed(tuple(self.columns))}>"


def as_list(names: Sequence[str] | str) -> Sequence[str]:
    """Several names, or a single one, as a list."""
    return [names] if isinstance(names, str) else list(names)


def listed(columns: Sequence[str]) -> str:
    """The columns of a cache on a line: the first of many."""
    more = len(columns) - LISTED
    return ", ".join(columns) if more <= 1 else f"{', '.join(columns[:LISTED])} and {more} more"


def check_column(reader: Reader, column: str) -> None:
    """Raises UnknownItem for a column that the cache does not have."""
    known = reader.schema.columns()
    if column not in known:
        raise UnknownItem(f"{reader.folder}: has no column {column!r}{nearest(str(column), known)}")


def open_rows(
    cache: str | os.PathLike[str],
    table: str | None = None,
    *,
    split: str | None = None,
    work: str | os.PathLike[str] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Rows:
    """The rows of a finished cache.

        rcnn.open("work/caches/detect/shapes-test.3fa9c1d2be04")
        rcnn.open("recipes/shapes.toml", "detect", split="test")

    Args:
        cache: the folder of a cache; or a recipe, by its path or, if it comes with rcnn, by its name.
        table: with a recipe, the table whose cache to open, or the cache's name as in `rcnn status` ("detect@test").
        split: with a recipe, the dataset, if the table is used on several.
        work: with a recipe, the folder of caches; by default $RCNN_WORK, else `work` in the current folder.
        changes: with a recipe, values to override, {"train-svm.C": 0.01}: the cache of that experiment.

    Raises Error: IncompleteCache, which names the command to run, for a cache that is not complete; others for a
    recipe, table or split that does not exist.
    """
    path = Path(cache)
    if table is None:
        if path.suffix == ".toml":
            raise StageError(
                f"{path}: is a recipe; name the table whose cache to open, as in rcnn.open(recipe, 'detect')"
            )
        if split is not None or work is not None or changes is not None:
            raise StageError(f"{path}: is a cache's folder; split, work and changes are for a recipe and its table")
        if CacheState(path.parent if path.is_file() else path).plan is None:
            raise IncompleteCache(
                f"{cache}: is not a cache; `rcnn cache ls` lists all, rcnn.open(recipe, table) opens one"
            )
        return Rows(open_cache(path))
    with in_python():
        graph = graph_of(path, work, changes)
        node = only_node(graph, table, split)
        check_readable(graph, node, "to read its rows")
        return Rows.of(graph, node)


def only_node(graph: Graph, table: str, split: str | None) -> Node:
    """The node of a table on a split. Raises RecipeError for none, StageError for several."""
    nodes = graph.select(table, split)
    if len(nodes) > 1:
        names = " and ".join(f"'{node.name}'" for node in nodes)
        raise StageError(f"{graph.recipe.path}: '{table}' stands for {names}; name one of them, or give its split")
    return nodes[0]
