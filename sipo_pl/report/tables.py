"""What the numbers say in words, and the table that a run ends with."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sipo_pl.metrics.intervals import FEWEST, told
from sipo_pl.report.cells import BASE, ROUND

if TYPE_CHECKING:
    from rich.table import Table

LONGER = 0.1
MEANS_NOTE = "● on the Pareto front of its phase. In brackets the interval of the mean."
RunMetrics = Mapping[str, Any]  # what metrics.json holds, or a part of it


def headline(metrics: RunMetrics) -> str:
    """Return the result of the run in one sentence, which claims no more than the interval allows."""
    volume = metrics["hypervolume"]
    before, after, change = volume["before"], volume["after"], volume["change"]
    if change is None:
        if before is None and after is None:
            return "Only the base model was measured, so there is no front."
        what, found = ("after re-alignment", after) if before is None else ("of the first alignment", before)
        missing = "the first alignment" if before is None else "a re-alignment"
        return (
            f"Hypervolume {what}: {with_interval(found)}; {missing} was not measured, so there is nothing to compare."
        )
    text = (
        f"Hypervolume {number(before['estimate'])} → {number(after['estimate'])}, "
        f"change {with_interval(change, sign=True)}: "
    )
    if metrics["prompts"] < FEWEST:
        return text + f"{too_few(metrics)} to say whether re-alignment changed the front."
    found = told(change, metrics["prompts"])
    if found > 0:
        return text + "the interval lies above zero, so on these prompts re-alignment improved the front."
    if found < 0:
        return text + "the interval lies below zero, so on these prompts re-alignment made the front worse."
    if change["low"] == change["high"] == 0:
        return text + "nothing changed."
    return text + "the interval holds zero, so this run does not show an improvement."


def too_few(metrics: RunMetrics) -> str:
    """Return the beginning of a sentence that refuses a claim."""
    prompts = metrics["prompts"]
    return f"{prompts} test prompt{' is' if prompts == 1 else 's are'} too few"


def remarks(metrics: RunMetrics) -> list[str]:
    """Return what a reader must know beside the headline: the corner control, and changes of length."""
    return [remark for remark in (_corner_remark(metrics), _length_remark(metrics)) if remark]


def _corner_remark(metrics: RunMetrics) -> str:
    phase = "before" if any(entry["phase"] == "before" for entry in metrics["corners"]) else "after"
    corners = [entry for entry in metrics["corners"] if entry["phase"] == phase]
    if not corners:
        return "No corner was compared with the base, so the front has no control."
    if metrics["prompts"] < FEWEST:
        return f"No control: {too_few(metrics)} to tell the corners from the base."
    if failed := [entry for entry in corners if not entry["beats_base"]]:
        found = "; ".join(
            f"{name} {with_interval(entry['difference'][name], reward_decimals(metrics, name), sign=True)}"
            for entry in failed
            for name in [entry["objective"]]
        )
        return (
            f"Control failed: these corners do not beat the base on their own objective beyond the interval: {found}."
        )
    missing = [name for name in metrics["objectives"] if name not in {entry["objective"] for entry in corners}]
    note = f" Not measured: {', '.join(missing)}." if missing else ""
    return f"Control passed: each measured corner beats the base on its own objective beyond the interval.{note}"


def _length_remark(metrics: RunMetrics) -> str:
    shared = {entry["point"] for entry in metrics["changes"]}
    words = {
        phase: [entry["words"] for entry in metrics["points"] if entry["phase"] == phase and entry["point"] in shared]
        for phase in ("before", "after")
    }
    before, after = sum(words["before"]), sum(words["after"])
    if before == 0 or abs(after / before - 1) <= LONGER:
        return ""
    way = "longer" if after > before else "shorter"
    how_much = f"{abs(after / before - 1):.0%}"
    return f"Responses are {how_much} {way} after re-alignment, so compare the length-matched differences."


def summary_table(metrics: RunMetrics) -> "Table":
    """Return the table that a run ends with: mean of each objective per weight, before and after, and the headline."""
    from rich.table import Table

    names = metrics["objectives"]
    found = {(entry["phase"], entry["point"]): entry for entry in metrics["points"]}
    table = Table(
        title=f"Mean rewards over {metrics['prompts']} prompts", caption=headline(metrics), caption_justify="left"
    )
    table.add_column(f"weights ({', '.join(names)})")
    rounds = [phase for phase in dict.fromkeys(phase for phase, _ in found) if phase.startswith(ROUND)]
    for name in names:
        table.add_column(f"{name} before", justify="right")
        for phase in (*rounds, "after"):
            table.add_column(phase, justify="right")
    for point in dict.fromkeys(point for _, point in found):
        entries = [found.get(("base", point), found.get(("before", point)))]
        entries += [found.get((phase, point)) for phase in (*rounds, "after")]
        cells = [
            reward(metrics, name, entry["mean"][name]["estimate"]) if entry else ""
            for name in names
            for entry in entries
        ]
        table.add_row(point, *cells)
    return table


def mean_table(metrics: RunMetrics) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the means of every weight and phase, with intervals, for reading."""
    names, (phases, points) = metrics["objectives"], by_point(metrics)
    header = [f"weights ({', '.join(names)})", *(f"{name} {phase}" for name in names for phase in phases)]
    rows = [
        [point, *(_mean(metrics, entry, name) for name in names for entry in entries)]
        for point, entries in points.items()
    ]
    return header, rows


def by_point(metrics: RunMetrics) -> tuple[list[str], dict[str, list[RunMetrics | None]]]:
    """Return the phases, and each point's entries in their order; the base model's stands in the first phase."""
    found = {(entry["phase"], entry["point"]): entry for entry in metrics["points"]}
    phases = [phase for phase in dict.fromkeys(phase for phase, _ in found) if phase != BASE]
    points: dict[str, list[RunMetrics | None]] = {}
    for point in dict.fromkeys(point for _, point in found):
        keys = [(BASE if point == BASE and phase == "before" else phase, point) for phase in phases]
        points[point] = [found.get(key) for key in keys]
    return phases, points


def _mean(metrics: RunMetrics, entry: RunMetrics | None, name: str) -> str:
    if entry is None:
        return ""
    mark = "● " if entry["on_front"] else ""
    return mark + unbroken(with_interval(entry["mean"][name], reward_decimals(metrics, name)))


def unbroken(text: str) -> str:
    """Return a text whose intervals are not broken: a narrow cell breaks before one, not inside."""
    return text.replace(", ", ",\u00a0")


def number(value: float, decimals: int = 2, sign: bool = False) -> str:
    """Return a number for reading, with a true minus sign."""
    text = f"{value:{'+' if sign else ''}.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def with_interval(entry: Mapping[str, float], decimals: int = 2, sign: bool = False) -> str:
    """Return an estimate with its interval, such as ``1.15 [1.02, 1.28]``."""
    return f"{number(entry['estimate'], decimals, sign)} {interval(entry, decimals)}"


def interval(entry: Mapping[str, float], decimals: int = 2) -> str:
    """Return the interval of an estimate, such as ``[1.02, 1.28]``."""
    return f"[{number(entry['low'], decimals)}, {number(entry['high'], decimals)}]"


def reward_decimals(metrics: RunMetrics, objective: str) -> int:
    """Return how many decimals show two digits of the differences that the front spans on `objective`."""
    return decimals_of(metrics["hypervolume"]["range"][objective])


def decimals_of(unit: float) -> int:
    """Return how many decimals show two digits of what is about one `unit` large."""
    return min(6, max(0, 2 - math.floor(math.log10(unit))))


def reward(metrics: RunMetrics, objective: str, value: float) -> str:
    """Return a mean reward of `objective` for reading."""
    return number(value, reward_decimals(metrics, objective))
