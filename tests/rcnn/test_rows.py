"""Rows of caches from Python: the arrays that HDF5 shows, as tables too, with settings and provenance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import cache
import rcnn
from tests.built_once import BuiltOnce
from tests.pipeline import run_small

CORNERS = ["x1", "y1", "x2", "y2"]


@pytest.fixture(scope="module")
def small(built_once: BuiltOnce) -> Path:
    """A folder with small.toml and, in work/, its complete caches."""
    return built_once.folder("small", run_small)


def opened(small: Path, *table: str, **named: Any) -> rcnn.Rows:
    return rcnn.open(small / "small.toml", *table, work=small / "work", **named)


def test_arrays_are_those_of_the_view(small: Path) -> None:
    rows = opened(small, "extract", split="test")
    with h5py.File(rows.folder / "data.h5") as file:
        offsets, ids = file["offsets"][:], [name.decode() for name in file["image_ids"][:]]
        assert list(rows) == list(rows.ids) == ids
        for number, image_id in enumerate(ids):
            for column in ("boxes", "pool4", "label"):
                whole = file[column][offsets[number] : offsets[number + 1]]
                np.testing.assert_array_equal(rows[image_id][column], whole)
        np.testing.assert_array_equal(rows.array("pool4"), file["pool4"][:])
        np.testing.assert_array_equal(rows.array("image_size"), file["image_size"][:])
    assert rows.array("pool4").dtype == np.float16
    assert len(rows) == 8


def test_a_mapping(small: Path) -> None:
    rows = opened(small, "detect", split="test")
    first = rows.ids[0]
    assert first in rows
    assert "nothing" not in rows
    assert rows.get("nothing") is None
    assert rows[first].get("nothing") is None
    assert set(rows[first]) == set(rows.columns)
    assert len(rows[first]) == len(rows.columns)
    assert {image_id: len(row["score"]) for image_id, row in rows.items()} == {
        image_id: len(rows[image_id]["score"]) for image_id in rows.ids
    }
    with pytest.raises(rcnn.Error, match=rf"has no image 'nothing'; \.ids lists all 8, from '{first}' on$"):
        rows["nothing"]
    with pytest.raises(rcnn.Error, match=r"has no column 'scores', did you mean 'score'\?"):
        rows[first]["scores"]
    with pytest.raises(rcnn.Error, match="has no column 'fc7'"):
        rows.array("fc7")
    with pytest.raises(KeyError):
        rows.array("score", ["nothing"])


def test_some_items_in_the_order_asked_for(small: Path) -> None:
    rows = opened(small, "detect", split="test")
    two = [rows.ids[5], rows.ids[1]]
    np.testing.assert_array_equal(
        rows.array("score", two), np.concatenate([rows[two[0]]["score"], rows[two[1]]["score"]])
    )
    assert rows.array("score", []).shape == (0,)
    np.testing.assert_array_equal(rows.array("score", two[0]), rows[two[0]]["score"])
    assert rows.to_pandas("score", ids=two[0])["score"].tolist() == rows[two[0]]["score"].tolist()
    table = rows.to_pandas(ids=two)
    assert list(dict.fromkeys(table.index.get_level_values("image"))) == [one for one in two if len(rows[one]["score"])]
    np.testing.assert_array_equal(table.score, rows.array("score", two))
    assert len(rows.to_pandas(ids=[])) == 0


def test_a_table_of_rows(small: Path) -> None:
    rows = opened(small, "detect", split="test")
    table = rows.to_pandas()
    assert list(table) == [*CORNERS, "score", "label", "class"]
    assert table.index.names == ["image", "row"]
    np.testing.assert_array_equal(table[CORNERS], rows.array("boxes"))
    assert table["class"].tolist() == [rows.names["classes"][label] for label in rows.array("label")]
    busy = max(rows, key=lambda image_id: len(rows[image_id]["score"]))
    np.testing.assert_array_equal(table.loc[busy, "score"], rows[busy]["score"])
    assert table.loc[busy].index.tolist() == list(range(len(rows[busy]["score"])))


def test_other_tables(small: Path) -> None:
    rows = opened(small, "detect", split="test")
    assert list(rows.to_pandas(table="candidates")) == ["score", "label", "class"]
    sizes = rows.to_pandas(table="image")
    assert list(sizes) == ["width", "height"]
    assert sizes.index.tolist() == list(rows.ids)
    assert sizes.loc[rows.ids[2]].tolist() == rows[rows.ids[2]]["image_size"].tolist()
    assert list(rows.to_pandas(["score"])) == ["score"]
    assert list(rows.to_pandas(["candidates/score"], table="candidates")) == ["score"]
    evaluation = opened(small, "eval").to_pandas(table="class")
    assert evaluation.index.name == "class"
    assert {"ap_11", "ap_area", "positives"} <= set(evaluation)


def test_proposals_have_no_class(small: Path) -> None:
    rows = opened(small, "extract", split="train")
    table = rows.to_pandas()
    assert "pool4" not in table
    assert table.loc[table.label == -1, "class"].isna().all()
    assert table.loc[table.label >= 0, "class"].notna().all()
    assert (table.label >= 0).equals(table.is_object)


BAD_TABLES = {
    "no table": ({"table": "imag"}, r"has no table 'imag', did you mean 'image'\?$"),
    "too long": (
        {"columns": ["pool4"]},
        r"a row of 'pool4' has the shape \[\d+\], too much for a table; .*array\('pool4'\)",
    ),
    "no column": ({"columns": ["fc7"]}, "has no column 'fc7'"),
    "of another table": ({"columns": ["boxes", "image_size"]}, "column 'image_size' is of another table"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_what_is_no_table_is_a_sentence(small: Path, name: str) -> None:
    given, sentence = BAD_TABLES[name]
    with pytest.raises(rcnn.Error, match=sentence):
        opened(small, "extract", split="test").to_pandas(**given)  # type: ignore[arg-type]


def test_vectors_without_names_of_their_own(small: Path) -> None:
    table = opened(small, "train-bbox").to_pandas()
    assert [f"mean_{number}" for number in range(4)] == [name for name in table if name.startswith("mean_")]
    assert "coefficients" not in table


def test_settings_and_where_it_comes_from(small: Path) -> None:
    rows = opened(small, "extract", split="test")
    assert rows.settings["padding"] == 4
    assert rows.settings["layers"] == ["pool4"]
    assert rows.item == "image"
    assert rows.columns["boxes"] == cache.Column("float32", (4,))
    made = rows.provenance
    assert (made.stage, made.table, made.split) == ("extract", "extract", "test")
    assert made.key == rows.folder.name[-12:]
    assert made.command[0] == "run" or "run" in made.command
    assert made.recipe["propose"]["max_boxes"] == 60
    assert {"python", "torch", "numpy"} <= set(made.versions)
    assert made.started is not None
    assert made.finished is not None
    assert made.started <= made.finished
    proposals = made.inputs["proposals"]
    assert proposals.name == "propose@test"
    assert proposals.folder is not None
    with rcnn.open(proposals.folder) as before:
        assert before.provenance.key == proposals.key
        assert before.ids == rows.ids
    assert made.inputs["images"].name is None
    assert repr(rows).startswith(f"<Rows of extract {made.key}: 8 × image; boxes, is_object")
    assert repr(rows[rows.ids[0]]).startswith(f"<Row {rows.ids[0]}: boxes, is_object")
    assert repr(opened(small, "pretrain")).endswith("more>")


def test_a_cache_that_was_moved_knows_no_folders_of_inputs(small: Path, tmp_path: Path) -> None:
    import shutil

    folder = opened(small, "detect@test").folder
    shutil.copytree(folder, tmp_path / folder.name)
    sources = rcnn.open(tmp_path / folder.name).provenance.inputs
    assert {source.folder for source in sources.values()} == {None}
    assert sources["svm"].name == "train-svm"


def test_images_of_a_recipe(small: Path) -> None:
    rows = opened(small, "detect@test")
    image = rows.image(rows.ids[3])
    assert image.dtype == np.uint8
    assert [image.shape[1], image.shape[0]] == rows[rows.ids[3]]["image_size"].tolist()
    with pytest.raises(rcnn.Error, match="has no image 'test_99'"):
        rows.image("test_99")
    with pytest.raises(rcnn.Error, match="has a row for each class, and no images"):
        opened(small, "eval").image("disc")
    with pytest.raises(rcnn.Error, match=r"does not say where its images are; open it by its recipe"):
        rcnn.open(rows.folder).image(rows.ids[3])


def test_by_folder_or_by_a_file_in_it(small: Path) -> None:
    folder = opened(small, "detect@test").folder
    for place in (folder, str(folder), folder / "data.h5", folder / "manifest.json"):
        assert rcnn.open(place).folder == folder


def bad_calls(small: Path) -> dict[str, tuple[tuple[Any, ...], dict[str, Any], str]]:
    """What cannot be opened, and what is said."""
    recipe, work = small / "small.toml", {"work": small / "work"}
    return {
        "no folder": (("nowhere",), {}, "nowhere: is not a cache; `rcnn cache ls` lists all"),
        "a recipe alone": ((recipe,), {}, r"is a recipe; name the table whose cache to open, as in rcnn\.open"),
        "a folder with a split": (
            (small,),
            {"split": "test"},
            "is a cache's folder; split, work and changes are for a recipe",
        ),
        "no table": ((recipe, "detekt"), work, r"has no table \[detekt\], did you mean 'detect'"),
        "no split": (
            (recipe, "detect"),
            {**work, "split": "val"},
            r"\[detect\] is not needed on the split 'val'; it is on",
        ),
        "two splits": (
            (recipe, "extract"),
            work,
            "'extract' stands for 'extract@train' and 'extract@test'; name one of",
        ),
        "not made": (
            (recipe, "eval"),
            {**work, "changes": {"train-svm.C": 5.0}},
            r"eval is not complete .*; run `rcnn eval .* --set train-svm.C=5.0.*` first",
        ),
    }


@pytest.mark.parametrize(
    "name", ["no folder", "a recipe alone", "a folder with a split", "no table", "no split", "two splits", "not made"]
)
def test_what_cannot_be_opened_is_a_sentence(small: Path, name: str) -> None:
    given, named, sentence = bad_calls(small)[name]
    with pytest.raises(rcnn.Error, match=sentence) as caught:
        rcnn.open(*given, **named)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, rcnn.IncompleteCache) == (name in ("no folder", "not made"))
