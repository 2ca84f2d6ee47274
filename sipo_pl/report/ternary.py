"""Numbers over the simplex of three weights, as triangles."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sipo_pl.method.weights import Point
from sipo_pl.report.canvas import panel_grid, save
from sipo_pl.report.tables import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = "cividis"  # alike to all eyes, and darker is less in grey too
PRINTED = 15  # more points than these, and their numbers find no room
HEIGHT = 3**0.5 / 2
CORNERS = ((0.0, 0.0), (1.0, 0.0), (0.5, HEIGHT))

Surface = Mapping[Point, float]


def draw_ternary(surfaces: Mapping[str, Surface], names: Sequence[str], what: str, stem: Path) -> list[Path]:
    """Draw a triangle for each surface, all on one scale of colours, as PNG and SVG.

    Args:
        surfaces: title to weights to number.
        names: the three objectives; the first is the left corner, the second the right one, the third the top.
        what: what the numbers are.
        stem: path without its suffix.

    Returns:
        The files.
    """
    from matplotlib.colors import Normalize

    found = [value for surface in surfaces.values() for value in surface.values()]
    low, high = min(found), max(found)
    scale = Normalize(low, high if high > low else low + 1.0)
    decimals = 2 if max(abs(low), abs(high)) < 10 else 1
    columns = min(4, len(surfaces))
    figure, axes = panel_grid(len(surfaces), most_columns=columns, single=(4.6, 4.2), each=(2.9, 2.55), extra=0.7)
    for axis, (title, surface) in zip(axes, surfaces.items(), strict=True):
        _frame(axis, names)
        axis.set_title(title, fontsize=10, pad=8, fontweight="bold", parse_math=False)
        drawn = _points(axis, surface, scale, decimals)
    bar = figure.colorbar(drawn, ax=axes, location="bottom", shrink=0.5, aspect=40, pad=0.03)
    bar.set_label(what, parse_math=False)
    return save(figure, stem)


def place(weights: Point) -> tuple[float, float]:
    """Return where three weights lie in the triangle of side 1 whose left corner is the origin."""
    x, y = (sum(weight * corner[axis] for weight, corner in zip(weights, CORNERS, strict=True)) for axis in (0, 1))
    return x, y


def _frame(axis: "Axes", names: Sequence[str]) -> None:
    axis.set_axis_off()
    axis.set_aspect("equal")
    axis.set(xlim=(-0.2, 1.2), ylim=(-0.16, HEIGHT + 0.14))
    _line(axis, [*CORNERS, CORNERS[0]], "#6b6b6b", 0.9)
    for share in (0.25, 0.5, 0.75):
        rest = 1 - share
        for ends in (
            [(share, rest, 0.0), (share, 0.0, rest)],
            [(rest, share, 0.0), (0.0, share, rest)],
            [(rest, 0.0, share), (0.0, rest, share)],
        ):
            _line(axis, [place(end) for end in ends], "#dddddd", 0.6)
    for (x, y), name in zip(CORNERS, names, strict=True):
        top = y > 0
        text = axis.annotate(name, (x, y), xytext=(0, 11 if top else -11), textcoords="offset points", ha="center")
        text.set(fontsize=8.5, va="bottom" if top else "top", parse_math=False)


def _line(axis: "Axes", places: Sequence[tuple[float, float]], colour: str, width: float) -> None:
    x, y = zip(*places, strict=True)
    axis.plot(x, y, color=colour, linewidth=width, zorder=1)


def _points(axis: "Axes", surface: Surface, scale: Any, decimals: int) -> Any:
    places = [place(weights) for weights in surface]
    x, y = zip(*places, strict=True)
    printed = len(surface) <= PRINTED
    style: dict[str, Any] = {"s": 360 if printed else 60, "edgecolors": "#333333", "linewidths": 0.7, "zorder": 2}
    drawn = axis.scatter(x, y, c=list(surface.values()), cmap=COLOURS, norm=scale, **style)
    for at, value in zip(places, surface.values(), strict=True) if printed else ():
        ink = "black" if scale(value) > 0.5 else "white"
        axis.text(*at, number(value, decimals), ha="center", va="center", fontsize=6.5, color=ink, zorder=3)
    return drawn
