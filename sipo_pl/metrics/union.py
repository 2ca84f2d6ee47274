"""How the fronts of several methods stand to the front of their union."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sipo_pl.metrics.front import as_points, pareto_front


def union_front(fronts: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Return the distinct non-dominated points of all methods' points together, (union points, objectives).

    Args:
        fronts: mean rewards of each method, larger is better, (points, objectives) each; at least one point in all.
    """
    points = np.unique(np.concatenate([as_points(front) for front in fronts]), axis=0)
    return points[pareto_front(points)]


def igd_plus(points: ArrayLike, union: ArrayLike, scale: ArrayLike) -> float:
    """Return IGD+ (Ishibuchi et al., 2015): how far the union front lies above `points` on average; 0 is best.

    The mean over union points u of the least |max(u - p, 0)| over points p, Euclidean, in units of `scale`.

    Args:
        points: larger is better, (points, objectives), at least one.
        union: the front of the union, (union points, objectives), at least one.
        scale: unit of each objective, (objectives,).
    """
    from moocore import igd_plus as of_moocore

    unit = np.asarray(scale, dtype=np.float64)
    return float(of_moocore(as_points(points) / unit, ref=as_points(union) / unit, maximise=True))


def union_share(points: ArrayLike, union: ArrayLike) -> float:
    """Return the share of the union front's points that are among `points`; shares of methods may overlap.

    Args:
        points: (points, objectives).
        union: what `union_front` returns, (union points, objectives).
    """
    values, front = as_points(points), as_points(union)
    return float((front[:, None] == values[None]).all(axis=2).any(axis=1).mean())
