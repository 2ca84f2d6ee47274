"""Pictures of a comparison: the fronts of all methods, each method by itself, the weights, and the cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sipo_pl.report.canvas import add_legend, coordinates, error_bars, panel_grid, save, settle, upright_bar
from sipo_pl.report.cells import weights_of
from sipo_pl.report.comparison.looks import MethodStyle, looks
from sipo_pl.report.figures import has_label, label_point, panels, weighted_reward
from sipo_pl.report.tables import RunMetrics
from sipo_pl.report.ternary import draw_ternary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEGEND_COLUMNS = COLUMNS = 4
FAINT = "#b5b5b5"


def draw_all(metrics: RunMetrics, minutes: Mapping[str, float | None], folder: Path) -> list[Path]:
    """Draw everything that fits the number of objectives as PNG and SVG, and return the files.

    Args:
        metrics: what `metrics.json` holds.
        minutes: of each method; None where they are not known.
        folder: where the pictures are put.
    """
    files = [*draw_methods(metrics, folder / "fronts"), *draw_cost(metrics, minutes, folder / "cost")]
    if len(metrics["objectives"]) == 2:
        files += draw_each_method(metrics, folder / "methods")
    if len(metrics["objectives"]) == 3:
        files += draw_weights(metrics, folder / "ternary")
    return files


def draw_methods(metrics: RunMetrics, stem: Path) -> list[Path]:
    """Draw the mean rewards of all methods with their intervals as PNG and SVG, one panel a pair of objectives.

    With two objectives the points of a method are joined in the order of their weights.

    Args:
        metrics: what `metrics.json` holds.
        stem: path without its suffix.

    Returns:
        The files.
    """
    pairs = panels(metrics["objectives"])
    figure, axes = panel_grid(len(pairs), single=(7.4, 5.8), each=(4.6, 4.4), extra=0.9)
    for axis, pair in zip(axes, pairs, strict=True):
        settle(axis, f"{pair[0]}  → better", f"{pair[1]}  → better")
        for name, (method, look) in _methods(metrics).items():
            _draw_method(axis, _means(metrics, name), pair, look, method["title"], joined=len(pairs) == 1)
    add_legend(figure, LEGEND_COLUMNS, fontsize=8)
    return save(figure, stem)


def draw_each_method(metrics: RunMetrics, stem: Path) -> list[Path]:
    """Draw a panel a method with its weights written at its points, the others' points in grey; of two objectives.

    Args:
        metrics: what `metrics.json` holds.
        stem: path without its suffix.

    Returns:
        The files.
    """
    x, y = metrics["objectives"]
    methods = _methods(metrics)
    size: dict[str, Any] = {"single": (4.6, 4.4), "each": (3.1, 2.9), "extra": 0.3}
    figure, axes = panel_grid(len(methods), most_columns=COLUMNS, shared=True, **size)
    everything = [entry["mean"] for entry in metrics["points"]]
    for place, (axis, (name, (method, look))) in enumerate(zip(axes, methods.items(), strict=True)):
        lowest = place + COLUMNS >= len(axes)
        settle(axis, f"{x}  → better" if lowest else "", f"{y}  → better" if place % COLUMNS == 0 else "")
        axis.tick_params(labelbottom=lowest)
        axis.set_title(method["title"], fontsize=9.5, parse_math=False)
        axis.plot(*coordinates(everything, (x, y)), linestyle="none", marker=".", markersize=4, color=FAINT, zorder=1)
        _draw_method(axis, _means(metrics, name), (x, y), look, method["title"], joined=True)
        points = {entry["point"]: entry["mean"] for entry in metrics["points"] if entry["method"] == name}
        for order, (point, mean) in enumerate(points.items()):
            if point and has_label(point, len(points)):
                at = (mean[x]["estimate"], mean[y]["estimate"])
                label_point(axis, point, at, (5, -9 if order % 2 else 4), look.colour)
    return save(figure, stem)


def draw_weights(metrics: RunMetrics, stem: Path) -> list[Path]:
    """Draw what each method gains over `against` in weighted reward over three weights, in units, a triangle a method.

    Args:
        metrics: what `metrics.json` holds.
        stem: path without its suffix.

    Returns:
        The files.
    """
    methods = {name: method["title"] for name, (method, _) in _methods(metrics).items()}
    against = metrics["against"]
    surfaces = {title: gains(metrics, name) for name, title in methods.items() if name != against}
    found = {title: surface for title, surface in surfaces.items() if surface}
    if not found:
        return []
    return draw_ternary(found, metrics["objectives"], f"weighted reward over {methods[against]}'s, in units", stem)


def gains(metrics: RunMetrics, name: str) -> dict[tuple[float, ...], float]:
    """Return by how much a method's weighted reward is above that of `against`, at each weight that both have."""
    own, other = utilities(metrics, name), utilities(metrics, metrics["against"])
    return {weights: value - other[weights] for weights, value in own.items() if weights in other}


def utilities(metrics: RunMetrics, name: str) -> dict[tuple[float, ...], float]:
    """Return a method's weighted reward at each weight, in units from the calibration's mean; their mean is `mip`.

    A method with one answer for all weights has that answer at every weight.
    """
    frame = metrics["frame"]["objectives"]
    origin, unit = ({one: frame[one][key] for one in metrics["objectives"]} for key in ("mean", "scale"))
    found = {}
    for entry in metrics["points"]:
        if entry["method"] == name:
            asked = [entry["point"]] if entry["point"] else metrics["weights"]
            for weights in map(weights_of, asked):
                found[weights] = weighted_reward(entry["mean"], weights, origin, unit)
    return found


def draw_cost(metrics: RunMetrics, minutes: Mapping[str, float | None], stem: Path) -> list[Path]:
    """Draw each method's hypervolume against the minutes that it took, with intervals over prompts, as PNG and SVG.

    Args:
        metrics: what `metrics.json` holds.
        minutes: of each method; None where they are not known.
        stem: path without its suffix.

    Returns:
        The files.
    """
    figure, (axis,) = panel_grid(1, single=(7.4, 5.6), each=(7.4, 5.6), extra=0)
    settle(axis, "minutes from the prepared data, shared stages included", "hypervolume  → better")
    for name, (method, look) in _methods(metrics).items():
        if (spent := minutes[name]) is not None:
            upright_bar(axis, spent, method["hypervolume"], look.colour)
            _mark(axis, [spent], [method["hypervolume"]["estimate"]], look, method["title"], line="none")
    add_legend(figure, LEGEND_COLUMNS, fontsize=8)
    return save(figure, stem)


def _methods(metrics: RunMetrics) -> dict[str, tuple[Mapping[str, Any], MethodStyle]]:
    found = looks(method["method"] for method in metrics["methods"])
    return {method["method"]: (method, found[method["method"]]) for method in metrics["methods"]}


def _means(metrics: RunMetrics, name: str) -> list[Mapping[str, Any]]:
    return [entry["mean"] for entry in metrics["points"] if entry["method"] == name]


def _draw_method(
    axis: "Axes",
    means: Sequence[Mapping[str, Any]],
    pair: tuple[str, str],
    look: MethodStyle,
    title: str,
    *,
    joined: bool,
) -> None:
    error_bars(axis, means, pair, look.colour)
    _mark(axis, *coordinates(means, pair), look, title, line=look.line if joined and len(means) > 1 else "none")


def _mark(axis: "Axes", x: Sequence[float], y: Sequence[float], look: MethodStyle, title: str, *, line: str) -> None:
    axis.plot(
        x,
        y,
        label=title,
        linestyle=line,
        linewidth=1.1,
        marker=look.marker,
        markersize=5.5,
        fillstyle=look.fill,
        markerfacecoloralt="white",
        color=look.colour,
    )
