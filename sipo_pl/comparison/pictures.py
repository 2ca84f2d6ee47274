"""Pictures of a comparison: the fronts of all methods, and what their hypervolume cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sipo_pl.report.figures import panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008), with black and grey; marker and colour together tell ten methods apart
COLOURS = ("#000000", "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#CC79A7", "#999933", "#6b6b6b", "#882255", "#D55E00")
LEGEND_COLUMNS = 4
MARKERS = ("s", "o", "v", "<", ">", "P", "D", "X", "p", "^")


class Look(NamedTuple):
    """How a method is drawn."""

    colour: str
    marker: str


def look_of(index: int) -> Look:
    """Return the look of the method at a place; those further on look like the first again."""
    return Look(COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)])


def draw_methods(metrics: Mapping[str, Any], path: Path) -> None:
    """Draw the mean rewards of all methods as a PNG, one panel for each pair of objectives.

    With two objectives the points of a method are joined in the order of their weights.
    """
    pairs = panels(metrics["objectives"])
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = _figure((7.4, 5.6) if len(pairs) == 1 else (4.6 * columns, 4.4 * rows + 0.9))
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis, pair in zip(axes, [*pairs, *([None] * (rows * columns - len(pairs)))], strict=True):
        if pair is None:
            axis.set_axis_off()
            continue
        _settle(axis, f"{pair[0]}  → better", f"{pair[1]}  → better")
        for index, method in enumerate(metrics["methods"]):
            points = [one for one in metrics["points"] if one["method"] == method["method"]]
            _draw_method(axis, points, pair, look_of(index), method["title"], joined=len(metrics["objectives"]) == 2)
    _finish(figure, path)


def _draw_method(
    axis: "Axes", points: Sequence[Mapping[str, Any]], pair: tuple[str, str], look: Look, title: str, *, joined: bool
) -> None:
    x, y = ([point["mean"][name]["estimate"] for point in points] for name in pair)
    line = "-" if joined and len(points) > 1 else "none"
    axis.plot(x, y, linestyle=line, linewidth=1.0, marker=look.marker, color=look.colour, markersize=5.5, label=title)


def draw_cost(metrics: Mapping[str, Any], minutes: Mapping[str, float | None], path: Path) -> None:
    """Draw each method's hypervolume against the minutes that it took, with intervals over prompts, as a PNG."""
    figure = _figure((7.4, 5.6))
    axis = figure.subplots()
    _settle(axis, "minutes from the prepared data, shared stages included", "hypervolume  → better")
    for index, method in enumerate(metrics["methods"]):
        volume, spent, look = method["hypervolume"], minutes[method["method"]], look_of(index)
        if spent is None:
            continue
        error = [[max(0.0, volume["estimate"] - volume["low"])], [max(0.0, volume["high"] - volume["estimate"])]]
        axis.errorbar([spent], [volume["estimate"]], yerr=error, fmt="none", ecolor=look.colour, alpha=0.5)
        at = ([spent], [volume["estimate"]])
        axis.scatter(*at, marker=look.marker, color=look.colour, label=method["title"], zorder=3)
    _finish(figure, path)


def _figure(size: tuple[float, float]) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=size, dpi=160, layout="constrained")


def _settle(axis: "Axes", across: str, up: str) -> None:
    axis.grid(color="#e4e4e4", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(0.1)
    axis.set_xlabel(across, parse_math=False)
    axis.set_ylabel(up, parse_math=False)


def _finish(figure: "Figure", path: Path) -> None:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    columns = min(LEGEND_COLUMNS, max(1, len(labels)))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False, fontsize=8)
    figure.savefig(path, format="png", metadata={"Software": None})
