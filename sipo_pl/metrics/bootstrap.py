"""Bootstrap intervals over prompts, paired where two measurements share them (Efron and Tibshirani, 1993, chapter 13).

Prompts are drawn with replacement, the same draw for all that is compared. The ends are percentiles of the draws,
further out where prompts are few (Hesterberg, 2015, What teachers should know about the bootstrap): plain 95 %
percentiles are too narrow by the factor sqrt(1 - 1/prompts), and by Student's t against the normal law. The intervals
speak of other prompts only, not of another training seed. Means have intervals of their own, see `intervals`.
"""

from collections.abc import Callable, Iterator, Mapping
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sipo_pl.metrics.intervals import Interval, normal_steps


class Comparison(NamedTuple):
    """A statistic before and after, and its change, each with its interval over the same draws."""

    before: Interval
    after: Interval
    change: Interval


def statistic_interval(
    values: NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64]], float],
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
) -> Interval:
    """Return a statistic of the per-point means with its interval.

    Args:
        values: rewards, (prompts, points, objectives).
        statistic: maps mean rewards, (points, objectives), to a number, such as their hypervolume.
        rng: source of the draws.
        resamples: number of draws.
    """
    drawn = [statistic(values[rows].mean(axis=0)) for rows in _draws(len(values), resamples, rng)]
    return _interval(np.asarray(statistic(values.mean(axis=0))), np.asarray(drawn), len(values))


def paired_bootstrap(
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64]], float],
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
) -> Comparison:
    """Return a statistic of the per-point means before and after, and its change, with intervals.

    Each draw of prompts serves both sides, so what a prompt adds to both cancels in the change. The hypervolume of
    noisy means is biased upwards a little, on both sides alike.

    Args:
        before: rewards, (prompts, points, objectives).
        after: rewards of the same prompts in the same order, (prompts, points, objectives); the number of points may
            differ.
        statistic: maps mean rewards, (points, objectives), to a number.
        rng: source of the draws.
        resamples: number of draws.

    Raises:
        ValueError: different numbers of prompts, or none.
    """
    if len(before) != len(after):
        raise ValueError(f"not paired: {len(before)} and {len(after)} prompts")
    drawn = np.array(
        [
            (statistic(before[rows].mean(axis=0)), statistic(after[rows].mean(axis=0)))
            for rows in _draws(len(before), resamples, rng)
        ]
    )
    estimates = np.asarray(statistic(before.mean(axis=0))), np.asarray(statistic(after.mean(axis=0)))
    return Comparison(
        _interval(estimates[0], drawn[:, 0], len(before)),
        _interval(estimates[1], drawn[:, 1], len(before)),
        _interval(estimates[1] - estimates[0], drawn[:, 1] - drawn[:, 0], len(before)),
    )


def joint_bootstrap(
    rewards: Mapping[str, NDArray[np.float64]],
    statistics: Callable[[Mapping[str, NDArray[np.float64]]], Mapping[str, NDArray[np.float64]]],
    against: str,
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
) -> dict[str, tuple[Interval, Interval]]:
    """Return the statistics of several methods, and their paired differences from one of them, with intervals.

    Each draw of prompts serves all methods, so that a statistic may depend on them all, such as on their union's front.

    Args:
        rewards: method to rewards, (prompts, points, objectives), the same prompts in the same order; the number of
            points may differ.
        statistics: maps each method's mean rewards, (points, objectives), to its numbers, (statistics,).
        against: the method that the others are compared with.
        rng: source of the draws.
        resamples: number of draws.

    Returns:
        Method to its statistics and to their differences from those of `against`, arrays of shape (statistics,).

    Raises:
        ValueError: different numbers of prompts, or none.
    """
    counts = {len(values) for values in rewards.values()}
    if len(counts) != 1:
        raise ValueError(f"not paired: {sorted(counts)} prompts")

    def over(rows: NDArray[np.int64] | slice) -> Mapping[str, NDArray[np.float64]]:
        return statistics({name: values[rows].mean(axis=0) for name, values in rewards.items()})

    prompts, estimates = counts.pop(), over(slice(None))
    found = [over(rows) for rows in _draws(prompts, resamples, rng)]
    drawn = {name: np.stack([one[name] for one in found]) for name in rewards}
    return {
        name: (
            _interval(estimates[name], drawn[name], prompts),
            _interval(estimates[name] - estimates[against], drawn[name] - drawn[against], prompts),
        )
        for name in rewards
    }


def _draws(prompts: int, resamples: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    if prompts == 0 or resamples < 1:
        raise ValueError(f"nothing to draw: {prompts} prompts, {resamples} resamples")
    return (rng.integers(prompts, size=prompts) for _ in range(resamples))


def _interval(estimate: NDArray[np.float64], drawn: NDArray[np.float64], prompts: int) -> Interval:
    outside = NormalDist().cdf(-normal_steps(prompts))
    # of few draws the default rule takes ends that lie too far inside
    low, high = np.quantile(drawn, [outside, 1 - outside], axis=0, method="weibull")
    return Interval(estimate, low, high)
