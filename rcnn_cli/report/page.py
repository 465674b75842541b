"""The report's page: collects its content, renders the template and writes the file."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from cache import Reader
from cache.files import read_json, write_json
from cache.identity import key_of
from rcnn_cli.looking.evaluated import Evaluated, confusion_of
from rcnn_cli.looking.recall import DRAWN, Measured, count_words, measure, proposals_of
from rcnn_cli.looking.results import MADE_FROM, results_folder
from rcnn_cli.outputs import OutputFolder
from rcnn_cli.recipes.detectors import evaluations_of
from rcnn_cli.recipes.graph import Graph, installed_version
from rcnn_cli.report import charts, next_steps, provenance, tables
from rcnn_cli.report.embedding import embeddings, points_data
from rcnn_cli.report.headline import headline, main_runs
from rcnn_cli.report.operating import operating_panels
from rcnn_cli.report.pictures import Album, Picture, labels_of
from rcnn_cli.report.runs import (
    CLASS_IMAGES,
    KINDS,
    MISSED,
    MOST_CLASSES,
    MOST_ITEMS,
    MOST_OF_EACH,
    SHEET_IMAGES,
    Item,
    Look,
    Run,
    Scene,
    by_data,
    by_protocol,
    complete_runs,
    diagnosis_of,
    evaluated,
    look,
    similar_of,
)
from rcnn_cli.report.segmentations import Accuracy, accuracies, sections
from rcnn_cli.report.selection import crop_window, in_turn
from rcnn_cli.running.runner import complete, listed, manifest_of
from stages.contract.errors import StageError
from stages.eval.pictures import evenly
from stages.eval.report import MEASURES, PRECISION
from stages.matching.average_precision import Curve
from stages.matching.proposals import recall_at
from stages.pictures.palette import as_css
from stages.plurals import number_of
from stages.tables import percent

log = logging.getLogger("rcnn")

PAGE = "index.html"
MOST_BYTES = 20_000_000
RESERVE = 2_500_000
"""Of MOST_BYTES, the bytes reserved for the gallery's list."""
MOST_PICTURES = 13_000_000
COUNTS = (300, 1000, 2000, None)
WORDS = {
    "true": "right",
    "Loc": "poorly localised, or a duplicate",
    "Sim": "on an object of a similar class",
    "Oth": "on an object of another class",
    "BG": "on the background",
    MISSED: "objects that were not found",
}
STORE = "<!--pictures-->"
Diagnosis = tuple[dict[str, Any], str | None]


def make_report(graphs: Sequence[Graph], changes: Sequence[str], output: Path | None) -> tuple[Path, bool]:
    """Writes the report on the recipes' evaluations to the folder `output`; returns (the page, whether it already
    existed, made from the same caches by the same version).

    Raises StageError if nothing is evaluated.
    """
    folder = OutputFolder(output or results_folder(graphs[0]) / "report", given=output is not None)
    for graph in graphs:
        for node in graph.caches():
            complete(graph, node)  # sets damaged parts aside, with a warning
    runs, segmented = complete_runs(graphs), accuracies(graphs)
    if not runs and not segmented:
        paths = listed([str(graph.recipe.path) for graph in graphs])
        if not any(evaluations_of(graph) or graph.making("accuracy") for graph in graphs):
            raise StageError(f"{paths}: has no evaluation, so there is nothing to report; add a table [eval]")
        raise StageError(f"{paths}: nothing is evaluated yet; run `rcnn run {graphs[0].recipe.arguments}` first")
    missing = provenance.missing_of(graphs)
    for sentence in missing:
        log.warning("not in the report: %s", sentence)
    page, made_from = folder.path / PAGE, origin(graphs, changes)
    if page.exists() and (folder.path / MADE_FROM).exists() and read_json(folder.path / MADE_FROM) == made_from:
        return page, True
    folder.check((PAGE, MADE_FROM))
    chunks = list(render(graphs, runs, segmented, changes, missing))
    length = sum(map(len, chunks))
    if length > MOST_BYTES:
        raise StageError(
            f"{page}: the report would take {length:,} bytes, more than {MOST_BYTES:,}; name fewer recipes"
        )
    with folder.file(PAGE) as path:
        path.write_bytes(b"".join(chunks))
    with folder.file(MADE_FROM) as path:
        write_json(path, made_from)
    return page, False


def origin(graphs: Sequence[Graph], changes: Sequence[str]) -> dict[str, Any]:
    """Everything that determines the page: the caches, the recipes' text, and this package's version and files."""
    own = sorted(path for path in Path(__file__).parent.iterdir() if path.is_file())
    program = key_of([installed_version("rcnn"), as_css(), [sha256(path.read_bytes()).hexdigest() for path in own]])
    recipes = []
    for graph in graphs:
        manifests = {node.name: manifest_of(graph, node) for node in graph.caches()}
        # A cache that was made again has the same key but different times.
        keys = {name: [each["key"], each.get("finished")] for name, each in manifests.items() if each}
        text = sha256(graph.recipe.path.read_bytes()).hexdigest()
        recipes.append({"path": str(graph.recipe.path), "text": text, "caches": keys})
    return {"program": program, "changes": list(changes), "recipes": recipes}


def render(
    graphs: Sequence[Graph],
    runs: Sequence[Run],
    segmented: Sequence[Accuracy],
    changes: Sequence[str],
    missing: Sequence[str],
) -> Iterator[bytes]:
    """The page in chunks of bytes; the sentences `missing` are part of it."""
    from markupsafe import Markup

    groups = by_protocol(runs)
    unopened: list[str] = []
    looks: dict[int, Look] = {}
    evaluations: dict[int, Evaluated] = {}
    diagnoses: dict[int, Diagnosis] = {}
    kinds = max(1, sum(len(run.summary["classes"]) * (len(KINDS) + 1) for run in runs))
    most = max(1, min(MOST_OF_EACH, MOST_ITEMS // kinds))
    for of_data in by_data(runs):
        similar = similar_of(of_data)
        for run in of_data:
            opened = evaluated(run, similar)
            if not isinstance(opened, Evaluated):
                unopened.append(f"{run.name}, errors and images: {opened}.")
                log.warning("not in the report: %s", unopened[-1])
                continue
            evaluations[run.number] = opened
            looks[run.number] = look(run, opened, most)
            diagnoses[run.number] = diagnosis_of(run, similar, opened)
    measured = [measured_of(of_data) for of_data in by_data(runs)]
    by_key = {proposals.key: proposals for _, of_data in measured for proposals in of_data}
    mains = main_runs(runs)
    maps = embeddings(mains)
    context = {
        "title": listed(list(dict.fromkeys(graph.recipe.name for graph in graphs))),
        "version": installed_version("rcnn"),
        "kicker": "Detection report" if runs else "Segmentation report",
        "runs": runs,
        "count": len(runs) + len(segmented),
        "segmentations": sections(segmented),
        "key_of_line": charts.key_of_line,
        "missing": [*missing, *unopened],
        "recipes": [provenance.recipe_of(graph, changes) for graph in graphs],
        "datasets": provenance.datasets_of(graphs),
        **what_was_made(graphs),
        "headlines": [
            headline(
                run,
                diagnoses[run.number][0] if run.number in diagnoses else None,
                by_key,
                looks[run.number].totals[MISSED] if run.number in looks else None,
            )
            for run in mains
        ],
        "palette": Markup(as_css()),
        "precision": [tables.precision_table(group) for group in groups],
        "curves": [curve_panels(group) for group in groups],
        "operating": operating_panels(runs, mains, evaluations),
        "embeddings": maps,
        "points": points_data(maps),
        "steps": steps_of(mains, runs, evaluations, diagnoses, by_key),
        "errors": error_panels(runs, diagnoses),
        "recall": [
            recall_of(of_data, graphs_of_data, proposals)
            for of_data, (graphs_of_data, proposals) in zip(by_data(runs), measured, strict=True)
            if proposals
        ],
        "training": training_panels(graphs),
        "kinds": WORDS,
        "precision_cut": PRECISION,
        "class_images": CLASS_IMAGES,
        "most": most,
    }
    template = environment().get_template("page.html")
    empty: dict[str, Any] = {"gallery": None, "scenes": [], "sheets": {}, "album": None, "store": ""}
    room = MOST_BYTES - RESERVE - len(template.render(**context, **empty).encode("utf-8", "replace"))
    album = fill_album(runs, mains, looks, max(0, min(MOST_PICTURES, room)))
    items = [item for each in looks.values() for item in each.items]
    wanted = {item.image for item in items} | {scene.image for scene in scenes_in(mains, looks)}
    shown = {
        "gallery": gallery(runs, looks, album),
        "sheets": sheets(mains, looks, album),
        "scenes": scene_tables(runs, looks, album),
        "album": {
            "pictures": len(album.pictures),
            "wanted": len(wanted),
            "unreadable": sorted(image_id for _, image_id in album.unreadable),
        },
    }
    before, after = template.render(**context, **shown, store=Markup(STORE)).split(STORE)
    yield before.encode("utf-8", "replace")  # paths that are not UTF-8 get question marks
    for picture in album.pictures.values():
        yield (
            f'<image id="picture-{picture.number}" width="{picture.width}" height="{picture.height}" '
            f'preserveAspectRatio="none" href="{picture.uri}"/>\n'
        ).encode()
    yield after.encode("utf-8", "replace")


def environment() -> Any:
    """A Jinja environment with the package's templates, which escapes everything inserted into the page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    loader = FileSystemLoader(Path(__file__).parent)
    jinja = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.filters["svg"] = Markup  # for drawings of charts.py, which contain no text from users
    jinja.filters["with_code"] = with_code
    jinja.filters["minus"] = with_minus
    jinja.globals["own_file"] = lambda name: Markup((Path(__file__).parent / name).read_text(encoding="utf-8"))
    return jinja


def with_minus(text: object) -> str:
    """A number or words with true minus signs: the hyphens before numbers that stand by themselves."""
    return re.sub(r"(?<![^\s\[(])-(?=\d)", "\N{MINUS SIGN}", str(text))


def with_code(text: str) -> Any:
    """The text, escaped, with what is between `backticks` as code."""
    from markupsafe import Markup, escape

    parts = str(text).split("`")
    return Markup().join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part) for place, part in enumerate(parts)
    )


def what_was_made(graphs: Sequence[Graph]) -> dict[str, Any]:
    """The caches, the machines, and the time taken."""
    caches = provenance.caches_of(graphs)
    return {"caches": caches, "machines": provenance.machines_of(caches), "span": provenance.span_of(caches)}


def steps_of(
    mains: Sequence[Run],
    runs: Sequence[Run],
    evaluations: Mapping[int, Evaluated],
    diagnoses: Mapping[int, Diagnosis],
    measured: Mapping[str, Measured],
) -> dict[int, list[next_steps.Step]]:
    """What to do next about the detector of each main run, by the run's number."""
    steps = {}
    for run in mains:
        opened = evaluations.get(run.number)
        missed = None
        if opened is not None and (plain := ~opened.objects.difficult).any():
            missed = float((opened.found_by[plain] < 0).mean())
        known = next_steps.Known(
            run,
            diagnoses[run.number][0] if run.number in diagnoses else None,
            next_steps.covered_share(run, measured),
            missed,
            confusion_of(opened) if opened is not None else None,
            next_steps.training_objects(run),
            next_steps.training_map_of(run, runs),
        )
        steps[run.number] = next_steps.next_steps(known)
    return steps


# Plots


def curve_panels(runs: Sequence[Run]) -> dict[str, Any]:
    """Precision-recall curves of comparable runs, class by class."""
    of_runs = {run.number: run.curves for run in runs}
    objects: dict[str, int] = {}
    for curves in of_runs.values():
        for name, curve in curves.items():
            objects[name] = max(curve.positives, objects.get(name, 0))
    with_objects = [name for name, count in objects.items() if count]
    chosen = set(sorted(with_objects, key=lambda name: -objects[name])[:MOST_CLASSES])
    panels = []
    for number, name in enumerate(name for name in with_objects if name in chosen):
        own: dict[int, Curve] = {run: of_runs[run][name] for run in of_runs if name in of_runs[run]}
        drawn = charts.precision_recall(f"{runs[0].letter} {number}", own)
        panels.append({"title": name, "note": number_of(objects[name], "object"), "svg": drawn})
    return {"runs": runs, "panels": panels, "left_out": len(with_objects) - len(panels)}


def error_panels(runs: Sequence[Run], diagnoses: Mapping[int, Diagnosis]) -> list[dict[str, Any]]:
    """For each diagnosed run: the trend of its errors, the remedies, the sensitivities, and tables by class."""
    from stages.diagnose.report import characteristic_rows, error_rows

    panels = []
    room = MOST_CLASSES
    for run in runs:
        if run.number not in diagnoses:
            continue
        summary, cache = diagnoses[run.number]
        gains = tables.gains(summary) if summary["ap"] is not None else {}
        trends = {name: counts for name, counts in summary["trends"].items() if len(counts) > 1}
        whole = trends.pop("all classes", None)
        every = list(trends.items())[:room]
        room -= len(every)
        errors = error_rows(summary)
        panels.append(
            {
                "run": run,
                "cache": cache,
                "similar": [names for names in summary["similar"] if len(set(names) & set(summary["classes"])) > 1],
                "poor_iou": summary["poor_iou"],
                "trend": charts.error_trend(run.letter, whole) if whole else None,
                "gains": gains,
                "remedies": charts.remedies(run.letter, gains) if gains else None,
                "ap": summary["ap"],
                "sensitivity": charts.sensitivity(run.letter, summary["characteristics"], summary["ap_n"])
                if summary["characteristics"]
                else None,
                "characteristics": characteristic_rows(summary) if summary["characteristics"] else [],
                "normal": summary["normal"],
                "table": errors if len(errors) <= tables.MOST_ROWS else [],
                "panels": [
                    {"title": name, "note": "", "svg": charts.error_trend(f"{run.letter} {number}", counts)}
                    for number, (name, counts) in enumerate(every)
                ],
                "left_out": len(trends) - len(every),
            }
        )
    return panels


def measured_of(runs: Sequence[Run]) -> tuple[list[Graph], list[Measured]]:
    """(the recipes, of runs on the same data, that have proposals there; how well these cover the objects)."""
    split = runs[0].node.dataset
    graphs = [graph for graph in dict.fromkeys(run.graph for run in runs) if has_proposals(graph, split)]
    return graphs, measure(graphs, split, COUNTS) if graphs else []


def recall_of(runs: Sequence[Run], graphs: Sequence[Graph], measured: Sequence[Measured]) -> dict[str, Any]:
    """The recall of the proposals that the runs' recipes have on their data, as plots and a table."""
    split = runs[0].node.dataset
    names = [proposals.name + also(proposals, graphs, split) for proposals in measured]
    most = max(float(proposals.coverage.boxes[-1]) for proposals in measured)
    columns = {place: count for place, count in enumerate(COUNTS) if count is None or count < most}
    panels = []
    for column, count in columns.items():
        recalls = [100 * recall_at(proposals.coverage.overlaps[:, column], DRAWN) for proposals in measured]
        series = [(number, 100 * DRAWN, recall) for number, recall in enumerate(recalls)]
        limits = ((50.0, 100.0), (0.0, 102.0))
        drawn = charts.lines(f"recall {runs[0].letter} {column}", series, ("IoU, %", "recall, %"), limits)
        title = "All proposals" if count is None else f"The first {count:,} proposals"
        panels.append({"title": title, "note": "", "svg": drawn})
    kept = {count_words(count) for count in columns.values()}
    rows = [row for row in tables.recall_table(measured, names) if row["count"] in kept]
    orders = list(dict.fromkeys(proposals.order for proposals in measured))
    return {"names": names, "split": split, "panels": panels, "rows": rows, "orders": orders}


def has_proposals(graph: Graph, split: str) -> bool:
    """Whether the recipe has proposals on `split`, all of them complete."""
    try:
        return all(complete(graph, node) for node in proposals_of(graph, split))
    except StageError:
        return False


def also(measured: Measured, graphs: Sequence[Graph], split: str) -> str:
    """A clause that names the other recipes that share a cache of proposals; "" if there are none."""
    keys = {graph: [graph.identity(node).key for node in proposals_of(graph, split)] for graph in graphs}
    _, *others = [graph.recipe.name for graph in graphs if measured.key in keys[graph]]
    return f", also of {', '.join(others)}" if others else ""


def training_panels(graphs: Sequence[Graph]) -> list[dict[str, Any]]:
    """The curves of each trained network, each once."""
    from stages.training.log import points_in_words, read_log, read_validations

    networks: dict[str, dict[str, Any]] = {}
    for graph in graphs:
        for node in graph.caches():
            columns = node.use.stage.log
            if columns is None or not manifest_of(graph, node):
                continue
            reader = Reader(graph.folder(node))
            if reader.key in networks:
                networks[reader.key]["recipes"].append(graph.recipe.name)
                continue
            log_of_training = read_log(reader, reader.item_ids[0])
            validations = read_validations(reader, reader.item_ids[0])
            drawn = charts.training(reader.key, log_of_training, columns, validations)
            panels = [{"title": title, "note": "", "svg": svg, "legend": legend} for title, svg, legend in drawn]
            points = points_in_words(log_of_training)
            networks[reader.key] = {
                "name": node.use.name, "recipes": [graph.recipe.name], "panels": panels, "points": points
            }  # fmt: skip
    return list(networks.values())


# Pictures


def scenes_in(mains: Sequence[Run], looks: Mapping[int, Look]) -> list[Scene]:
    """The images of the recipes' sheets, then the best and worst images of all runs: first over all classes, then class
    by class."""
    names = dict.fromkeys(name for each in looks.values() for name in each.scenes)
    scenes = [scene for run in mains if run.number in looks for scene in looks[run.number].sheet]
    for name in names:
        for each in looks.values():
            scenes += [scene for end in each.scenes.get(name, ()) for scene in end]
    return scenes


def fill_album(runs: Sequence[Run], mains: Sequence[Run], looks: Mapping[int, Look], budget: int) -> Album:
    """The images that the page has room for: up to half of it goes to the sheets and the best and worst images, the
    rest to the gallery's images, taking runs, classes and kinds in rotation."""
    album = Album({run.data: run.dataset for run in runs})
    album.add((scene.image for scene in scenes_in(mains, looks)), budget // 2)
    items = [item for each in looks.values() for item in each.items]
    names: dict[tuple[int, str, str], int] = {}
    groups = [names.setdefault((item.run, item.class_name, item.kind), len(names)) for item in items]
    album.add((items[row].image for row in in_turn(np.array(groups, np.int64))), budget)
    return album


def gallery(runs: Sequence[Run], looks: Mapping[int, Look], album: Album) -> dict[str, Any] | None:
    """The gallery's list for page.js: images, and the detections and missed objects in them, as lists for brevity."""
    items = [item for each in looks.values() for item in each.items if item.image in album.pictures]
    if not items:
        return None
    pictures = list(album.pictures.values())
    used = {item.class_name for item in items} | {name for picture in pictures for *_, name, _ in picture.objects}
    classes = list(dict.fromkeys(name for run in runs for name in run.dataset.classes if name in used))
    places = {name: place for place, name in enumerate(classes)}
    kinds = list(WORDS)
    with_items = [run for run in runs if run.number in looks]
    return {
        "classes": classes,
        "kinds": kinds,
        "runs": [{"number": run.number, "name": f"{run.letter}: {run.name}"} for run in with_items],
        "totals": {str(number): [each.totals[kind] for kind in kinds] for number, each in looks.items()},
        "images": [
            [
                picture.image_id,
                picture.width,
                picture.height,
                [[*box, places[name], int(difficult)] for *box, name, difficult in picture.objects],
            ]
            for picture in pictures
        ],
        "items": [
            [item.run, places[item.class_name], kinds.index(item.kind), *placed(item, album.pictures[item.image])]
            for item in items
        ],
    }


def placed(item: Item, picture: Picture) -> list[Any]:
    """An item's image, box, score, precision, overlap, and the square to show around it."""
    boxes = np.array([item.box] if item.own is None else [item.box, item.own], np.float64)
    numbers = [None if value is None else float(f"{value:.4g}") for value in (item.score, item.precision, item.overlap)]
    window = [round(value, 1) for value in crop_window(boxes, (picture.width, picture.height))]
    return [picture.number, *corners(item.box), *numbers, *window]


def corners(box: Any) -> list[float]:
    """A box rounded to a tenth of a pixel."""
    return [round(float(corner), 1) for corner in box]


def scene_tables(runs: Sequence[Run], looks: Mapping[int, Look], album: Album) -> list[dict[str, Any]]:
    """The best and worst images that are in the album, run by run: over all classes, then class by class from the
    highest AP to the lowest."""
    tables_of_runs = []
    for run in runs:
        if run.number not in looks:
            continue
        groups = []
        measure = MEASURES[run.summary["metric"]]
        aps = {name: ap for name, each in run.summary["classes"].items() if (ap := each[measure]) is not None}
        scenes = looks[run.number].scenes
        for name in sorted(scenes, key=lambda name: -aps[name] if name else -np.inf):
            best, worst = scenes[name]
            ends = {
                end: [as_shown(scene, name, album) for scene in chosen if scene.image in album.pictures]
                for end, chosen in (("best", best), ("worst", worst))
            }
            if any(ends.values()):
                groups.append({"class": name, "ap": percent(aps.get(name)), **ends})
        if groups:
            tables_of_runs.append({"run": run, "groups": groups})
    return tables_of_runs


def sheets(mains: Sequence[Run], looks: Mapping[int, Look], album: Album) -> dict[int, list[dict[str, Any]]]:
    """The images of the main runs' sheets that are in the album, with labelled detections, by the run's number."""
    most = SHEET_IMAGES if len(mains) == 1 else SHEET_IMAGES // 2
    by_run = {}
    for run in mains:
        sheet = looks[run.number].sheet if run.number in looks else ()
        scenes = [scene for scene in sheet if scene.image in album.pictures]
        shown = [as_shown(scene, "", album) for scene in evenly(scenes, most)]
        for values in shown:
            values["labels"] = labels_of(values["detections"], values["picture"])
        if shown:
            by_run[run.number] = shown
    return by_run


def as_shown(scene: Scene, class_name: str, album: Album) -> dict[str, Any]:
    """A scene for the template; with a class, only objects of that class are drawn. `uncounted`: the number of objects
    drawn that need not be found (difficult ones)."""
    picture = album.pictures[scene.image]
    truth = [tuple(box) for *box, name, _ in picture.objects if not class_name or name == class_name]
    return {
        "picture": picture,
        "scene": scene,
        "truth": truth,
        "uncounted": len(truth) - scene.objects,
        "detections": [
            {"box": corners(box), "kind": kind, "class": name, "precision": precision}
            for box, kind, name, precision in scene.detections
        ],
    }
