"""Pareto fronts: which points no other point beats."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def as_points(points: ArrayLike) -> NDArray[np.float64]:
    """Return `points` as float64, (points, objectives); ValueError unless it is a finite matrix."""
    values = np.asarray(points, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"points: expected shape (points, objectives), found {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("points: not finite")
    return values


def pareto_front(points: ArrayLike) -> NDArray[np.bool_]:
    """Return which points are non-dominated, where larger is better.

    A point is dominated if another is at least as good in every objective and better in one. Equal points do not
    dominate each other, so duplicates on the front are all kept.

    Args:
        points: finite numbers, (points, objectives).

    Returns:
        True on the front, (points,).

    Raises:
        ValueError: not a matrix, or not finite.
    """
    from moocore import is_nondominated

    values = as_points(points)
    if len(values) == 0:
        return np.zeros(0, dtype=np.bool_)
    return np.asarray(is_nondominated(values, maximise=True, keep_weakly=True), dtype=np.bool_)
