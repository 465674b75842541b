"""A diagnosis as tables, JSON and CSV."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.diagnose.characteristics import FEWEST
from stages.matching.error_types import TYPES
from stages.tables import aligned, csv_text, percent

GAINS = {
    "Loc right": "Loc corrected",
    "no Loc": "Loc removed",
    "no Sim": "Sim removed",
    "no Oth": "Oth removed",
    "no BG": "BG removed",
}
"""The headings of the remedies in the printed table."""


def format_tables(name: str, summary: Mapping[str, Any]) -> str:
    """Tables of false positives by type, the gain of each remedy per class, and the sensitivities, in percent."""
    sections = [
        f"{name}: the top-ranked false positives of each class, as many as it has objects, by type;\n"
        "then AP (area), and its gain if poor localisations were corrected or a type removed",
        "\n".join(aligned(error_rows(summary), rules_before=(1, len(summary["classes"]) + 1))),
    ]
    if summary["characteristics"]:
        sections += [
            f"{name}: normalised AP (N = {summary['normal']:.1f}) of the worst and best subsets, averaged over classes",
            "\n".join(aligned(characteristic_rows(summary), rules_before=(1,))),
        ]
    else:
        sections.append(
            f"{name}: no class has two subsets with {FEWEST} or more objects, so no sensitivities can be given"
        )
    return "\n\n".join(sections)


def error_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """A heading, one row per class and one for the mean."""
    rows = [["class", "objects", *TYPES, "AP", *GAINS]]
    for name, of_class in summary["classes"].items():
        counts = of_class["false_positives"]
        total = sum(counts.values())
        shares = [percent(counts[kind] / total if total else None) for kind in TYPES]
        rows.append([name, str(of_class["positives"]), *shares, percent(of_class["ap"]), *gains(of_class)])
    return [*rows, ["mean", "", *([""] * len(TYPES)), percent(summary["ap"]), *gains(summary)]]


def gains(result: Mapping[str, Any]) -> list[str]:
    """How much each remedy raises the AP of a class, or the mean AP, such as "+1.2"."""
    before, after = result["ap"], [result["remedies"][remedy] for remedy in GAINS.values()]
    return ["-" if ap is None or before is None else f"{100 * (ap - before):+.1f}" for ap in after]


def characteristic_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """A heading and one row per characteristic."""
    columns = ("lowest", "overall", "highest", "sensitivity", "impact")
    rows = [["characteristic", *columns, "classes"]]
    for name, means in summary["characteristics"].items():
        rows.append([name, *(percent(means[column]) for column in columns), str(means["classes"])])
    return rows


def write_diagnosis(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes `diagnosis.json` (the whole summary), `false-positives.csv` and `characteristics.csv` into `folder`,
    replacing existing files; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / "diagnosis.json"
    whole.write_text(json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    tables = {"false-positives.csv": trend_table(summary), "characteristics.csv": bin_table(summary)}
    for name, rows in tables.items():
        (folder / name).write_text(csv_text(rows), encoding="utf-8")
    return [whole, *(folder / name for name in tables)]


def trend_table(summary: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    """Figure 5 as a table: the number of top-ranked false positives of each type, per class and group."""
    yield ["class or group", "top-ranked", *TYPES]
    for name, counts in summary["trends"].items():
        yield from ([name, count, *(seen[kind] for kind in TYPES)] for count, seen in counts.items())


def bin_table(summary: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    """Every class's normalised AP by characteristic; undefined values are empty."""
    yield ["class", "characteristic", "subset", "objects", "ap_n", "ap_n_error"]
    for name, of_class in summary["classes"].items():
        yield [name, "", "", of_class["positives"], of_class["ap_n"], of_class["ap_n_error"]]
        for characteristic, bins in of_class["characteristics"].items():
            for label, of_bin in bins.items():
                yield [name, characteristic, label, of_bin["positives"], of_bin["ap_n"], of_bin["ap_n_error"]]
