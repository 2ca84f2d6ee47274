"""What all pictures share: panels, axes, error bars, a legend, and files that are the same bytes each time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sipo_pl.storage.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")
STABLE: Any = {"svg.hashsalt": "sipo_pl"}  # ids inside an SVG are random without it
UNDATED: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
BAR: dict[str, Any] = {"fmt": "none", "elinewidth": 0.7, "alpha": 0.45, "zorder": 1.5}


def panel_grid(
    count: int,
    *,
    single: tuple[float, float],
    each: tuple[float, float],
    extra: float,
    most_columns: int = 3,
    shared: bool = False,
) -> tuple["Figure", list["Axes"]]:
    """Return a figure with `count` panels in rows, and their axes.

    Args:
        count: panels, at least one.
        single: width and height of a picture of one panel, in inches.
        each: width and height of one panel of several.
        extra: height for what stands beside several panels, such as a legend.
        most_columns: panels in a row at the most.
        shared: whether all panels have the same axes.
    """
    from matplotlib.figure import Figure

    columns = min(most_columns, count)
    rows = -(-count // columns)
    size = single if count == 1 else (each[0] * columns, each[1] * rows + extra)
    figure = Figure(figsize=size, dpi=160, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared).flat)
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]


def settle(axis: "Axes", across: str, up: str, margin: float = 0.1) -> None:
    """Give an axis its labels, which may hold any character, and a quiet grid."""
    axis.grid(color="#e4e4e4", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(margin)
    axis.set_xlabel(across, parse_math=False)
    axis.set_ylabel(up, parse_math=False)


def error_bars(
    axis: "Axes", means: Sequence[Mapping[str, Mapping[str, float]]], pair: tuple[str, str], colour: str
) -> None:
    """Draw the intervals of mean rewards along both axes.

    Args:
        axis: where.
        means: of each point, objective to estimate, low and high.
        pair: the objectives across and up.
        colour: of the bars.
    """
    x, y = coordinates(means, pair)
    across, up = (_lengths([mean[name] for mean in means]) for name in pair)
    axis.errorbar(x, y, xerr=across, yerr=up, ecolor=colour, **BAR)


def upright_bar(axis: "Axes", x: float, entry: Mapping[str, float], colour: str) -> None:
    """Draw the interval of one number at `x`."""
    axis.errorbar([x], [entry["estimate"]], yerr=_lengths([entry]), ecolor=colour, **BAR)


def coordinates(
    means: Sequence[Mapping[str, Mapping[str, float]]], pair: tuple[str, str]
) -> tuple[list[float], list[float]]:
    """Return the estimates across and up."""
    x, y = ([mean[name]["estimate"] for mean in means] for name in pair)
    return x, y


def _lengths(entries: Sequence[Mapping[str, float]]) -> list[list[float]]:
    below = [max(0.0, entry["estimate"] - entry["low"]) for entry in entries]
    return [below, [max(0.0, entry["high"] - entry["estimate"]) for entry in entries]]


def add_legend(figure: "Figure", most_columns: int, **style: Any) -> None:
    """Put one legend above all panels; it names what the first panel shows."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    columns = min(most_columns, max(1, len(labels)))
    legend = figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False, **style)
    for text in legend.get_texts():
        text.set_parse_math(False)


def save(figure: "Figure", stem: Path) -> list[Path]:
    """Write a picture as PNG and as SVG, and return both files."""
    from matplotlib import rc_context

    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in FORMATS]
    with rc_context(STABLE):
        for path, kind in zip(paths, FORMATS, strict=True):
            with atomic_path(path) as aside:
                figure.savefig(aside, format=kind, metadata=UNDATED[kind])
    return paths
