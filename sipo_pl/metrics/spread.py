"""How wide a front is."""

import numpy as np
from numpy.typing import ArrayLike

from sipo_pl.metrics.front import as_points, pareto_front


def spread(points: ArrayLike, scale: ArrayLike) -> float:
    """Return the diagonal of the box around the non-dominated points (maximum spread: Zitzler, 1999, section 3.1).

    Args:
        points: mean rewards, larger is better, (points, objectives), at least one.
        scale: unit of each objective, (objectives,).
    """
    values = as_points(points)
    front = values[pareto_front(values)] / np.asarray(scale, dtype=np.float64)
    return float(np.linalg.norm(front.max(axis=0) - front.min(axis=0)))
