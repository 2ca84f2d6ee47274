"""How methods are drawn: told apart by colour, and without it by marker, line and filling."""

from collections.abc import Iterable
from typing import NamedTuple

from sipo_pl.registry import METHODS

# Okabe and Ito (2008), grey and three of Tol's muted ones; marker, line and colour together tell eleven methods apart
COLOURS = (
    *("#000000", "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#332288"),
    *("#CC79A7", "#999933", "#6b6b6b", "#882255", "#D55E00"),
)
MARKERS = ("s", "o", "v", "<", ">", "h", "P", "D", "X", "p", "^")
LINES = ("-", "--", "-.", ":")
FILLS = ("full", "none", "left", "top", "right", "bottom")  # of the run itself, and of those put beside it


class Look(NamedTuple):
    """How a method is drawn."""

    colour: str
    marker: str
    line: str
    fill: str


def looks(names: Iterable[str]) -> dict[str, Look]:
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
        found[name] = Look(
            COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)], LINES[place % len(LINES)], fill
        )
    return found
