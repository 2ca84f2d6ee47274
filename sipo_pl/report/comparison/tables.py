"""The tables of a comparison as CSV: one of methods, one of their points, one of the ruler's sensitivity."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sipo_pl.report.comparison.numbers import STATISTICS
from sipo_pl.storage.files import atomic_path

BESIDE = ("words", "finished", "collapsed", "kl", "win_rate")
COST = ("trained_tokens", "generated_tokens", "backward_passes", "policies_per_token")


def method_rows(metrics: Mapping[str, Any], minutes: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """Return a row for each method; `minutes` alone differ from run to run."""
    rows = []
    for entry in metrics["methods"]:
        row: dict[str, Any] = {"method": entry["method"], "title": entry["title"]}
        for name in STATISTICS:
            row |= _interval(name, entry[name])
        row |= _interval("hypervolume_gain", entry["hypervolume_gain"])
        row |= {name: entry[name] for name in (*BESIDE, *COST)}
        rows.append({**row, "minutes": minutes[entry["method"]]})
    return rows


def point_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each method and point, with what belongs beside a mean."""
    rows = []
    for entry in metrics["points"]:
        row: dict[str, Any] = {"method": entry["method"], "point": entry["point"]}
        for name in metrics["objectives"]:
            row |= _interval(name, entry["mean"][name])
        for name in metrics["objectives"]:
            row |= _interval(f"{name}_gain", entry["gain"][name])
        for name in metrics["objectives"]:
            matched = entry["length_matched"]
            row[f"{name}_length_matched"] = matched[name]["estimate"] if matched else None
        row["length_matched_prompts"] = entry["length_matched_prompts"]
        rows.append({**row, **{name: entry[name] for name in BESIDE}, "on_union_front": entry["on_union_front"]})
    return rows


def _interval(name: str, found: Mapping[str, float] | None) -> dict[str, Any]:
    ends: Mapping[str, float | None] = found or {"estimate": None, "low": None, "high": None}
    return {name: ends["estimate"], f"{name}_low": ends["low"], f"{name}_high": ends["high"]}


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of equal keys, atomically; what is not there is an empty cell."""
    with atomic_path(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
