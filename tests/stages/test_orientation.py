"""EXIF orientation: boxes lie on the objects, whichever way up the annotations were drawn and the pixels are stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from rcnn_cli.main import cli
from stages.datasets import BadAnnotation, CocoDataset, Dataset, open_dataset, open_detection
from stages.images.reading import TURNS, Header, Pixels, image_size, read_header, read_image

WIDTH, HEIGHT = 48, 32  # of the picture as people see it
CORNER = (0, 0, 20, 12)  # of the red corner, upper left: x1, y1, x2, y2
RED, BLUE, GREEN, GREY = (220, 40, 40), (40, 40, 220), (40, 200, 40), (128, 128, 128)
INVERSE = {6: 8, 8: 6}
SUFFIXES = ("jpg", "png", "webp", "tiff")


def picture(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A picture, upright: grey, with corners of three colours (upper left red, upper right blue, lower left green)."""
    pixels = np.full((height, width, 3), GREY, np.uint8)
    pixels[: CORNER[3], : CORNER[2]] = RED
    pixels[: CORNER[3], -CORNER[2] :] = BLUE
    pixels[-CORNER[3] :, : CORNER[2]] = GREEN
    return Image.fromarray(pixels)


def save_turned(path: Path, orientation: int, upright: Image.Image) -> None:
    """The picture as a camera writes it that was held so: the pixels turned, and the tag that turns them back."""
    turn = TURNS.get(INVERSE.get(orientation, orientation))
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    forms: dict[str, dict[str, Any]] = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}
    stored.save(path, exif=exif, **forms.get(path.suffix[1:], {}))


def box_in(frame: str, orientation: int, width: int = WIDTH, height: int = HEIGHT) -> tuple[int, int, int, int]:
    """The box of the red corner in the upright or the stored pixels, by where its pixels go."""
    marked = np.zeros((height, width), np.uint8)
    marked[CORNER[1] : CORNER[3], CORNER[0] : CORNER[2]] = 1
    turn = TURNS.get(INVERSE.get(orientation, orientation)) if frame == "stored" else None
    shown = Image.fromarray(marked) if turn is None else Image.fromarray(marked).transpose(turn)
    y, x = np.nonzero(np.asarray(shown))
    return int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1


def make_voc(
    folder: Path, orientation: int, frame: str, *, suffix: str = "jpg", sized: bool = True, size: tuple[int, int]
) -> Path:
    """A folder in VOC's layout with one picture of `size` (width, height; upright), annotated in the frame."""
    save_turned(folder / "JPEGImages" / f"one.{suffix}", orientation, picture(*size))
    x1, y1, x2, y2 = box_in(frame, orientation, *size)
    width, height = size if frame == "upright" or orientation < 5 else size[::-1]
    stated = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>" if sized else ""
    corners = f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
    for name in ("Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "Annotations" / "one.xml").write_text(
        f"<annotation>{stated}<object><name>red</name><bndbox>{corners}</bndbox></object></annotation>"
    )
    (folder / "ImageSets" / "Main" / "all.txt").write_text("one\n")
    return folder


def opened(folder: Path, work: Path, **options: object) -> Dataset:
    return open_detection(f"voc:{folder}:all", work=work, options=options)


def mean_in_box(dataset: Dataset, image_id: str = "one") -> np.ndarray:
    """The mean colour within the image's only box, a pixel inside its edges."""
    record = dataset.record(image_id)
    pixels = dataset.read_image(image_id)
    assert (record.width, record.height) == dataset.image_size(image_id) == pixels.shape[1::-1]
    x1, y1, x2, y2 = record.boxes[0].astype(int)
    return np.asarray(pixels[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].reshape(-1, 3).mean(0))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_read_upright_unless_the_stored_pixels_are_asked_for(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    path = tmp_path / f"one.{suffix}"
    save_turned(path, orientation, picture())
    corner = (slice(1, CORNER[3] - 1), slice(1, CORNER[2] - 1))
    upright = read_image(path)
    assert upright.shape[1::-1] == image_size(path) == (WIDTH, HEIGHT)
    np.testing.assert_allclose(upright[corner].reshape(-1, 3).mean(0), RED, atol=6)
    stored = read_image(path, upright=False)
    sideways = orientation >= 5
    assert stored.shape[1::-1] == image_size(path, upright=False) == ((HEIGHT, WIDTH) if sideways else (WIDTH, HEIGHT))
    x1, y1, x2, y2 = box_in("stored", orientation)
    np.testing.assert_allclose(stored[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].reshape(-1, 3).mean(0), RED, atol=6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_annotations_lie_on_their_objects(
    tmp_path: Path, orientation: int, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = opened(make_voc(tmp_path / "voc", orientation, "upright", size=(WIDTH, HEIGHT)), tmp_path / "work")
    np.testing.assert_allclose(mean_in_box(dataset), RED, atol=6)
    _ = dataset.images_key
    assert ("orientation" in caplog.text) == (orientation in (2, 3, 4))  # 5 to 8: the stated size decides


@pytest.mark.parametrize("orientation", range(1, 9))
def test_annotations_of_stored_pixels_are_told_by_their_size_or_by_the_option(tmp_path: Path, orientation: int) -> None:
    folder = make_voc(tmp_path / "voc", orientation, "stored", size=(WIDTH, HEIGHT))
    np.testing.assert_allclose(mean_in_box(opened(folder, tmp_path / "work", exif="stored")), RED, atol=6)
    if orientation >= 5:
        np.testing.assert_allclose(mean_in_box(opened(folder, tmp_path / "work")), RED, atol=6)


@pytest.mark.parametrize(("orientation", "size", "sized"), [(6, (40, 40), True), (8, (WIDTH, HEIGHT), False)])
def test_where_both_frames_fit_the_upright_one_is_taken_and_said(
    tmp_path: Path, orientation: int, size: tuple[int, int], sized: bool, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_voc(tmp_path / "voc", orientation, "upright", size=size, sized=sized)
    dataset = opened(folder, tmp_path / "work")
    np.testing.assert_allclose(mean_in_box(dataset), RED, atol=6)
    _ = dataset.images_key, dataset.images_key
    assert len(caplog.records) == 1
    assert "1 image has an EXIF orientation" in caplog.text
    assert f"one.jpg, orientation {orientation}" in caplog.text
    result = CliRunner().invoke(cli, ["data", "check", f"voc:{folder}:all"], env={"RCNN_WORK": str(tmp_path / "work")})
    assert result.exit_code == 0
    assert 'set exif = "stored"' in result.output
    caplog.clear()
    for choice in ("upright", "stored"):
        _ = opened(folder, tmp_path / "work", exif=choice).images_key
    assert not caplog.records


def test_a_size_that_fits_neither_way_is_a_sentence_with_both(tmp_path: Path) -> None:
    folder = make_voc(tmp_path / "voc", 6, "upright", size=(WIDTH, HEIGHT))
    path = folder / "Annotations" / "one.xml"
    path.write_text(path.read_text().replace(f"<width>{WIDTH}<", "<width>47<"))
    expected = (
        r"one\.xml: states 47 x 32 pixels but its image has 32 x 48 as it is stored and 48 x 32 upright "
        r"\(EXIF orientation 6\); correct one of the two"
    )
    with pytest.raises(BadAnnotation, match=expected):
        opened(folder, tmp_path / "work").record("one")


@pytest.mark.parametrize("frame", ["upright", "stored"])
def test_cocos_width_and_height_decide_too(tmp_path: Path, frame: str) -> None:
    save_turned(tmp_path / "images" / "one.png", 6, picture())
    x1, y1, x2, y2 = box_in(frame, 6)
    width, height = (WIDTH, HEIGHT) if frame == "upright" else (HEIGHT, WIDTH)
    content = {
        "images": [{"id": 7, "file_name": "one.png", "width": width, "height": height}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}],
        "categories": [{"id": 1, "name": "red"}],
    }
    (tmp_path / "one.json").write_text(json.dumps(content))
    dataset = open_detection(f"coco:{tmp_path / 'one.json'}:{tmp_path / 'images'}", work=tmp_path / "work")
    assert isinstance(dataset, CocoDataset)
    np.testing.assert_allclose(mean_in_box(dataset, "7"), RED, atol=1)


def test_the_orientation_is_in_the_key_only_where_it_changes_pixels(tmp_path: Path) -> None:
    plain = make_voc(tmp_path / "plain", 1, "upright", size=(WIDTH, HEIGHT))
    keys = {opened(plain, tmp_path / "work", exif=one).images_key for one in ("auto", "upright", "stored")}
    assert len(keys) == 1
    turned = make_voc(tmp_path / "turned", 3, "upright", size=(WIDTH, HEIGHT))
    auto, upright, stored = (
        opened(turned, tmp_path / "work", exif=one).images_key for one in ("auto", "upright", "stored")
    )
    assert auto == upright != stored


def test_images_of_classes_are_read_upright_or_as_stored(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_turned(tmp_path / "images" / name / "one.png", 6, picture())
    source, work = f"folder:{tmp_path / 'images'}", tmp_path / "work"
    upright, stored = (open_dataset(source, work=work, options={"exif": one}) for one in ("auto", "stored"))
    assert upright.image_size("a/one.png") == (WIDTH, HEIGHT)
    assert stored.image_size("a/one.png") == (HEIGHT, WIDTH)
    assert upright.images_key != stored.images_key


def test_proposals_features_and_drawings_are_of_the_same_pixels(tmp_path: Path) -> None:
    from stages.propose import Settings
    from stages.propose.stage import search

    dataset = opened(make_voc(tmp_path / "voc", 6, "upright", size=(WIDTH, HEIGHT)), tmp_path / "work")
    for method in ("sliding-window", "selective-search", "selective-search-opencv"):
        proposals, size, _ = search(Settings(method=method), dataset.image_file("one"), {})
        assert size == (WIDTH, HEIGHT)
        assert proposals.boxes[:, 2].max() <= WIDTH
        assert proposals.boxes[:, 2].max() > HEIGHT


def test_a_tag_that_makes_no_sense_is_no_tag(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    picture().save(tmp_path / "nine.jpg", exif=exif, quality=95)
    picture().save(tmp_path / "broken.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage", quality=95)
    for name in ("nine.jpg", "broken.jpg"):
        path = tmp_path / name
        assert read_header(path.read_bytes(), path) == Header(WIDTH, HEIGHT)
        pixels: Pixels = read_image(path)
        assert pixels.shape == (HEIGHT, WIDTH, 3)


def test_a_png_may_have_its_tag_behind_the_pixels(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    save_turned(path, 6, picture())
    content = path.read_bytes()
    start = content.index(b"eXIf") - 4
    length = 12 + int.from_bytes(content[start : start + 4], "big")
    chunk, rest = content[start : start + length], content[:start] + content[start + length :]
    end = rest.index(b"IEND") - 4
    path.write_bytes(rest[:end] + chunk + rest[end:])
    assert read_header(path.read_bytes(), path) == Header(HEIGHT, WIDTH, 6)
    assert read_image(path).shape == (HEIGHT, WIDTH, 3)
