"""Bootstrap intervals over prompts, paired where two measurements share them (Efron and Tibshirani, 1993, chapter 13).

Percentile intervals: prompts are drawn with replacement, the same draw for all that is compared. They speak of other
prompts only, not of another training seed.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95  # share of the draws inside an interval


class Interval(NamedTuple):
    """An estimate with the ends of its interval; numbers, or arrays of one shape."""

    estimate: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


class Comparison(NamedTuple):
    """A statistic before and after, and its change, each with its interval over the same draws."""

    before: Interval
    after: Interval
    change: Interval


def mean_interval(values: NDArray[np.float64], rng: np.random.Generator, *, resamples: int = 2000) -> Interval:
    """Return the mean over prompts with its bootstrap interval.

    Args:
        values: one number or array per prompt, (prompts, ...).
        rng: source of the draws.
        resamples: number of draws.

    Returns:
        Arrays of shape (...).
    """
    drawn = np.stack([values[rows].mean(axis=0) for rows in _draws(len(values), resamples, rng)])
    return _interval(values.mean(axis=0), drawn)


def mean_difference(
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
) -> Interval:
    """Return the mean of ``after - before``, row by row of the same prompts, with its interval.

    Args:
        before: (prompts, ...).
        after: the same prompts in the same order, same shape.
        rng: source of the draws.
        resamples: number of draws.
    """
    if before.shape != after.shape:
        raise ValueError(f"not paired: shapes {before.shape} and {after.shape}")
    return mean_interval(after - before, rng, resamples=resamples)


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
    return _interval(np.asarray(statistic(values.mean(axis=0))), np.asarray(drawn))


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
        _interval(estimates[0], drawn[:, 0]),
        _interval(estimates[1], drawn[:, 1]),
        _interval(estimates[1] - estimates[0], drawn[:, 1] - drawn[:, 0]),
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

    estimates = over(slice(None))
    found = [over(rows) for rows in _draws(counts.pop(), resamples, rng)]
    drawn = {name: np.stack([one[name] for one in found]) for name in rewards}
    return {
        name: (
            _interval(estimates[name], drawn[name]),
            _interval(estimates[name] - estimates[against], drawn[name] - drawn[against]),
        )
        for name in rewards
    }


def _draws(prompts: int, resamples: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    if prompts == 0 or resamples < 1:
        raise ValueError(f"nothing to draw: {prompts} prompts, {resamples} resamples")
    return (rng.integers(prompts, size=prompts) for _ in range(resamples))


def _interval(estimate: NDArray[np.float64], drawn: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Interval(estimate, low, high)
