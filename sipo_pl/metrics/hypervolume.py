"""Hypervolume of a front, and the frame in which fronts of one run are compared."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sipo_pl.metrics.front import as_points

MARGIN = 0.1


class Frame(NamedTuple):
    """Where hypervolume is measured from, and in which unit of each objective.

    Args:
        reference: reference point in rewards, (objectives,)
        scale: unit of each objective in rewards, positive, (objectives,)
    """

    reference: NDArray[np.float64]
    scale: NDArray[np.float64]


def fixed_frame(points: ArrayLike) -> Frame:
    """Return the frame that `points`, and nothing measured later, fix.

    Rule: with the mean rewards of the base and of the first alignment as `points`, the scale of an objective is its
    range over them (1 where the range is 0), and the reference point lies `MARGIN` scales below the worst of them, per
    objective. Those points thus lie between 0.1 and 1.1 on each axis; whatever comes later cannot move the ruler.

    Args:
        points: mean rewards, larger is better, (points, objectives), at least one point.
    """
    values = as_points(points)
    scale = values.max(axis=0) - values.min(axis=0)
    scale[scale == 0] = 1.0
    return Frame(values.min(axis=0) - MARGIN * scale, scale)


def calibrated_frame(rewards: ArrayLike, below: float = 2.0) -> Frame:
    """Return the frame that texts of a calibration split fix before any method runs.

    The scale of an objective is the standard deviation of its reward over the texts (1 where all are equal), and the
    reference point lies `below` scales under their mean.

    Args:
        rewards: of single texts, larger is better, (texts, objectives), at least one text.
        below: distance of the reference point under the mean, in scales.
    """
    values = as_points(rewards)
    scale = values.std(axis=0)
    scale[scale == 0] = 1.0
    return Frame(values.mean(axis=0) - below * scale, scale)


def hypervolume(points: ArrayLike, reference: ArrayLike, scale: ArrayLike | None = None) -> float:
    """Return the exact volume that `points` dominate above `reference`, where larger is better.

    Points that are not above the reference in every objective contribute nothing; no points have volume 0.

    Args:
        points: finite numbers, (points, objectives), any number of objectives.
        reference: reference point, (objectives,).
        scale: unit of each objective, (objectives,); the volume is divided by their product.

    Raises:
        ValueError: shapes that do not fit, or numbers that are not finite.
    """
    from moocore import hypervolume as exact_hypervolume

    values, origin = as_points(points), np.asarray(reference, dtype=np.float64)
    if origin.shape != values.shape[1:] or not np.isfinite(origin).all():
        raise ValueError(f"reference: expected {values.shape[1]} finite numbers, found {origin}")
    if scale is not None:
        values, origin = values / np.asarray(scale, dtype=np.float64), origin / np.asarray(scale, dtype=np.float64)
    values = values[(values > origin).all(axis=1)]
    return float(exact_hypervolume(values, ref=origin, maximise=True)) if len(values) else 0.0
