"""The numbers of a comparison: plain JSON values, the same bytes for the same rows.

Intervals are 95 % intervals over prompts, as ``{"estimate", "low", "high"}``: of mean rewards by Student's t with a
correction for skewness, of all else by a bootstrap, whose draws of prompts serve all methods. A number that a method
has none of is null, such as how its knob steers where it has no knob.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sipo_pl.method.weights import point_name
from sipo_pl.metrics.bootstrap import joint_bootstrap
from sipo_pl.metrics.hypervolume import hypervolume
from sipo_pl.metrics.intervals import LEVEL, Interval, mean_difference, mean_interval
from sipo_pl.metrics.spread import spread
from sipo_pl.metrics.steering import inner_product, kendall_tau
from sipo_pl.metrics.union import igd_plus, union_front, union_share
from sipo_pl.recipe.methods import BASELINE
from sipo_pl.report.cells import weights_of
from sipo_pl.report.comparison.answers import Answers, Key, rewards_by_method
from sipo_pl.report.comparison.ruler import Ruler

STATISTICS = ("hypervolume", "igd_plus", "mip", "kendall_tau", "union_share", "spread")
SAME_LENGTH = 0.2  # of the longer of two answers
DIGITS = 8

Values = NDArray[np.float64]


def summarise(
    answers: Mapping[Key, Answers],
    objectives: Sequence[str],
    measure: Ruler,
    *,
    against: str,
    seed: int,
    resamples: int,
) -> dict[str, Any]:
    """Return what `metrics.json` says of methods and of their points.

    Args:
        answers: by method and point.
        objectives: names, in the recipe's order.
        measure: what all are measured with.
        against: the method that the others' statistics are compared with.
        seed: seed of the bootstrap.
        resamples: draws of the bootstrap.
    """
    rewards = rewards_by_method(answers)
    methods = list(rewards)
    weights = {name: [weights_of(point) for method, point in answers if method == name] for name in methods}

    def statistics(means: Mapping[str, Values]) -> dict[str, Values]:
        union = union_front(list(means.values()))
        return {name: _statistics(means[name], weights[name], union, measure) for name in means}

    rng = np.random.default_rng(seed)
    found = joint_bootstrap(rewards, statistics, against, rng, resamples=resamples)
    union = union_front([values.mean(axis=0) for values in rewards.values()])
    points = [_point(key, one, answers[BASELINE, ""], objectives, union) for key, one in answers.items()]
    return {
        "objectives": list(objectives),
        "prompts": len(next(iter(answers.values())).rewards),
        "against": against,
        "weights": [point_name(point) for point in measure.points],
        "bootstrap": {"resamples": resamples, "level": LEVEL, "seed": seed},
        "methods": [
            {
                "method": name,
                **_entries(found[name][0], ""),
                **_entries(found[name][1], "_gain"),
                **_means([one for (method, _), one in answers.items() if method == name]),
            }
            for name in methods
        ],
        "points": points,
    }


def _statistics(means: Values, weights: Sequence[tuple[float, ...]], union: Values, ruler: Ruler) -> Values:
    """Return the numbers of `STATISTICS` of a method's mean rewards, (points, objectives)."""
    reference, scale = ruler.frame
    knob = all(weights)
    # one answer for all weights is the answer at every weight
    asked = np.array(weights if knob else ruler.points)
    given = (means if knob else np.repeat(means, len(asked), axis=0)) - ruler.mean
    return np.array(
        [
            hypervolume(means, reference, scale),
            igd_plus(means, union, scale),
            inner_product(given / scale, asked),
            kendall_tau(means, asked) if knob else math.nan,
            union_share(means, union),
            spread(means, scale) if knob else math.nan,
        ]
    )


def _entries(interval: Interval, suffix: str) -> dict[str, Any]:
    return {f"{name}{suffix}": _entry(*ends) for name, ends in zip(STATISTICS, np.stack(interval, -1), strict=True)}


def _means(points: Sequence[Answers]) -> dict[str, Any]:
    """Return means over a method's points of what stands beside its statistics."""
    wins = [one.wins.mean() for one in points if one.wins is not None]
    return {
        "words": _round(np.mean([one.words.mean() for one in points])),
        "finished": _round(np.mean([one.finished for one in points])),
        "collapsed": _round(np.mean([one.collapsed for one in points])),
        "kl": _round(np.mean([one.kl.mean() for one in points])),
        "win_rate": _round(np.mean(wins)) if wins else None,
    }


def _point(
    key: Key,
    one: Answers,
    baseline: Answers,
    objectives: Sequence[str],
    union: Values,
) -> dict[str, Any]:
    def entries(interval: Interval) -> dict[str, Any]:
        return {name: _entry(*ends) for name, ends in zip(objectives, np.stack(interval, -1), strict=True)}

    def means(rows: NDArray[np.bool_]) -> dict[str, Any] | None:
        if not rows.any():
            return None
        return entries(mean_interval(one.rewards[rows]))

    alike = np.abs(one.words - baseline.words) <= SAME_LENGTH * np.maximum(one.words, baseline.words)
    return {
        "method": key[0],
        "point": key[1],
        "mean": means(np.ones_like(alike)),
        "gain": entries(mean_difference(baseline.rewards, one.rewards)),
        "length_matched": means(alike),
        "length_matched_prompts": int(alike.sum()),
        **_means([one]),
        "on_union_front": bool((union == one.rewards.mean(axis=0)).all(axis=1).any()),
    }


def sensitivity(
    answers: Mapping[Key, Answers], calibration: Mapping[str, Mapping[str, Any]], below: float
) -> list[dict[str, Any]]:
    """Return every method's hypervolume and rank under other units and reference points than the fixed ones.

    Args:
        answers: by method and point.
        calibration: objective -> what `calibrate` stored of it.
        below: the fixed distance of the reference point under the mean, in units.
    """
    stored = list(calibration.values())
    mean = np.array([one["mean"] for one in stored])
    deviation = np.array([one["scale"] for one in stored])
    quartiles = np.array([one["quantiles"]["0.75"] - one["quantiles"]["0.25"] for one in stored])
    means = {name: rewards.mean(axis=0) for name, rewards in rewards_by_method(answers).items()}
    units = {"standard deviation": deviation, "quartile range": np.where(quartiles > 0, quartiles, deviation)}
    rows = []
    for unit, scale in units.items():
        for factor in (0.5, 1.0, 2.0):
            reference = mean - factor * below * scale
            volumes = {name: hypervolume(points, reference, scale) for name, points in means.items()}
            for name, volume in volumes.items():
                rank = 1 + sum(other > volume for other in volumes.values())
                rule = {"unit": unit, "units_below_mean": factor * below}
                rows.append({**rule, "method": name, "hypervolume": _round(volume), "rank": rank})
    return rows


def _entry(estimate: Any, low: Any, high: Any) -> dict[str, float] | None:
    if math.isnan(estimate):
        return None
    return {"estimate": _round(estimate), "low": _round(low), "high": _round(high)}


def _round(value: Any) -> float:
    return float(f"{float(value):.{DIGITS}g}")
