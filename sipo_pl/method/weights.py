"""Points on the simplex: one weight per objective, not negative, summing to one."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from sipo_pl.interop.numbers import GridStep
from sipo_pl.messages.errors import UsageError, nearest
from sipo_pl.storage.unicode_names import composed

MOST_POINTS = 10_000  # of a grid: each is a text of every prompt, or a policy
TOLERANCE = 1e-5  # names of points hold six digits a weight, and are read back
Point = tuple[float, ...]  # one weight for each objective, in their order


@dataclass(frozen=True)
class WeightPlan:
    """Which weights a stage uses.

    Args:
        grid: step between weights; takes the interior points of the simplex grid, such as 0.2
        points: explicit weights, each ``0.7,0.3`` in the objectives' order or ``helpful=0.7,harmless=0.3``
        corners: add the corners, each of which is one policy alone
    """

    grid: GridStep | None = None
    points: list[str] = field(default_factory=list)
    corners: bool = False

    def resolve(self, objectives: Sequence[str]) -> list[tuple[float, ...]]:
        """Return the points, without repeats, in descending order of the first weight.

        Raises:
            UsageError: if no weight is named at all or a point is off the simplex.
        """
        found = [parse_point(point, objectives) for point in self.points]
        if self.grid is not None:
            found += interior_grid(self.grid, len(objectives))
        if self.corners:
            found += corners(len(objectives))
        if not found:
            raise UsageError("weights: give a grid, points or corners")
        return sorted(set(found), reverse=True)


def parse_point(text: str, objectives: Sequence[str]) -> tuple[float, ...]:
    """Parse one point of the simplex.

    Args:
        text: ``0.7,0.3`` in the order of `objectives`, or ``helpful=0.7,harmless=0.3`` in any order.
        objectives: the names, in the recipe's order.

    Returns:
        One weight per objective, in the order of `objectives`.

    Raises:
        UsageError: unknown or missing objective, not a number, negative, or a sum other than one.
    """
    parts = [part.strip() for part in text.split(",")]
    named = [part.partition("=") for part in parts if "=" in part]
    if named and len(named) != len(parts):
        raise UsageError(f"weights {text!r}: name every objective or none")
    values: dict[str, str] = {}
    if named:
        for name, _, value in named:
            name = composed(name.strip())
            if name not in objectives:
                raise UsageError(f"weights {text!r}: no objective {name!r}{nearest(name, objectives)}")
            if name in values:
                raise UsageError(f"weights {text!r}: objective {name!r} appears twice")
            values[name] = value
        if missing := [name for name in objectives if name not in values]:
            raise UsageError(f"weights {text!r}: no weight for {', '.join(missing)}")
    else:
        if len(parts) != len(objectives):
            raise UsageError(
                f"weights {text!r}: {len(parts)} numbers for {len(objectives)} objectives {list(objectives)}"
            )
        values = dict(zip(objectives, parts, strict=True))
    try:
        point = tuple(float(values[name]) for name in objectives)
    except ValueError:
        raise UsageError(f"weights {text!r}: not numbers") from None
    check_point(point)
    return point


def check_point(point: Sequence[float]) -> None:
    """Raise UsageError unless `point` lies on the simplex."""
    if any(not 0.0 <= weight <= 1.0 for weight in point):  # also refuses nan
        raise UsageError(f"weights {point_name(point)!r} are off the simplex: each must lie in [0, 1]")
    if abs(sum(point) - 1.0) > TOLERANCE:
        raise UsageError(f"weights {point_name(point)!r} are off the simplex: they sum to {sum(point):g}, not 1")


def interior_grid(step: float, n: int) -> list[tuple[float, ...]]:
    """Return the points with all weights positive multiples of `step`; 0.2 and n = 2 give 0.2, 0.4, 0.6, 0.8.

    Raises:
        UsageError: if 1 / step is not a whole number of at least `n` steps, or there are too many points.
    """
    divisions = round(1 / step) if step > 0 else 0
    if divisions < n or abs(divisions * step - 1) > TOLERANCE:
        raise UsageError(f"weights grid {step:g}: 1/grid must be a whole number, at least {n} for {n} objectives")
    if (count := math.comb(divisions - 1, n - 1)) > MOST_POINTS:
        raise UsageError(f"weights grid {step:g}: {count} points for {n} objectives, at most {MOST_POINTS} are taken")
    borders = [(0, *cuts, divisions) for cuts in itertools.combinations(range(1, divisions), n - 1)]
    counts = [[high - low for low, high in itertools.pairwise(one)] for one in borders]
    return [tuple(round(count / divisions, 12) for count in point) for point in counts]


def corners(n: int) -> list[tuple[float, ...]]:
    """Return the `n` corners of the simplex, the first objective's first."""
    return [tuple(float(i == j) for j in range(n)) for i in range(n)]


def point_name(point: Sequence[float]) -> str:
    """Return the point as it is written in ids and tables, such as ``0.2,0.8``."""
    return ",".join(f"{weight:g}" for weight in point)
