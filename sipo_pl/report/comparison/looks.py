"""How methods are drawn: told apart by colour, and without it by marker, line and filling."""

import math
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

from sipo_pl.registry import METHODS

# Okabe and Ito (2008), grey and three of Tol's muted ones for eleven methods; `_colours` derives further ones
COLOURS = (
    *("#000000", "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#332288"),
    *("#CC79A7", "#999933", "#6b6b6b", "#882255", "#D55E00"),
)
MARKERS = ("s", "o", "v", "<", ">", "h", "P", "D", "X", "p", "^")
LINES = ("-", "--", "-.", ":")
SHADES = range(20, 217, 28)  # of red, green and blue in further colours
PALEST = 105.0  # their least distance from white
FILLS = ("full", "none", "left", "top", "right", "bottom")  # of the run itself, and of those put beside it


class MethodStyle(NamedTuple):
    """How a method is drawn."""

    colour: str
    marker: str
    line: str
    fill: str


@cache
def _colours(count: int) -> tuple[str, ...]:
    """Return so many colours: those of `COLOURS`, then always the one that is farthest from all before it.

    Further ones are chosen from a grid over red, green and blue, without those that are too pale on white paper.
    """
    grid = [one for one in product(SHADES, repeat=3) if _distance(one, (255, 255, 255)) > PALEST]
    found: list[Sequence[int]] = [_numbers(colour) for colour in COLOURS[:count]]
    nearest = [min(_distance(one, other) for other in found) for one in grid]
    while len(found) < count:
        place = max(range(len(grid)), key=nearest.__getitem__)
        found.append(grid[place])
        nearest = [min(old, _distance(one, grid[place])) for old, one in zip(nearest, grid, strict=True)]
    return (*COLOURS[:count], *("#{:02X}{:02X}{:02X}".format(*one) for one in found[len(COLOURS) :]))


def _numbers(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def _distance(one: Sequence[int], other: Sequence[int]) -> float:
    """Return how far apart two colours look, roughly: the eye sees green best and blue least."""
    return math.hypot(*(weight * (a - b) for weight, a, b in zip((0.55, 0.77, 0.33), one, other, strict=True)))


def _marker(place: int) -> str:
    """Return the marker of a method; those of each further eleven methods are shifted by one against the lines."""
    return MARKERS[(place + place // len(MARKERS)) % len(MARKERS)]


def looks(names: Iterable[str]) -> dict[str, MethodStyle]:
    """Return how each method is drawn: the same in every comparison, with another filling in each run put beside.

    Args:
        names: methods, those of other runs as ``run:method``.
    """
    order, prefixes, found = list(METHODS), [""], {}
    for name in names:
        prefix, _, method = name.rpartition(":")
        if prefix not in prefixes:
            prefixes.append(prefix)
        place = order.index(method)
        fill = FILLS[prefixes.index(prefix) % len(FILLS)]
        colour = _colours(max(place + 1, len(COLOURS)))[place]
        found[name] = MethodStyle(colour, _marker(place), LINES[place % len(LINES)], fill)
    return found
