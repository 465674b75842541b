"""What `rcnn explain` prints and writes: the text, JSON and the sheet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from rcnn_cli.looking.explanation import Explained
from rcnn_cli.looking.explanation_lines import Lines, as_number
from rcnn_cli.looking.results import results_folder
from rcnn_cli.outputs import OutputFolder
from rcnn_cli.recipes.graph import Graph
from stages.eval.report import PRECISION
from stages.file_names import file_name, file_names
from stages.plurals import number_of


def output_of(graph: Graph, image: str, split: str | None, folder: Path | None) -> tuple[OutputFolder, str]:
    """Where an explanation goes: the folder, `folder` or the work folder's, and its files' name without an ending.

    Arguments as `explain_image`. Raises StageError where a file is there that must not be replaced.
    """
    photo = [Path(image)] if split is None else []
    output = OutputFolder(folder or results_folder(graph) / "explain", given=folder is not None, inputs=photo)
    image_ids = graph.dataset(split, "dataset").image_ids if split else []
    name = file_names(image_ids)[image] if split else file_name(Path(image).stem)
    output.check((f"{name}.json", f"{name}.png"))
    return output, name


def tell(explained: Explained, lines: Lines, output: OutputFolder, name: str, as_json: bool) -> str:
    """Writes the sheet NAME.png and the numbers NAME.json; the text, or the JSON, that is to be printed."""
    from rcnn_cli.looking.explanation_sheet import explanation_sheet
    from stages.pictures.drawing import save_image

    text = json.dumps(as_values(explained, lines), indent=2, ensure_ascii=False, allow_nan=False)
    output.write(f"{name}.json", text + "\n")
    with output.file(f"{name}.png") as path:
        save_image(explanation_sheet(explained, lines), path)
    return text if as_json else f"{format_text(explained, lines)}\nPicture and numbers: {output.path / name}.png, .json"


def as_values(explained: Explained, lines: Lines) -> dict[str, Any]:
    """Everything as JSON values; None stands for a number that does not exist."""
    trace, chosen = explained.trace, explained.chosen
    limits = {
        name: {"cut": as_number(cut), "cap": as_number(threshold)}
        for name, cut, threshold in zip(trace.scored.classes, explained.cuts, explained.thresholds, strict=True)
    }
    return {
        "image": explained.name,
        "split": explained.split,
        "width": trace.scored.image_size[0],
        "height": trace.scored.image_size[1],
        "recipe": str(chosen.graph.recipe.path),
        "detector": chosen.detector.name,
        "evaluation": chosen.evaluation.name if chosen.evaluation else None,
        "iou": chosen.rules.iou,
        "counts": counts(explained),
        "limits": limits,
        "objects": [line.values for line in lines.objects],
        "detections": [line.values for line in lines.detections],
    }


def counts(explained: Explained) -> dict[str, int]:
    """How many there are at each step: proposals, candidates of all classes, what suppression and the cap leave, what
    is shown; and of those from the cuts on, before suppression."""
    trace = explained.trace
    return {
        "proposals": len(trace.scored.boxes),
        "candidates": len(trace.moved),
        "left_by_suppression": len(trace.outcome.leaders),
        "left_by_the_cap": len(explained.kept),
        "shown": len(explained.shown),
        "candidates_above_the_cuts": len(explained.above),
    }


def format_text(explained: Explained, lines: Lines) -> str:
    """What is printed."""
    steps, chosen, merges = counts(explained), explained.chosen, explained.trace.merges
    where = f" ({explained.split})" if explained.split else ""
    precise = f"precision {PRECISION} of {chosen.evaluation.name}" if chosen.evaluation else ""
    by = f"; cuts at {precise or f'score {chosen.least:g}'}"
    capped = f", the cap {steps['left_by_the_cap']:,}" if np.isfinite(explained.thresholds).any() else ""
    head = [
        f"{explained.name}{where}: {chosen.detector.name} of {chosen.graph.recipe.path}{by}",
        f"{number_of(steps['proposals'], explained.noun)}; {number_of(steps['candidates'], 'candidate')} in "
        f"{number_of(len(explained.trace.scored.classes), 'class')}; "
        f"{'merging' if merges else 'suppression'} leaves {steps['left_by_suppression']:,}{capped}",
        f"above the cuts: {number_of(steps['candidates_above_the_cuts'], 'candidate')}, "
        f"{number_of(steps['shown'], 'detection')} after {'merging' if merges else 'suppression'}",
    ]
    objects = [
        text
        for line in lines.objects
        for text in (line.sentence, *(f"    {more}" for more in (line.detail, line.around, line.anchors) if more))
    ]
    if explained.split and not objects:
        objects = ["no object of that class is annotated" if len(explained.objects) else "no object is annotated"]
    blocks = [head, objects, [line.sentence for line in lines.detections]]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"
