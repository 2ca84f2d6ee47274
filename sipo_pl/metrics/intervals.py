"""Intervals of means over prompts that hold their level with few prompts and skewed rewards.

Student's t interval, corrected for the skewness of the values (Hall, 1992, On the removal of skewness by
transformation). The intervals speak of other prompts only, not of another training seed.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95  # how often an interval holds the true value
FEWEST = 10  # prompts; the interval of a hypervolume of fewer holds the true value less often


class Interval(NamedTuple):
    """An estimate with the ends of its interval; numbers, or arrays of one shape."""

    estimate: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def mean_interval(values: NDArray[np.float64]) -> Interval:
    """Return the mean over prompts with its interval.

    One prompt tells nothing of others: both ends are then the value itself, as where all values are equal.

    Args:
        values: one number or array per prompt, (prompts, ...).

    Returns:
        Arrays of shape (...).

    Raises:
        ValueError: no prompts.
    """
    count = len(values)
    if count == 0:
        raise ValueError("no interval: 0 prompts")
    mean = values.mean(axis=0)
    deviation = values - mean
    # equal values differ from their mean by rounding, which is no spread
    deviation = np.where(values.min(axis=0) == values.max(axis=0), 0.0, deviation)
    spread = np.sqrt((deviation**2).mean(axis=0))
    standardised = deviation / np.where(spread > 0, spread, 1.0)
    skewness = (standardised**3).mean(axis=0)
    error, steps = spread / math.sqrt(count), normal_steps(count)
    low, high = (mean - error * _without_skewness(end, skewness / math.sqrt(count)) for end in (steps, -steps))
    return Interval(mean, low, high)


def mean_difference(before: NDArray[np.float64], after: NDArray[np.float64]) -> Interval:
    """Return the mean of ``after - before``, row by row of the same prompts, with its interval.

    Args:
        before: (prompts, ...).
        after: the same prompts in the same order, same shape.

    Raises:
        ValueError: the shapes differ, or no prompts.
    """
    if before.shape != after.shape:
        raise ValueError(f"not paired: shapes {before.shape} and {after.shape}")
    return mean_interval(after - before)


def told(change: Mapping[str, float], prompts: int) -> int:
    """Return what an interval of a change lets one say: 1 that it is a rise, -1 that it is a fall, 0 neither.

    Args:
        change: its ends, low and high.
        prompts: how many it is of; fewer than `FEWEST` tell nothing.
    """
    return 0 if prompts < FEWEST else int(change["low"] > 0) - int(change["high"] < 0)


def normal_steps(count: int) -> float:
    """Return how many standard errors an interval of `count` values reaches to each side.

    The standard error is that without Bessel's correction, `std / sqrt(count)`, which is also the spread of bootstrap
    means. 0 for one value, whose spread is 0 too.
    """
    return math.sqrt(count / (count - 1)) * t_quantile(LEVEL, count - 1) if count > 1 else 0.0


@lru_cache
def t_quantile(share: float, freedom: int) -> float:
    """Return t such that Student's law has `share` of its mass between -t and t.

    Bisection over the finite sums of the law for whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4).

    Args:
        share: between 0 and 1.
        freedom: degrees of freedom, at least 1.
    """
    odd = freedom % 2
    index = np.arange(1, (freedom - odd) // 2)
    ratios = 2 * index / (2 * index + 1) if odd else (2 * index - 1) / (2 * index)
    factors = np.cumprod([1.0, *ratios]) if freedom > 1 else np.zeros(0)
    powers = 2 * np.arange(len(factors)) + odd
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        mass = math.sin(angle) * float((factors * math.cos(angle) ** powers).sum())
        if odd:
            mass = 2 / math.pi * (angle + mass)
        low, high = (angle, high) if mass < share else (low, angle)
    return math.sqrt(freedom) * math.tan(low)


def _without_skewness(steps: float, skewness: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return t with g(t) = `steps`, where g takes the skewness out of the studentised mean t.

    g(t) = t + a t² + a² t³ / 3 + a / 2 with a = `skewness` / 3, which is `skewness` of the values / (3 √prompts). g
    rises everywhere, so there is one t for each skewness.
    """
    a = skewness / 3
    moved = steps - a / 2
    root = np.cbrt(1 + 3 * a * moved)
    return 3 * moved / (root**2 + root + 1)  # (root - 1) / a, written without a division by a
