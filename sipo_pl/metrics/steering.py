"""Whether the weight steers: mean rewards at the points of a method against the weights of those points."""

import numpy as np
from numpy.typing import ArrayLike

from sipo_pl.metrics.front import as_points


def inner_product(rewards: ArrayLike, weights: ArrayLike) -> float:
    """Return MIP, the mean over points of <w, r(w)> (mean inner product); larger is better.

    Args:
        rewards: mean rewards in common units, (points, objectives).
        weights: the points' weights, on the simplex, (points, objectives).
    """
    return float((as_points(rewards) * as_points(weights)).sum(axis=1).mean())


def kendall_tau(rewards: ArrayLike, weights: ArrayLike) -> float:
    """Return Kendall's tau-b between an objective's weight and its reward, averaged over the objectives.

    1: more weight is always more reward. A reward that does not move with its weight at all counts 0. Nan where an
    objective has the same weight at every point, so that there is nothing to steer.

    Args:
        rewards: mean rewards, (points, objectives).
        weights: the points' weights, (points, objectives).
    """
    values, asked = as_points(rewards), as_points(weights)
    # tau-b is the correlation of the signs of differences over all pairs of points
    moved = np.sign(values[:, None] - values[None])
    turned = np.sign(asked[:, None] - asked[None])
    together, moves, turns = ((a * b).sum(axis=(0, 1)) for a, b in ((moved, turned), (moved, moved), (turned, turned)))
    if (turns == 0).any():
        return float("nan")
    return float(np.where(moves == 0, 0.0, together / np.sqrt(np.maximum(moves, 1) * turns)).mean())
