"""What was run: recipes, data, caches and machines, from the recipes and the caches' manifests."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rcnn_cli.recipes.detectors import evaluations_of
from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import network_table, sources_of, toml_text
from rcnn_cli.running.runner import duration, manifest_of, size
from stages.contract.settings import all_of, as_json
from stages.datasets import ClassificationDataset
from stages.networks import NetworkSettings
from stages.plurals import plural


def recipe_of(graph: Graph, changes: Sequence[str]) -> dict[str, Any]:
    """A recipe for the page: its text, the changes on the command line, the settings that differ from the default."""
    return {
        "name": graph.recipe.name,
        "path": str(graph.recipe.path),
        "description": graph.recipe.description,
        "text": toml_text(graph.recipe.path),
        "changes": list(changes),
        "settings": changed_settings(graph),
    }


def changed_settings(graph: Graph) -> list[tuple[str, str, str, str]]:
    """(table, setting, value, default) of every setting of a stage or network that differs from its default."""
    rows = []
    for use in graph.recipe.uses.values():
        defaults = {field.name: as_json(field.default) for field in dataclasses.fields(use.stage.settings)}
        wiring = {"inputs": dict(use.inputs), "split": use.split}
        rows += [(use.name, name, as_toml(value), "") for name, value in wiring.items() if value]
        for table, settings in [(use.name, use.settings), *use.split_settings.items()]:
            place = table if settings is use.settings else f"{use.name}.{table}"
            rows += [
                (place, name, as_toml(value), as_toml(defaults[name]))
                for name, value in all_of(settings).items()
                if value != defaults[name]
            ]
    defaults = all_of(NetworkSettings())
    for network, settings in graph.recipe.networks.items():
        rows += [
            (network_table(network), name, as_toml(value), "")
            for name, value in all_of(settings).items()
            if value != defaults[name]
        ]
    return rows


def as_toml(value: Any) -> str:
    """A setting's value as it would be written in TOML; "none" for None."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} = {as_toml(member)}" for name, member in value.items())
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def datasets_of(graphs: Sequence[Graph]) -> list[dict[str, Any]]:
    """The datasets that the recipes' stages read, each once, with images and objects per class."""
    rows: dict[int, dict[str, Any]] = {}
    for graph in graphs:
        for split in dict.fromkeys(split for node in graph.nodes.values() for split in node.reads_datasets()):
            dataset = graph.dataset(split)
            row = rows.setdefault(id(dataset), {**counts_of(dataset), "splits": [], "source": ""})
            row["source"] = ", ".join(sources_of(graph.recipe.datasets[split]))
            if split not in row["splits"]:
                row["splits"].append(split)
    return list(rows.values())


def counts_of(dataset: Any) -> dict[str, Any]:
    """A dataset's name, number of images, and objects by class; difficult objects are also counted separately."""
    counts: Counter[str] = Counter()
    difficult = 0
    if isinstance(dataset, ClassificationDataset):
        counts.update(dataset.classes[label] for label in dataset.labels)
    else:
        for image_id in dataset.image_ids:
            record = dataset.record(image_id)
            counts.update(dataset.classes[label] for label in record.labels)
            difficult += int(record.difficult.sum())
    return {
        "name": dataset.name,
        "images": len(dataset),
        "objects": sum(counts.values()),
        "difficult": difficult,
        "classes": [(name, counts[name]) for name in dataset.classes],
        "single": isinstance(dataset, ClassificationDataset),
    }


def caches_of(graphs: Sequence[Graph]) -> list[dict[str, Any]]:
    """The recipes' complete caches, each once, inputs first; `recipes` lists those that share it."""
    rows: dict[str, dict[str, Any]] = {}
    for graph in graphs:
        for node in graph.caches():
            manifest = manifest_of(graph, node)
            if manifest is None:
                continue
            folder = graph.folder(node)
            row = rows.setdefault(str(folder), {**cache_row(manifest), "name": node.name, "recipes": []})
            row["folder"] = f"{folder.parent.name}/{folder.name}"
            row["recipes"].append(graph.recipe.name)
    return list(rows.values())


def cache_row(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest's values for a row of the page. `seconds` is the time of the command that finished the cache, which
    may have resumed from parts made earlier."""
    items = manifest["items"]
    return {
        "key": manifest["key"],
        "items": items,
        "rows": manifest.get("rows") or 0,
        "bytes": manifest.get("bytes", 0),
        "size": size(manifest.get("bytes", 0)),
        "skipped": len(manifest.get("skipped") or ()),
        "seconds": manifest.get("seconds", 0),
        "duration": duration(manifest.get("seconds", 0)),
        "finished": str(manifest.get("finished", "")).replace("T", " ").removesuffix("Z"),
        "host": manifest.get("host", ""),
        "versions": manifest.get("versions", {}),
    }


def machines_of(caches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The hosts and versions with which the caches were made, each combination once, with its number of caches."""
    machines: dict[str, dict[str, Any]] = {}
    for cache in caches:
        key = json.dumps([cache["host"], cache["versions"]], sort_keys=True)
        machine = machines.setdefault(key, {"host": cache["host"], "versions": cache["versions"], "caches": 0})
        machine["caches"] += 1
    return list(machines.values())


def missing_of(graphs: Sequence[Graph]) -> list[str]:
    """One sentence per recipe that has incomplete caches or no evaluation."""
    sentences = []
    for graph in graphs:
        if not evaluations_of(graph) and not graph.making("accuracy"):
            sentences.append(f"{graph.recipe.name}: has no evaluation.")
        names = [node.name for node in graph.caches() if manifest_of(graph, node) is None]
        if names:
            verb = "is" if len(names) == 1 else "are"
            sentences.append(
                f"{graph.recipe.name}: {', '.join(names)} {verb} not complete; "
                f"`rcnn run {graph.recipe.arguments}` makes {'it' if len(names) == 1 else 'them'}."
            )
    return sentences


def span_of(caches: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """When the first and the last of the caches were finished, the total time of the commands that finished them, and
    their total size."""
    finished = sorted(cache["finished"] for cache in caches if cache["finished"])
    return {
        "first": finished[0] if finished else "",
        "last": finished[-1] if finished else "",
        "duration": duration(sum(cache["seconds"] for cache in caches)),
        "size": size(sum(cache["bytes"] for cache in caches)),
        "caches": f"{len(caches)} {plural('cache', len(caches))}",
    }
