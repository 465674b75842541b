"""A diagnosis as people and other programs read it: tables, JSON, CSV."""

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
    """What the false positives are and what a remedy gives, class by class, and the sensitivities: all in percent."""
    sections = [
        f"{name}: of each class the top-ranked false positives, as many as it has objects, by type;\n"
        "then AP (area) and how much it would rise with poor localisations right, or without a type",
        "\n".join(aligned(error_rows(summary), rules_before=(1, len(summary["classes"]) + 1))),
    ]
    if summary["characteristics"]:
        sections += [
            f"{name}: normalised AP (N = {summary['normal']:.1f}) of the worst and the best subset, means over classes",
            "\n".join(aligned(characteristic_rows(summary), rules_before=(1,))),
        ]
    else:
        sections.append(
            f"{name}: no class has two subsets with {FEWEST} objects or more, so there are no sensitivities"
        )
    return "\n\n".join(sections)


def error_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """A heading, a row for each class, one for the mean."""
    rows = [["class", "objects", *TYPES, "AP", *GAINS]]
    for name, one in summary["classes"].items():
        counts = one["false_positives"]
        total = sum(counts.values())
        shares = [percent(counts[kind] / total if total else None) for kind in TYPES]
        rows.append([name, str(one["positives"]), *shares, percent(one["ap"]), *gains(one)])
    return [*rows, ["mean", "", *([""] * len(TYPES)), percent(summary["ap"]), *gains(summary)]]


def gains(one: Mapping[str, Any]) -> list[str]:
    """How much each remedy raises the AP of a class or of the mean, as "+1.2"."""
    after = [one["remedies"][remedy] for remedy in GAINS.values()]
    return ["-" if ap is None or one["ap"] is None else f"{100 * (ap - one['ap']):+.1f}" for ap in after]


def characteristic_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """A heading and a row for each characteristic."""
    columns = ("lowest", "overall", "highest", "sensitivity", "impact")
    rows = [["characteristic", *columns, "classes"]]
    for name, one in summary["characteristics"].items():
        rows.append([name, *(percent(one[column]) for column in columns), str(one["classes"])])
    return rows


def write_diagnosis(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes `diagnosis.json` (all of it), `false-positives.csv` and `characteristics.csv` into `folder`; returns
    their paths. Files there are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / "diagnosis.json"
    whole.write_text(json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    tables = {"false-positives.csv": trend_table(summary), "characteristics.csv": bin_table(summary)}
    for name, rows in tables.items():
        (folder / name).write_text(csv_text(rows), encoding="utf-8")
    return [whole, *(folder / name for name in tables)]


def trend_table(summary: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    """Figure 5: how many of a class's or a group's top-ranked false positives are of each type."""
    yield ["class or group", "top-ranked", *TYPES]
    for name, counts in summary["trends"].items():
        yield from ([name, count, *(seen[kind] for kind in TYPES)] for count, seen in counts.items())


def bin_table(summary: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    """Every class's normalised AP by characteristic; what does not exist is empty."""
    yield ["class", "characteristic", "subset", "objects", "ap_n", "ap_n_error"]
    for name, one in summary["classes"].items():
        yield [name, "", "", one["positives"], one["ap_n"], one["ap_n_error"]]
        for characteristic, bins in one["characteristics"].items():
            for label, of_bin in bins.items():
                yield [name, characteristic, label, of_bin["positives"], of_bin["ap_n"], of_bin["ap_n_error"]]
