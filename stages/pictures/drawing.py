"""Drawing detections on images, and contact sheets.

Text is set in DejaVu Sans, which comes with Matplotlib, so no system font is needed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from stages.boxes import Boxes
from stages.pictures.palette import GREY, INK, PAPER, Colour

Rectangle = tuple[int, int, int, int]
PADDING = 2
SMALLEST_FONT = 7
MOST_HIDDEN = 0.15
LEGEND_WIDTH = 320


def draw_detections(
    image: NDArray[np.uint8],
    boxes: Boxes,
    labels: NDArray[np.integer],
    scores: NDArray[np.floating],
    classes: Sequence[str],
    numbers: Sequence[Sequence[str]] | None = None,
    thin: bool = False,
    side: int | None = None,
) -> NDArray[np.uint8]:
    """A copy of `image` uint8 [H, W, 3] RGB with `boxes` [n, 4] and labels such as "dog 0.93", the best score on top.

    `labels` int [n] index `classes`; `scores` [n]. Labels stay inside the image, next to their box if there is room. A
    label that would hide much of a higher-scoring one, or does not fit even in the smallest type, is left out; the box
    keeps its class's colour. `numbers` [n] are alternatives to show after the class in place of the score, of which the
    first that fits is used. `thin` lines and grey labels mark boxes that are shown although they do not count. Lines
    and type are of a size for images of this `side`, for the objects of an image are small that is looked at in tiles.
    """
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    order = np.argsort(scores, kind="stable")
    across = min(canvas.size) if side is None else min(*canvas.size, side)
    stroke, points = 1 if thin else max(2, round(across / 160)), largest_points((across, across))
    for row in order:
        draw_box(pen, boxes[row], class_colours(len(classes))[labels[row]], stroke, canvas.size)
    taken: list[Rectangle] = []
    for row in order[::-1]:
        colour = GREY if thin else class_colours(len(classes))[labels[row]]
        shown = numbers[row] if numbers else [f"{scores[row]:.2f}"]
        texts = [f"{classes[labels[row]]} {number}" for number in shown]
        for text in [text for text in texts[:-1] if needs_no_smaller_font(text, canvas.size, points)] + texts[-1:]:
            place = draw_label(pen, text, boxes[row], colour, canvas.size, taken, points)
            if place:
                taken += place
                break
    return np.asarray(canvas).copy()


def with_legend(image: NDArray[np.uint8], paragraphs: Sequence[str], points: int = 13) -> NDArray[np.uint8]:
    """`image` uint8 [H, W, 3] with the paragraphs on a strip below it, wrapped to the width of the image or
    LEGEND_WIDTH, whichever is larger."""
    height, width = image.shape[:2]
    across = max(width, LEGEND_WIDTH)
    lines = [line for paragraph in paragraphs for line in wrapped(paragraph, points, across - 4 * PADDING)]
    step = sum(font_of(points).getmetrics()) + PADDING
    canvas = Image.new("RGB", (across, height + (len(lines) * step + 4 * PADDING) * bool(lines)), PAPER)
    canvas.paste(Image.fromarray(image), (0, 0))
    pen = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        place = (2 * PADDING, height + 2 * PADDING + number * step)
        pen.text(place, line, fill=INK, font=font_of(points))
    return np.asarray(canvas).copy()


def draw_box(
    pen: ImageDraw.ImageDraw, box: NDArray[np.floating], colour: Colour, stroke: int, size: tuple[int, int]
) -> None:
    """Outlines a box (`box` [4], half-open pixels) with a dark hairline around it, to be visible on any background."""
    left, top, right, bottom = pixel_corners(box, size)
    pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=(0, 0, 0), width=1)
    pen.rectangle((left, top, right, bottom), outline=colour, width=stroke)


def pixel_corners(box: NDArray[np.floating], size: tuple[int, int]) -> Rectangle:
    """The first and last column and row of a half-open box [4], clipped to an image of `size` (width, height)."""
    width, height = size
    left, top = (int(np.clip(math.floor(corner), 0, limit - 1)) for corner, limit in zip(box[:2], size, strict=True))
    right = int(np.clip(math.ceil(box[2]) - 1, left, width - 1))
    bottom = int(np.clip(math.ceil(box[3]) - 1, top, height - 1))
    return left, top, right, bottom


def draw_label(
    pen: ImageDraw.ImageDraw,
    text: str,
    box: NDArray[np.floating],
    colour: Colour,
    size: tuple[int, int],
    taken: Sequence[Rectangle],
    points: int | None = None,
) -> list[Rectangle]:
    """Writes `text` on a background of `colour` near `box` [4], in type of at most `points`; returns the rectangle
    used, or [] if none is free."""
    font = fitting_font(text, size, points)
    if font is None:
        return []
    place = label_place(pixel_corners(box, size), label_size(text, font), size, taken)
    if hidden_by(place, taken) > MOST_HIDDEN:
        return []
    left, top, right, bottom = place
    pen.rectangle((left, top, right - 1, bottom - 1), fill=colour)
    pen.text((left + PADDING, top + PADDING), text, fill=readable_on(colour), font=font, anchor="la")
    return [place]


def fitting_font(text: str, size: tuple[int, int], points: int | None = None) -> ImageFont.FreeTypeFont | None:
    """The largest font, of at most `points` (by default the regular ones), in which the label `text` fits an image of
    `size`; None if none does."""
    points = largest_points(size) if points is None else points
    while points >= SMALLEST_FONT:
        width, height = label_size(text, font_of(points))
        if width <= size[0] and height <= size[1]:
            return font_of(points)
        points -= 1
    return None


def largest_points(size: tuple[int, int]) -> int:
    """The regular type size of labels on an image of `size`."""
    return int(np.clip(min(size) / 28, 11, 40))


def needs_no_smaller_font(text: str, size: tuple[int, int], points: int) -> bool:
    """Whether a label fits an image of `size` in type of `points`."""
    return label_size(text, font_of(points))[0] <= size[0]


@lru_cache(maxsize=64)
def font_of(points: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, `points` pixels high."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", points)


def label_size(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """The width and height of a label with its padding, in pixels."""
    ascent, descent = font.getmetrics()
    return math.ceil(font.getlength(text)) + 2 * PADDING, ascent + descent + 2 * PADDING


def label_place(
    corners: Rectangle, label: tuple[int, int], size: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle:
    """The half-open rectangle for a label of size `label`: inside the image of `size`, and covering as little of
    `taken` as possible, preferably above the box's top left corner, then inside, below, and on the right."""
    left, top, right, bottom = corners
    width, height = label
    wanted = [
        (left, top - height),
        (left, top),
        (left, bottom + 1),
        (left, bottom + 1 - height),
        (right + 1 - width, top - height),
        (right + 1 - width, top),
        (right + 1 - width, bottom + 1),
        (right + 1 - width, bottom + 1 - height),
    ]
    inside = [(min(max(x, 0), size[0] - width), min(max(y, 0), size[1] - height)) for x, y in wanted]
    places = [(x, y, x + width, y + height) for x, y in inside]
    return min(places, key=lambda place: hidden_by(place, taken))


def hidden_by(place: Rectangle, taken: Sequence[Rectangle]) -> float:
    """The fraction of a rectangle covered by those in `taken` (overlaps among them count twice)."""
    area = (place[2] - place[0]) * (place[3] - place[1])
    return sum(shared_area(place, other) for other in taken) / area


def shared_area(first: Rectangle, second: Rectangle) -> int:
    """The number of pixels shared by two half-open rectangles."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0) * max(height, 0)


def readable_on(colour: Colour) -> Colour:
    """Black or white, whichever is more readable on `colour`."""
    red, green, blue = colour
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)


@lru_cache(maxsize=32)
def class_colours(count: int) -> tuple[Colour, ...]:
    """`count` colours, each as far as possible (in CIE Lab) from those before it; the first ones do not depend on
    `count`."""
    palette, lab = strong_colours()
    chosen = [int(np.argmin(np.abs(palette - (230, 60, 50)).sum(axis=1)))]
    distance = np.full(len(palette), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    return tuple((int(red), int(green), int(blue)) for red, green, blue in palette[chosen[:count]])


@lru_cache(maxsize=1)
def strong_colours() -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Colours that are not dark, pale or grey: RGB int64 [n, 3], and the same in CIE Lab, float64 [n, 3]."""
    steps = np.linspace(0, 255, 13).round().astype(np.int64)
    palette = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = rgb_to_lab(palette)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    strong = (lab[:, 0] > 48) & (lab[:, 0] < 92) & (chroma > 40)
    return palette[strong], lab[strong]


def rgb_to_lab(colours: NDArray[np.int64]) -> NDArray[np.float64]:
    """sRGB 0..255 [n, 3] converted to CIE Lab (D65): float64 [n, 3]."""
    encoded = colours / 255.0
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    relative = linear @ to_xyz.T / (0.95047, 1.0, 1.08883)
    curved = np.where(relative > 0.008856, np.cbrt(relative), 7.787 * relative + 16 / 116)
    x, y, z = curved.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def fitted(image: NDArray[np.uint8], cell: tuple[int, int]) -> tuple[Image.Image, NDArray[np.float32]]:
    """The image [H, W, 3] scaled to fit `cell` (width, height), and the scale of (x1, y1, x2, y2), float32 [4]."""
    height, width = image.shape[:2]
    scale = min(cell[0] / width, cell[1] / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    return small, np.array([size[0] / width, size[1] / height] * 2, np.float32)


def contact_sheet(
    images: Sequence[NDArray[np.uint8]],
    columns: int = 4,
    titles: Sequence[str] = (),
    gap: int = 12,
    heading: Sequence[str] = (),
) -> NDArray[np.uint8]:
    """The images uint8 [H, W, 3] in rows of `columns`, centred in cells as large as the largest, with titles below.

    Returns uint8 [H, W, 3] RGB; without images, an empty square of side `gap`. Long titles are truncated; the
    paragraphs of `heading` are wrapped above the images.
    """
    columns = min(columns, max(len(images), 1))
    width = max((image.shape[1] for image in images), default=0)
    height = max((image.shape[0] for image in images), default=0)
    font = font_of(13)
    caption = sum(font.getmetrics()) + 2 * PADDING if titles else 0
    rows = math.ceil(len(images) / columns)
    across = gap + columns * (width + gap) * bool(images)
    lines = [line for paragraph in heading for line in wrapped(paragraph, 13, across - 2 * gap)]
    step = sum(font.getmetrics()) + 3
    start = gap + (len(lines) * step + gap) * bool(lines)
    sheet = Image.new("RGB", (across, start + rows * (height + caption + gap)), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        pen.text((gap, gap + number * step), line, fill=INK, font=font)
    for number, image in enumerate(images):
        left = gap + number % columns * (width + gap)
        top = start + number // columns * (height + caption + gap)
        shift = ((width - image.shape[1]) // 2, (height - image.shape[0]) // 2)
        sheet.paste(Image.fromarray(image), (left + shift[0], top + shift[1]))
        if number < len(titles):
            title = shortened(titles[number], font, width)
            pen.text((left + width / 2, top + height + PADDING), title, fill=INK, font=font, anchor="ma")
    return np.asarray(sheet).copy()


def sections(
    titled: Sequence[tuple[str, Sequence[NDArray[np.uint8]]]], columns: int, gap: int = 4, across: int = 1
) -> NDArray[np.uint8]:
    """Titled sections of images (uint8 [H, W, 3], all of one size) in rows of `columns`: uint8 [H, W, 3] RGB.

    `across` sections are placed side by side, the next ones below. Long titles are truncated.
    """
    across = max(1, min(across, len(titled)))
    columns = max(1, min(columns, max((len(images) for _, images in titled), default=1)))
    height, width = next((image.shape[:2] for _, images in titled for image in images), (0, 0))
    font = font_of(14)
    caption, margin = sum(font.getmetrics()) + 2 * PADDING, 12
    block = columns * (width + gap) - gap
    bands = [titled[first : first + across] for first in range(0, len(titled), across)]
    depths = [max(math.ceil(len(images) / columns) for _, images in band) for band in bands]
    heights = [caption + depth * (height + gap) - gap for depth in depths]
    sheet = Image.new("RGB", (margin + across * (block + margin), margin + sum(heights) + margin * len(bands)), PAPER)
    pen = ImageDraw.Draw(sheet)
    top = margin
    for band, tall in zip(bands, heights, strict=True):
        for place, (title, images) in enumerate(band):
            left = margin + place * (block + margin)
            pen.text((left, top), shortened(title, font, block), fill=INK, font=font, anchor="la")
            for number, image in enumerate(images):
                row, column = divmod(number, columns)
                sheet.paste(
                    Image.fromarray(image), (left + column * (width + gap), top + caption + row * (height + gap))
                )
        top += tall + margin
    return np.asarray(sheet).copy()


def resized(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """`image` uint8 [H, W, 3] resized to `width` x `height` with antialiasing."""
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def draw_field(
    image: NDArray[np.uint8], corners: tuple[float, float, float, float], text: str, points: int = 12
) -> NDArray[np.uint8]:
    """A copy of `image` uint8 [H, W, 3] with a white rectangle (half-open `corners`) and `text` at its top left.

    The rectangle is clipped to the image; a dark hairline makes it visible on a white background.
    """
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    left, top, right, bottom = pixel_corners(np.asarray(corners), canvas.size)
    for inset, colour in ((0, (0, 0, 0)), (1, (255, 255, 255)), (2, (255, 255, 255))):
        if right - left > 2 * inset and bottom - top > 2 * inset:
            pen.rectangle((left + inset, top + inset, right - inset, bottom - inset), outline=colour)
    if text:
        at = (left + 6, top + 5)
        pen.text(at, text, fill=(255, 255, 255), font=font_of(points), stroke_width=1, stroke_fill=(0, 0, 0))
    return np.asarray(canvas).copy()


def shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """`text`, truncated to `width` pixels with an ellipsis if necessary."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…" if text else ""


def wrapped(text: str, points: int, width: int) -> list[str]:
    """`text` wrapped to lines of at most `width` pixels in type of `points`; wider words get their own line."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font_of(points).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def save_image(image: NDArray[np.uint8], path: Path, **options: Any) -> None:
    """Writes an image uint8 [H, W, 3] RGB, in the format given by the file extension (PNG, JPEG), with Pillow's
    `options` of that format. Raises OSError, also where the disk is full in the middle of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.init()
    content = io.BytesIO()  # to a file, Pillow takes a write that ends short for a whole one
    Image.fromarray(image).save(content, Image.EXTENSION[path.suffix.lower()], **options)
    path.write_bytes(content.getvalue())
