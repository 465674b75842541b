"""Pairs of images by content, by flickr's numbers and by descriptors, on small arrays; flickr's numbers of datasets."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from PIL import Image

from stages.datasets import open_dataset
from stages.gist.duplicates import Described, find_duplicates
from stages.gist.neighbours import Descriptors

RIGHT, UP, NONE = (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)


def near(angle: float, length: float = 1.0) -> tuple[float, float]:
    """A descriptor at so many radians from RIGHT."""
    return length * math.cos(angle), length * math.sin(angle)


def made(rows: dict[str, tuple[tuple[float, float], str, str | None]], size: int = 2) -> Described:
    """A set of (descriptor, digest, flickr id) by image id, in parts of `size`."""
    values: Descriptors = np.array([row[0] for row in rows.values()], np.float32)
    parts = [values[first : first + size] for first in range(0, len(values), size)]
    return Described(list(rows), [row[1] for row in rows.values()], [row[2] for row in rows.values()], parts)


A = made({"a0": (RIGHT, "x", None), "a1": (UP, "y", "5"), "a2": (NONE, "z", "6"), "a3": (near(0.7, 0.4), "w", None)})


def test_near_pairs_and_the_closest_others_by_hand() -> None:
    b = made({"b0": (near(0.1, 3), "p", None), "b1": (near(0.75, 0.3), "q", None)})
    found = find_duplicates(A, b, 0.25, others=2)
    assert [(pair.a, pair.b, pair.plain) for pair in found.pairs] == [(3, 1, True), (0, 0, False)]
    np.testing.assert_allclose([pair.distance for pair in found.pairs], [2 * math.sin(0.025), 2 * math.sin(0.05)], 1e-4)
    assert [(pair.a, pair.b) for pair in found.closest_others] == [(3, 0), (0, 1)]
    assert not any(pair.exact for pair in found.pairs)
    np.testing.assert_array_equal(found.without_texture_a, [False, False, True, False])
    np.testing.assert_array_equal(found.without_texture_b, [False, False])


def test_exact_pairs_are_there_whatever_their_distance() -> None:
    b = made({"b0": (RIGHT, "p", "5"), "b1": (RIGHT, "z", "6"), "b2": (NONE, "y", None), "b3": (RIGHT, "r", "7")})
    found = find_duplicates(A, b, 1e-9, others=9)
    pairs = {(pair.a, pair.b): pair for pair in found.pairs if pair.exact}
    assert set(pairs) == {(1, 0), (2, 1), (1, 2)}
    assert (pairs[1, 0].same_file, pairs[1, 0].flickr_id) == (False, "5")
    assert (pairs[2, 1].same_file, pairs[2, 1].flickr_id) == (True, "6")
    assert (pairs[1, 2].same_file, pairs[1, 2].flickr_id) == (True, None)
    assert math.isclose(pairs[1, 0].distance, math.sqrt(2), rel_tol=1e-6)
    assert math.isnan(pairs[2, 1].distance)
    assert math.isnan(pairs[1, 2].distance)
    assert not found.is_near(pairs[2, 1]), "without texture GIST says nothing"
    assert found.pairs[-1].distance != found.pairs[-1].distance, "those without a distance come last"
    assert not {(pair.a, pair.b) for pair in found.closest_others} & set(pairs)


def test_among_themselves_each_pair_is_there_once() -> None:
    twice = made({"a": (RIGHT, "x", None), "b": (UP, "y", "3"), "c": (RIGHT, "x", "3"), "d": (near(0.01), "v", "3")})
    found = find_duplicates(twice, None, 0.25)
    assert [(pair.a, pair.b) for pair in found.pairs] == [(0, 2), (0, 3), (2, 3), (1, 3), (1, 2)]
    assert [pair.same_file for pair in found.pairs] == [True, False, False, False, False]
    assert [pair.flickr_id for pair in found.pairs] == [None, None, "3", "3", "3"]


VOC = """<annotation>{}<object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>4</ymax></bndbox>
</object></annotation>"""


def test_numbers_of_flickr_in_vocs_annotations(tmp_path: Path) -> None:
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    sources = {
        "stated": "<source><flickrid> 336380018 </flickrid></source><owner><flickrid>99</flickrid></owner>",
        "owner": "<owner><flickrid>99</flickrid></owner>",
        "zero": "<source><flickrid>0</flickrid></source>",
        "word": "<source><flickrid>unknown</flickrid></source>",
        "broken": "<source",
    }
    for image_id, source in sources.items():
        Image.new("RGB", (8, 8)).save(tmp_path / "JPEGImages" / f"{image_id}.png")
        (tmp_path / "Annotations" / f"{image_id}.xml").write_text(VOC.format(source))
    (tmp_path / "ImageSets/Main/all.txt").write_text("\n".join(sources))
    dataset = open_dataset(f"voc:{tmp_path}:all", work=tmp_path, classes=("cat",))
    assert {image_id: dataset.flickr_id(image_id) for image_id in sources} == {
        "stated": "336380018", "owner": None, "zero": None, "word": None, "broken": None
    }  # fmt: skip


def test_numbers_of_flickr_in_cocos_urls(tmp_path: Path) -> None:
    urls = {
        1: "http://farm9.staticflickr.com/8186/8119368305_4e622c8349_z.jpg",
        2: "https://live.staticflickr.com/65535/123_ab_o.jpg",
        3: "http://example.org/1/123_ab_o.jpg",
        4: None,
    }
    images = [
        {"id": number, "file_name": f"{number}.png", "width": 8, "height": 8, **({"flickr_url": url} if url else {})}
        for number, url in urls.items()
    ]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "c.json").write_text(json.dumps(content))
    dataset = open_dataset(f"coco:{tmp_path / 'c.json'}:{tmp_path}", work=tmp_path)
    assert [dataset.flickr_id(str(number)) for number in urls] == ["8119368305", "123", None, None]
    folder = tmp_path / "of-classes"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / name / "1.png")
    assert open_dataset(f"folder:{folder}", work=tmp_path).flickr_id("a/1.png") is None
