"""What was run: recipes, data, caches and machines, as the recipes and the caches' manifests tell."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rcnn_cli.recipes.detectors import evaluations_of
from rcnn_cli.recipes.graph import Graph
from rcnn_cli.recipes.recipe import network_table, sources_of, toml_text
from rcnn_cli.running.runner import duration, manifest_of, plural, size
from stages.contract.settings import all_of, as_json
from stages.datasets import ClassificationDataset
from stages.networks import NetworkSettings


def recipe_of(graph: Graph, changes: Sequence[str]) -> dict[str, Any]:
    """A recipe for the page: its text, the changes of the command line, the settings that are not the default."""
    return {
        "name": graph.recipe.name,
        "path": str(graph.recipe.path),
        "description": graph.recipe.description,
        "text": toml_text(graph.recipe.path),
        "changes": list(changes),
        "settings": changed_settings(graph),
    }


def changed_settings(graph: Graph) -> list[tuple[str, str, str, str]]:
    """(table, setting, value, default) of every setting of a stage or the network that is not the default."""
    found = []
    for use in graph.recipe.uses.values():
        defaults = {field.name: as_json(field.default) for field in dataclasses.fields(use.stage.settings)}
        wiring = {"inputs": dict(use.inputs), "split": use.split}
        found += [(use.name, name, as_toml(value), "") for name, value in wiring.items() if value]
        for table, settings in [(use.name, use.settings), *use.split_settings.items()]:
            place = table if settings is use.settings else f"{use.name}.{table}"
            found += [
                (place, name, as_toml(value), as_toml(defaults[name]))
                for name, value in all_of(settings).items()
                if value != defaults[name]
            ]
    defaults = all_of(NetworkSettings())
    for network, settings in graph.recipe.networks.items():
        found += [
            (network_table(network), name, as_toml(value), "")
            for name, value in all_of(settings).items()
            if value != defaults[name]
        ]
    return found


def as_toml(value: Any) -> str:
    """A setting as people read it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} = {as_toml(one)}" for name, one in value.items())
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def datasets_of(graphs: Sequence[Graph]) -> list[dict[str, Any]]:
    """The datasets that the recipes' stages read, each once: images, and objects of each class."""
    found: dict[int, dict[str, Any]] = {}
    for graph in graphs:
        for split in dict.fromkeys(split for node in graph.nodes.values() for split in node.reads_datasets()):
            dataset = graph.dataset(split)
            told = found.setdefault(id(dataset), {**counts_of(dataset), "splits": [], "source": ""})
            told["source"] = ", ".join(sources_of(graph.recipe.datasets[split]))
            if split not in told["splits"]:
                told["splits"].append(split)
    return list(found.values())


def counts_of(dataset: Any) -> dict[str, Any]:
    """A dataset's name, images and objects by class; difficult objects are counted apart."""
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
    """The recipes' complete caches, each once, inputs first; `recipes` are those that share it."""
    found: dict[str, dict[str, Any]] = {}
    for graph in graphs:
        for node in graph.caches():
            manifest = manifest_of(graph, node)
            if manifest is None:
                continue
            folder = graph.folder(node)
            told = found.setdefault(str(folder), {**cache_row(manifest), "name": node.name, "recipes": []})
            told["folder"] = f"{folder.parent.name}/{folder.name}"
            told["recipes"].append(graph.recipe.name)
    return list(found.values())


def cache_row(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest says, for a row of the page; its seconds are those of the command that finished the cache, which
    may have gone on from another's parts."""
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
    """Where and with which versions the caches were made: each combination once, with how many it made."""
    found: dict[str, dict[str, Any]] = {}
    for cache in caches:
        key = json.dumps([cache["host"], cache["versions"]], sort_keys=True)
        told = found.setdefault(key, {"host": cache["host"], "versions": cache["versions"], "caches": 0})
        told["caches"] += 1
    return list(found.values())


def missing_of(graphs: Sequence[Graph]) -> list[str]:
    """A sentence for each recipe with caches that are not complete, or without an evaluation."""
    told = []
    for graph in graphs:
        if not evaluations_of(graph):
            told.append(f"{graph.recipe.name}: evaluates nothing.")
        names = [node.name for node in graph.caches() if manifest_of(graph, node) is None]
        if names:
            verb = "is" if len(names) == 1 else "are"
            told.append(
                f"{graph.recipe.name}: {', '.join(names)} {verb} not complete; `rcnn run {graph.recipe.path}` makes "
                f"{'it' if len(names) == 1 else 'them'}."
            )
    return told


def span_of(caches: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """When the first and the last of the caches were finished, how long the commands that finished them took and how
    large they are together."""
    finished = sorted(cache["finished"] for cache in caches if cache["finished"])
    return {
        "first": finished[0] if finished else "",
        "last": finished[-1] if finished else "",
        "duration": duration(sum(cache["seconds"] for cache in caches)),
        "size": size(sum(cache["bytes"] for cache in caches)),
        "caches": f"{len(caches)} {plural('cache', len(caches))}",
    }
