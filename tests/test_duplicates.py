"""`rcnn duplicates` by the real command: planted copies are found, others are not; files, exit status, resuming."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache import Reader
from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import load_recipe
from rcnn_cli.running.near_duplicates import warn_of_near_duplicates
from rcnn_cli.running.runner import Options
from tests.built_once import BuiltOnce
from tests.in_process import rcnn
from tests.pipeline import SMALL, run_small

XML = """<annotation><source><image>flickr</image><flickrid>{flickr}</flickrid></source>
<owner><flickrid>12345</flickrid></owner><size><width>{width}</width><height>{height}</height><depth>3</depth></size>
<object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>
</annotation>"""


def scene(seed: int, height: int = 90, width: int = 120) -> Image.Image:
    """A picture with detail at several sizes, in colour."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells, weight in ((3, 1.0), (7, 0.7), (15, 0.5)):
        coarse = Image.fromarray(random.integers(0, 256, (cells, cells, 3)).astype(np.uint8))
        total += weight * np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), float)
    return Image.fromarray((total / total.max() * 255).astype(np.uint8))


def write_set(folder: Path, images: dict[str, Image.Image | Path], flickr: dict[str, str] | None = None) -> str:
    """A dataset in VOC's layout, and its source."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for image_id, image in images.items():
        if isinstance(image, Path):
            shutil.copy(image, folder / "JPEGImages" / f"{image_id}{image.suffix}")
            width, height = Image.open(image).size
        else:
            image.save(folder / "JPEGImages" / f"{image_id}.png")
            width, height = image.size
        text = XML.format(flickr=(flickr or {}).get(image_id, "0"), width=width, height=height)
        (folder / "Annotations" / f"{image_id}.xml").write_text(text)
    (folder / "ImageSets/Main/all.txt").write_text("\n".join(images) + "\n")
    return f"voc:{folder}:all"


@pytest.fixture
def sets(tmp_path: Path) -> tuple[str, str]:
    """(A, B): of B's six images b0 is a file of A, b1 a JPEG, b2 half the size, b3 has the flickr number of another
    picture, b4 and b5 are new; b5 is of a single colour, as is a6."""
    pictures = [scene(seed) for seed in range(6)]
    grey = Image.new("RGB", (60, 40), (90, 90, 90))
    a = write_set(
        tmp_path / "a",
        {**{f"a{number}": picture for number, picture in enumerate(pictures)}, "a6": grey},
        {"a3": "777"},
    )
    pictures[1].save(tmp_path / "b1.jpg", quality=40)
    b = write_set(
        tmp_path / "b",
        {
            "b0": tmp_path / "a" / "JPEGImages" / "a0.png",
            "b1": tmp_path / "b1.jpg",
            "b2": pictures[2].resize((60, 45), Image.Resampling.LANCZOS),
            "b3": scene(30),
            "b4": scene(40),
            "b5": Image.new("RGB", (50, 50), (10, 200, 30)),
        },
        {"b3": "777", "b4": "12345"},
    )
    return a, b


def found_in(folder: Path) -> dict[tuple[str, str], dict[str, object]]:
    """The pairs in duplicates.json."""
    values = json.loads((folder / "duplicates.json").read_text())
    return {(pair["a"], pair["b"]): pair for pair in values["pairs"]}


def test_planted_copies_are_found_and_others_are_not(sets: tuple[str, str], tmp_path: Path) -> None:
    done = rcnn("duplicates", *sets, "-o", tmp_path / "out", work=tmp_path / "work", check=False)
    assert done.returncode == 1
    pairs = found_in(tmp_path / "out")
    assert set(pairs) == {("a0", "b0"), ("a1", "b1"), ("a2", "b2"), ("a3", "b3")}
    assert pairs["a0", "b0"] == {
        "a": "a0", "b": "b0", "distance": 0.0, "same_file": True, "flickr_id": None, "plain": False
    }  # fmt: skip
    assert pairs["a3", "b3"]["flickr_id"] == "777"
    assert float(str(pairs["a3", "b3"]["distance"])) > 0.25
    values = json.loads((tmp_path / "out" / "duplicates.json").read_text())
    assert values["images_with_duplicates"] == {"same_file": 1, "same_flickr_id": 1, "near": 3, "any": 4}
    assert values["with_flickr_id"] == {"a-all": 1, "b-all": 2}
    assert values["without_texture"] == {"a-all": ["a6"], "b-all": ["b5"]}
    assert len(values["closest_others"]) == 6
    assert "any of these               4  66.67 %" in done.stdout
    assert "Of 1 image with the same number on flickr GIST finds 0." in done.stdout
    assert "2 images of a single colour have no descriptor." in done.stdout
    rows = list(csv.reader((tmp_path / "out" / "neighbours.csv").open()))
    assert rows[0] == ["image", "nearest", "distance", "second_distance"]
    assert rows[1][:3] == ["b0", "a0", "0.000000"]
    assert rows[6] == ["b5", "", "", ""]
    with Image.open(tmp_path / "out" / "pairs.png") as drawn:
        assert drawn.width > 900


def test_without_duplicates_the_exit_status_is_0_and_json_can_be_printed(tmp_path: Path) -> None:
    a = write_set(tmp_path / "a", {"a0": scene(1)})
    b = write_set(tmp_path / "b", {"b0": scene(2)})
    done = rcnn("duplicates", a, b, "--json", work=tmp_path / "work")
    values = json.loads(done.stdout)
    assert values["pairs"] == []
    assert (tmp_path / "work/results/duplicates/a-all-b-all/pairs.png").exists()


def test_duplicates_among_the_images_of_one_set(tmp_path: Path) -> None:
    pictures = [scene(seed) for seed in range(4)]
    images: dict[str, Image.Image | Path] = {f"p{number}": picture for number, picture in enumerate(pictures)}
    images["copy"] = pictures[2].crop((1, 1, 119, 89))
    done = rcnn("duplicates", write_set(tmp_path / "a", images), "-o", tmp_path / "out", work=tmp_path, check=False)
    assert done.returncode == 1
    assert set(found_in(tmp_path / "out")) == {("p2", "copy")}, "each pair once, the earlier image first"


def test_the_threshold_decides(sets: tuple[str, str], tmp_path: Path) -> None:
    rcnn("duplicates", *sets, "--threshold", 1.4, "-o", tmp_path / "out", work=tmp_path / "work", check=False)
    pairs = found_in(tmp_path / "out")
    assert len(pairs) == 5 * 5, "the five nearest of each of the five images with texture"
    rcnn("duplicates", *sets, "--threshold", 1e-9, "-o", tmp_path / "out", work=tmp_path / "work", check=False)
    assert set(found_in(tmp_path / "out")) == {("a0", "b0"), ("a3", "b3")}


def test_descriptors_are_cached_and_a_lost_part_is_made_again(sets: tuple[str, str], tmp_path: Path) -> None:
    work = tmp_path / "work"
    first = rcnn("duplicates", *sets, "--json", work=work, check=False)
    caches = {folder.name.split(".")[0]: folder for folder in (work / "caches" / "gist").iterdir()}
    assert set(caches) == {"duplicates-a-all", "duplicates-b-all"}
    assert Reader(caches["duplicates-a-all"]).read("a0", ["gist"])["gist"].shape == (960,)
    again = rcnn("duplicates", *sets, "--json", work=work, check=False)
    assert again.stderr.count("skipped") == 2
    (caches["duplicates-a-all"] / "part-00000.h5").unlink()
    mended = rcnn("duplicates", *sets, "--json", work=work, check=False)
    assert "1 part" in mended.stderr or "7 images" in mended.stderr
    assert json.loads(first.stdout) == json.loads(again.stdout) == json.loads(mended.stdout)


def test_a_recipes_dataset_is_named_after_the_recipe(sets: tuple[str, str], tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    source = sets[0].replace(str(tmp_path), "{recipe}")
    recipe.write_text(f'[datasets.train]\nsource = "{source}"\n[gist]\n')
    done = rcnn("duplicates", f"{recipe}:train", sets[1], "--json", work=tmp_path / "work", check=False)
    assert json.loads(done.stdout)["images_with_duplicates"]["any"] == 4
    done = rcnn("gist", recipe, work=tmp_path / "work")
    assert "complete (7 items" in done.stderr, "the stage's own cache is the same"


def test_a_bad_image_is_named_or_skipped(sets: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "b" / "JPEGImages" / "b4.png").write_bytes(b"not an image")
    done = rcnn("duplicates", *sets, work=tmp_path / "work", check=False)
    assert done.returncode == 2
    assert "b4.png" in done.stderr
    assert "--skip-bad-images" in done.stderr
    done = rcnn("duplicates", *sets, "--json", "--skip-bad-images", work=tmp_path / "work", check=False)
    values = json.loads(done.stdout)
    assert values["skipped"] == {"a-all": [], "b-all": ["b4"]}
    assert values["without_texture"]["b-all"] == ["b5"]
    assert values["images_with_duplicates"]["any"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "'nonsense' is not a dataset"),
        (["missing.toml:train"], "missing.toml: no such recipe"),
        (["{a}", "{a}"], "are the same images; name them once"),
        (["{a}", "{b}", "--threshold", "0"], "0.0 is not in the range"),
        (["{a}", "{b}", "--threshold", "nan"], "nan is not a finite number"),
        (["{r}:tests"], "has no dataset [datasets.tests], did you mean 'test'?"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], message: str, sets: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(f'[datasets.test]\nsource = "{sets[0]}"\n[gist]\n')
    line = [text.format(a=sets[0], b=sets[1], r=tmp_path / "r.toml") for text in arguments]
    done = rcnn("duplicates", *line, work=tmp_path / "work", check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_data_check_names_images_that_are_in_another_set(sets: tuple[str, str], tmp_path: Path) -> None:
    a, b = sets
    done = rcnn("data", "check", b, "--against", a, work=tmp_path / "work")
    assert f"b-all: 4 of its 6 images are copies or near-duplicates of images of {a}: b0 (there a0, " in done.stdout
    assert "6 images, 0 problems" in done.stdout
    alone = write_set(tmp_path / "alone", {"new": scene(60)})
    done = rcnn("data", "check", alone, "--against", a, work=tmp_path / "work")
    assert f"alone-all: no image is also in {a}" in done.stdout
    (tmp_path / "b" / "JPEGImages" / "b4.png").unlink()
    done = rcnn("data", "check", b, "--against", a, work=tmp_path / "work", check=False)
    assert done.returncode == 1
    assert "Not compared with" in done.stdout


def test_a_run_warns_of_test_images_in_train_where_asked(
    sets: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = tmp_path / "r.toml"
    text = SMALL.replace('"shapes:train"\nimages = 12', f'"{sets[0]}"').replace(
        '"shapes:test"\nimages = 8', f'"{sets[1]}"'
    )
    recipe.write_text(text.replace("per_class = 12", "per_class = 1"))
    graph = Graph(load_recipe(recipe), tmp_path / "work")
    with caplog.at_level("INFO", "rcnn"):
        warn_of_near_duplicates(graph, graph.caches(), Options())
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert warnings[0].startswith(
        f"{recipe}: [datasets.test] is used for evaluation, but 3 of its 6 images are near-duplicates of images in "
        "[datasets.train]: "
    )
    assert "b1 (there a1, distance 0." in warnings[0]
    assert "b0" not in warnings[0], "the same file is told of without being asked"
    assert warnings[0].endswith(f"look at them with `rcnn duplicates {recipe}:train {recipe}:test`")
    assert "[datasets.test] has no near-duplicates in [datasets.pretraining]" in caplog.text


def test_near_duplicates_by_the_real_command(built_once: BuiltOnce, tmp_path: Path) -> None:
    built_once.copy("small", run_small, tmp_path / "small")
    recipe, work = tmp_path / "small" / "small.toml", tmp_path / "small" / "work"
    done = rcnn("run", recipe, "--near-duplicates", work=work)
    assert "everything is complete" in done.stdout
    assert "[datasets.test] has no near-duplicates in [datasets.train]" in done.stderr
    assert {folder.name.split(".")[0] for folder in (work / "caches" / "gist").iterdir()} == {
        "small-pretraining", "small-train", "small-test"
    }  # fmt: skip
    done = rcnn("run", recipe, "--near-duplicates", "--only", "eval", work=work, check=False)
    assert done.returncode == 2
    assert "--near-duplicates: is a check of whole recipes" in done.stderr
