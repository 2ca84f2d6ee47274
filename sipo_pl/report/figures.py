"""Pictures of fronts."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sipo_pl.report.canvas import add_legend, coordinates, error_bars, panel_grid, save, settle
from sipo_pl.report.cells import BASE, ENDS, ROUND, weights_of
from sipo_pl.report.ternary import draw_ternary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_PANELS = 6
LABELLED = 8  # more points than these, and only the corners keep their labels
GREY = "#6b6b6b"


class PhaseStyle(NamedTuple):
    """How a phase is drawn: colours of Okabe and Ito (2008), told apart by marker and line as well."""

    label: str
    colour: str
    marker: str
    line: str
    label_offset: tuple[int, int]
    label_align: str


LOOKS = {
    BASE: PhaseStyle("base model", "#000000", "s", "", (7, -11), "left"),
    "before": PhaseStyle("before (first alignment)", "#0072B2", "o", "--", (-7, -11), "right"),
    "after": PhaseStyle("after (re-alignment)", "#D55E00", "^", "-", (7, 6), "left"),
}

LAST = LOOKS["after"]._replace(label="after the last round")
BETWEEN = (("#009E73", "v"), ("#CC79A7", "D"), ("#56B4E9", "P"), ("#E69F00", "X"))  # in turn, of rounds before the last


def look_of(phase: str) -> PhaseStyle:
    """Return how a phase is drawn."""
    if phase in LOOKS:
        return LOOKS[phase]
    colour, marker = BETWEEN[(int(phase.removeprefix(ROUND)) - 1) % len(BETWEEN)]
    return PhaseStyle(f"after {phase}", colour, marker, ":", (7, 6), "left")


def panels(objectives: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of objectives that are drawn: all, or the first `MAX_PANELS`."""
    return list(itertools.combinations(objectives, 2))[:MAX_PANELS]


def draw_fronts(metrics: Mapping[str, Any], stem: Path) -> list[Path]:
    """Draw the fronts of `metrics` as PNG and SVG, one panel per pair of objectives.

    Two objectives: the points of a phase are joined in the order of their weights. More: each point before is joined
    with its point after, since a front of three objectives is no line.

    Args:
        metrics: what `metrics.json` holds.
        stem: path without its suffix.

    Returns:
        The files.
    """
    pairs = panels(metrics["objectives"])
    figure, axes = panel_grid(len(pairs), single=(7.2, 5.2), each=(4.6, 4.4), extra=0.4)
    for axis, pair in zip(axes, pairs, strict=True):
        _panel(axis, metrics, pair)
    add_legend(figure, len(LOOKS) + len(BETWEEN))
    return save(figure, stem)


def draw_weights(metrics: Mapping[str, Any], stem: Path) -> list[Path]:
    """Draw the weighted reward over three weights before and after, in units above the frame's reference point.

    Args:
        metrics: what `metrics.json` holds.
        stem: path without its suffix.

    Returns:
        The files.
    """
    frame = metrics["hypervolume"]
    surfaces: dict[str, dict[tuple[float, ...], float]] = {}
    for entry in metrics["points"]:
        if weights := weights_of(entry["point"]):
            surface = surfaces.setdefault(_look(entry["phase"], metrics["points"]).label, {})
            surface[weights] = weighted_reward(entry["mean"], weights, frame["reference"], frame["range"])
    return draw_ternary(surfaces, metrics["objectives"], "weighted reward, in units above the reference point", stem)


def weighted_reward(
    mean: Mapping[str, Mapping[str, float]],
    weights: Sequence[float],
    origin: Mapping[str, float],
    unit: Mapping[str, float],
) -> float:
    """Return the weighted sum of mean rewards, in units from an origin.

    Args:
        mean: objective to its estimate.
        weights: in the order of `mean`.
        origin: objective to where it is counted from.
        unit: objective to its unit.
    """
    pairs = zip(mean.items(), weights, strict=True)
    return sum(weight * (one["estimate"] - origin[name]) / unit[name] for (name, one), weight in pairs)


def _panel(axis: "Axes", metrics: Mapping[str, Any], pair: tuple[str, str]) -> None:
    settle(axis, f"{pair[0]}  → better", f"{pair[1]}  → better", margin=0.14)
    two = len(metrics["objectives"]) == 2
    entries: dict[str, list[Mapping[str, Any]]] = {}
    for entry in metrics["points"]:
        entries.setdefault(entry["phase"], []).append(entry)
    for phase, found in entries.items():
        _phase(axis, found, pair, _look(phase, metrics["points"]), joined=two)
        if phase in ENDS and (two or phase == "after" or "after" not in entries):
            _label(axis, phase, found, pair)
    if not two:
        _join_phases(axis, metrics["points"], pair)


def _look(phase: str, points: Sequence[Mapping[str, Any]]) -> PhaseStyle:
    last = phase == "after" and any(entry["phase"].startswith(ROUND) for entry in points)
    return LAST if last else look_of(phase)


def _phase(
    axis: "Axes", entries: Sequence[Mapping[str, Any]], pair: tuple[str, str], look: PhaseStyle, *, joined: bool
) -> None:
    means = [entry["mean"] for entry in entries]
    error_bars(axis, means, pair, look.colour)
    line = look.line if joined else "none"
    x, y = coordinates(means, pair)
    axis.plot(
        x,
        y,
        linestyle=line,
        linewidth=1.3,
        marker=look.marker,
        markersize=6,
        color=look.colour,
        label=look.label,
    )


def _label(axis: "Axes", phase: str, entries: Sequence[Mapping[str, Any]], pair: tuple[str, str]) -> None:
    look = look_of(phase)
    for index, entry in enumerate(entries):
        across, up = look.label_offset
        if len(pair) < entry["point"].count(",") + 1 and index % 2:  # long labels: neighbours above and below by turns
            up = -17 - up
        if has_label(entry["point"], len(entries)):
            at = (entry["mean"][name]["estimate"] for name in pair)
            label_point(axis, entry["point"], tuple(at), (across, up), look.colour, look.label_align)


def has_label(point: str, count: int) -> bool:
    """Return whether one of `count` points is labelled: every one of a few, else the corners."""
    return count <= LABELLED or "1" in point.split(",")


def label_point(
    axis: "Axes", point: str, at: tuple[float, ...], offset: tuple[int, int], colour: str, align: str = "left"
) -> None:
    """Write a point's weights, without leading zeros, beside it; the offset is in points of print."""
    from matplotlib.patheffects import withStroke

    words = ",".join(weight.removeprefix("0") or "0" for weight in point.split(","))
    text = axis.annotate(words, (at[0], at[1]), xytext=offset, textcoords="offset points")
    text.set(ha=align, fontsize=7.5, color=colour)
    text.set_path_effects([withStroke(linewidth=2, foreground="white")])


def _join_phases(axis: "Axes", points: Sequence[Mapping[str, Any]], pair: tuple[str, str]) -> None:
    ends = {phase: {e["point"]: e["mean"] for e in points if e["phase"] == phase} for phase in ("before", "after")}
    for point, before in ends["before"].items():
        if after := ends["after"].get(point):
            x, y = ([mean[name]["estimate"] for mean in (before, after)] for name in pair)
            axis.plot(x, y, color=GREY, linewidth=0.7, linestyle=":", zorder=1)
