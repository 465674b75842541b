"""The sheet of `rcnn explain`: the image at each step, and a strip for each object and each false positive."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from rcnn_cli.looking.explanation_lines import proposals_around
from stages.detect import SCORES
from stages.extract.pictures import seen_regions
from stages.images.reading import Pixels
from stages.matching.error_types import DIFFICULT, FOUND, LOCALISATION, TYPES
from stages.pictures.drawing import font_of, shortened, wrapped
from stages.pictures.legends import Entry, draw_legend, with_margins
from stages.pictures.marks import Mark, draw_marks, draw_proposals, tinted
from stages.pictures.palette import FAINT, INK, PAPER, PROPOSAL, REGRESSED, RULE, TRUTH, Colour, kind_colour
from stages.plurals import number_of, plural

if TYPE_CHECKING:
    from rcnn_cli.looking.explanation import Explained
    from rcnn_cli.looking.explanation_lines import Line, Lines

PANEL = (404, 320)
STRIP = 164
GAP = 14
BARS = 4
WIDTH = 3 * PANEL[0] + 4 * GAP
KINDS = {"found": "true", "difficult": "ignored"}
"""The verdicts on objects that have another name than the palette's kinds."""
ROOM = 1.7
"""How much larger than its boxes the cut-out of a strip is."""


def explanation_sheet(explained: Explained, lines: Lines) -> Pixels:
    """Proposals, candidates above the cuts and detections on the image; below them a strip for each of the `lines`,
    except for detections that found an object, which has its own strip: uint8 [H, W, 3] RGB."""
    shown = [*lines.objects, *(line for line in lines.detections if line.verdict != "true" or not lines.objects)]
    parts = [heading(explained), panels(explained, lines), *(strip(explained, line) for line in shown)]
    sheet = Image.new("RGB", (WIDTH, sum(part.shape[0] for part in parts) + GAP), PAPER)
    top = 0
    for part in parts:
        sheet.paste(Image.fromarray(part), (0, top))
        top += part.shape[0]
    return np.asarray(sheet).copy()


def heading(explained: Explained) -> Pixels:
    """What this is, and what the colours mean."""
    recipe = explained.chosen.graph.recipe.name
    title = draw_legend(
        [[Entry(f"{explained.name}: {explained.chosen.detector.name} of {recipe}")]], WIDTH - 2 * GAP, points=20
    )
    words = f"{explained.noun}; tinted: its region" if explained.has_regions else explained.noun
    entries = [Entry(words, PROPOSAL)]
    if explained.anchors is not None:
        entries.append(Entry("anchor that overlaps a missed object most", PROPOSAL, dashed=True))
    if explained.trace.scored.regress is not None:
        entries.append(Entry("after regression", REGRESSED))
    if explained.split is None:
        entries.append(Entry("merged" if explained.trace.merges else "suppressed", kind_colour("ignored")))
    else:
        entries += [Entry(kind, kind_colour(kind)) for kind in ("true", *TYPES)]
        words = "ignored; of a missed object: merged" if explained.trace.merges else "ignored or suppressed"
        entries += [Entry(words, kind_colour("ignored"))]
        entries += [Entry("missed", kind_colour("missed"), dashed=True), Entry("annotated", TRUTH, dashed=True)]
    legend = draw_legend([entries], WIDTH - 2 * GAP)
    return np.concatenate([with_margins(title, GAP, 6, GAP), with_margins(legend, 0, 8, GAP)])


def panels(explained: Explained, lines: Lines) -> Pixels:
    """The whole image three times: all proposals, the candidates above the cuts, the detections."""
    pixels = explained.pixels
    rest = ", before merging" if explained.trace.merges else "; grey: suppressed"
    merged = "merged detection" if explained.trace.merges else "detection"
    owner = "its" if len(explained.shown) == 1 else "their"
    numbers = f", with {owner} precision" if np.isfinite(explained.precision[explained.shown]).any() else ""
    scenes = [
        proposal_scene(explained),
        (
            draw_marks(pixels, candidate_marks(explained), PANEL),
            f"{number_of(len(explained.above), 'candidate')} above the cuts{rest}",
        ),
        (
            draw_marks(pixels, detection_marks(explained, lines), PANEL),
            f"{number_of(len(explained.shown), merged)}{numbers}",
        ),
    ]
    captions = [wrapped(words, 15, PANEL[0]) for _, words in scenes]
    step = sum(font_of(15).getmetrics()) + 3
    height = max(scene.shape[0] for scene, _ in scenes)
    canvas = Image.new("RGB", (WIDTH, height + 20 + step * max(map(len, captions))), PAPER)
    pen = ImageDraw.Draw(canvas)
    for number, ((scene, _), caption) in enumerate(zip(scenes, captions, strict=True)):
        left = GAP + number * (PANEL[0] + GAP)
        canvas.paste(Image.fromarray(scene), (left + (PANEL[0] - scene.shape[1]) // 2, 0))
        middle = left + PANEL[0] / 2
        for line, words in enumerate(caption):
            pen.text((middle, height + 6 + line * step), words, fill=INK, font=font_of(15), anchor="ma")
    return np.asarray(canvas).copy()


def proposal_scene(explained: Explained) -> tuple[Pixels, str]:
    """The image with all proposals, coloured by score if they have any, and what it shows."""
    boxes, scores = explained.trace.scored.boxes, explained.proposal_scores
    words = number_of(len(boxes), explained.noun)
    ends = None if scores is None or not len(scores) else (float(scores.min()), float(scores.max()))
    scene = draw_proposals(explained.pixels, boxes, scores, ends, PANEL)
    if ends is None:
        return scene, words
    low, high = ends
    return scene, f"{words}; the lighter, the higher the score: {low:.2f} to {high:.2f}"


def candidate_marks(explained: Explained) -> list[Mark]:
    """The candidates above the cuts after regression, those that suppression leaves on top; or, before they are merged,
    the best-scored ones on top."""
    trace, above = explained.trace, explained.above
    moved = PROPOSAL if trace.scored.regress is None else REGRESSED
    left, others = above[trace.absorbed_by[above] < 0], above[trace.absorbed_by[above] >= 0]
    names = [trace.scored.classes[label] for label in trace.moved.labels[left]]
    boxes, merges = trace.moved.boxes, trace.merges
    return [
        *(Mark(box, moved, name, thin=merges) for box, name in zip(boxes[left], names, strict=True)),
        *(Mark(box, moved if merges else kind_colour("ignored"), thin=True) for box in boxes[others]),
    ]


def detection_marks(explained: Explained, lines: Lines) -> list[Mark]:
    """The detections by what they are, false ones on top, and the objects that are missed."""
    marks: dict[str, list[Mark]] = {"false": [], "missed": [], "true": [], "other": []}
    for row in explained.shown:
        box = explained.detections.every.boxes[row]
        label, score = explained.detections.every.labels[row], explained.precision[row]
        text = explained.trace.scored.classes[label] + ("" if np.isnan(score) else f" {score:.2f}")
        verdict = int(explained.judged.verdicts[row])
        if explained.split is None:
            marks["other"].append(Mark(box, REGRESSED if explained.trace.scored.regress else PROPOSAL, text))
        elif verdict == FOUND:
            marks["true"].append(Mark(box, kind_colour("true"), text))
        elif verdict >= LOCALISATION:
            kind = kind_of(verdict)
            marks["false"].append(Mark(box, kind_colour(kind), f"{kind}: {text}"))
        elif verdict == DIFFICULT:
            marks["other"].append(Mark(box, kind_colour("ignored"), text))
    for line in lines.objects:
        if line.verdict == "missed" and line.box is not None:
            marks["missed"].append(Mark(line.box, kind_colour("missed"), f"missed {line.name}", dashed=True))
    return [mark for kind in marks.values() for mark in kind]


def kind_of(verdict: int) -> str:
    """A false positive's type."""
    from rcnn_cli.looking.evaluated import NAMES

    return NAMES[verdict]


def strip(explained: Explained, line: Line) -> Pixels:
    """One object or detection: where it is, its proposal as the network saw it, the scores there, the sentence."""
    canvas = Image.new("RGB", (WIDTH, STRIP + 2 * GAP), PAPER)
    pen = ImageDraw.Draw(canvas)
    pen.line((GAP, 0, WIDTH - GAP, 0), fill=RULE)
    colour = kind_colour(KINDS.get(line.verdict, line.verdict)) if line.verdict else PROPOSAL
    pen.rectangle((GAP, GAP, GAP + 5, GAP + STRIP - 1), fill=colour)
    left = 2 * GAP + 5
    if line.proposal is not None:
        scene = cut_out(explained, line, colour)
        canvas.paste(
            Image.fromarray(scene), (left + (STRIP - scene.shape[1]) // 2, GAP + (STRIP - scene.shape[0]) // 2)
        )
        left += STRIP + GAP
        (crop,) = seen_regions(explained.pixels, explained.trace.scored.boxes[[line.proposal]], explained.view)
        side = STRIP - 22
        seen = Image.fromarray(crop).resize((side, side), Image.Resampling.BICUBIC)
        canvas.paste(seen, (left, GAP))
        words = "pooled from the map" if explained.view.pooled else f"input, {crop.shape[1]} x {crop.shape[0]}"
        pen.text((left + side / 2, GAP + side + 4), words, fill=FAINT, font=font_of(13), anchor="ma")
        left += side + GAP
        bars = score_bars(explained, line.proposal, line.label)
        canvas.paste(Image.fromarray(bars), (left, GAP))
        left += bars.shape[1] + GAP
    width = WIDTH - GAP - left
    bottom = write(pen, line.sentence, (left, GAP), width, STRIP - 70, INK, 17)
    more = "; ".join(filter(None, (line.detail, line.anchors or line.around)))
    write(pen, more, (left, bottom + 8), width, GAP + STRIP - bottom - 8, FAINT, 14)
    return np.asarray(canvas).copy()


def cut_out(explained: Explained, line: Line, colour: Colour) -> Pixels:
    """The part of the image around the object, its proposal, and that after regression, drawn on, the proposal's region
    tinted; where boxes are merged, those that are and what they become: fits STRIP."""
    trace, pixels = explained.trace, explained.pixels
    assert line.proposal is not None
    region = explained.region(line.proposal)
    if region is not None:
        pixels = tinted(pixels, region, PROPOSAL)
    proposal = trace.scored.boxes[line.proposal]
    marks = [Mark(proposal, PROPOSAL)]
    if line.label is not None and trace.scored.regress is not None:
        marks.insert(0, Mark(trace.after_regression(line.proposal, line.label), REGRESSED))
    if line.merged is not None:
        merged = trace.outcome.detections.boxes[line.merged]
        marks.insert(0, Mark(merged, kind_colour("ignored") if line.verdict in ("", "missed") else colour))
    if line.box is not None:
        marks.append(Mark(line.box, colour if line.verdict == "missed" else TRUTH, dashed=True))
    boxes = np.array([mark.box for mark in marks])
    if line.merged is not None:
        members = trace.moved.boxes[trace.outcome.groups == line.merged]
        marks += [Mark(box, PROPOSAL if trace.scored.regress is None else REGRESSED, thin=True) for box in members]
    marks += anchor_marks(explained, line)  # anchors need not fit the part
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    side = max(float((high - low).max()) * ROOM, 16.0)
    height, width = pixels.shape[:2]
    start = np.clip(np.floor((low + high - side) / 2), 0, None).astype(int)
    end = np.minimum(np.ceil((low + high + side) / 2).astype(int), (width, height))
    part = pixels[start[1] : end[1], start[0] : end[0]]
    shift = np.array([*start, *start], np.float32)
    around = [] if line.box is None else proposals_around(explained, line.box)  # boxes that need not fit the part
    marks += [Mark(trace.scored.boxes[row], PROPOSAL, thin=True) for row in around if row != line.proposal]
    shifted = [Mark(mark.box - shift, mark.colour, dashed=mark.dashed, thin=mark.thin) for mark in marks]
    return draw_marks(part, shifted, (STRIP, STRIP))


def anchor_marks(explained: Explained, line: Line) -> list[Mark]:
    """The anchor that overlaps a missed object most."""
    if not line.anchors or line.box is None:
        return []
    best = line.values["anchors"]["best"]
    return [Mark(np.array(best["box"], np.float32), PROPOSAL, dashed=True, stroke=1)] if best["iou"] else []


def score_bars(explained: Explained, proposal: int, label: int | None) -> Pixels:
    """The best scores of a proposal and that of the class `label`, each with its class's cut as a line, unless that is
    for the sums of merged boxes."""
    trace = explained.trace
    scores = trace.scored.scores[proposal]
    ranked = [
        int(other) for other in np.argsort(-scores, kind="stable") if trace.scored.trained[other] or other == label
    ]
    rows = ranked[:BARS] if label is None or label in ranked[:BARS] else [*ranked[: BARS - 1], label]
    cuts = [np.inf if trace.merges else float(explained.cuts[row]) for row in rows]
    values = [float(scores[row]) for row in rows]
    ends = [*values, *(cut for cut in cuts if np.isfinite(cut))]
    low, high = min(ends), max(ends)
    low = 0.0 if low >= 0 else low - 0.15 * (high - low)
    name_width, number_width, span = 92, 52, 150
    canvas = Image.new("RGB", (name_width + span + number_width + 12, STRIP), PAPER)
    pen = ImageDraw.Draw(canvas)
    font = font_of(14)

    def place(value: float) -> float:
        """Where a score is on the axis."""
        return name_width + 6 + span * (value - low) / max(high - low, 1e-9)

    for number, (row, value, cut) in enumerate(zip(rows, values, cuts, strict=True)):
        top = 4 + number * 32
        own = row == label
        pen.text(
            (name_width, top + 11),
            shortened(trace.scored.classes[row], font, name_width),
            fill=INK,
            font=font,
            anchor="rm",
        )
        pen.rectangle((place(low), top + 2, place(value), top + 18), fill=PROPOSAL if own else RULE)
        if np.isfinite(cut):
            pen.line((place(cut), top - 1, place(cut), top + 21), fill=INK, width=2)
        right = canvas.width - 2
        pen.text((right, top + 11), f"{value:.2f}", fill=INK, font=font, anchor="rm")
    scores = plural(SCORES[explained.chosen.detector.settings.score].name, 2)
    note = f"{scores}; lines: the cuts" if explained.chosen.evaluation and not trace.merges else scores
    pen.text((name_width + 6 + span / 2, STRIP - 20), note, fill=FAINT, font=font_of(13), anchor="ma")
    return np.asarray(canvas).copy()


def write(
    pen: ImageDraw.ImageDraw, text: str, place: tuple[int, int], width: int, height: int, colour: Colour, largest: int
) -> int:
    """Writes `text` in lines of at most `width` pixels, in the largest type up to `largest` that needs no more than
    `height`; returns where it ends."""
    for points in range(largest, 11, -1):
        font = font_of(points)
        lines = wrapped(text, points, width)
        step = sum(font.getmetrics()) + 3
        if len(lines) * step <= height:
            break
    for number, line in enumerate(lines):
        pen.text((place[0], place[1] + number * step), line, fill=colour, font=font)
    return place[1] + len(lines) * step
