from collections.abc import Mapping

import numpy as np
import pytest

from sipo_pl.metrics.bootstrap import (
    joint_bootstrap,
    mean_difference,
    mean_interval,
    paired_bootstrap,
    statistic_interval,
)
from sipo_pl.metrics.hypervolume import hypervolume


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_mean_interval_is_that_of_the_normal_law() -> None:
    values = np.random.default_rng(0).normal(size=(400, 3, 2)) + 5
    found = mean_interval(values, rng())
    error = 1.96 * values.std(axis=0) / 20
    assert found.estimate == pytest.approx(values.mean(axis=0))
    assert found.low == pytest.approx(values.mean(axis=0) - error, abs=0.02)
    assert found.high == pytest.approx(values.mean(axis=0) + error, abs=0.02)


def test_pairing_takes_out_what_prompts_share() -> None:
    hardness = np.random.default_rng(0).normal(size=100) * 10
    found = mean_difference(hardness, hardness + 0.5, rng())
    assert (found.low, found.estimate, found.high) == pytest.approx((0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="not paired"):
        mean_difference(hardness, hardness[1:], rng())


def test_paired_bootstrap_of_hypervolume() -> None:
    noise = np.random.default_rng(0).normal(size=(60, 1, 2))
    before = noise + np.array([[3.0, 1.0], [1.0, 3.0]])
    after = before + 0.5

    def volume(means: np.ndarray) -> float:
        return hypervolume(means, [-5.0, -5.0])

    found = paired_bootstrap(before, after, volume, rng(), resamples=300)
    assert found.before.estimate == volume(before.mean(axis=0))
    assert found.after.estimate == volume(after.mean(axis=0))
    assert found.change.estimate == found.after.estimate - found.before.estimate
    assert found.before.low < found.before.estimate < found.before.high
    assert found.change.low > 0
    # The same draws serve both sides: the change is far narrower than either side.
    assert found.change.high - found.change.low < 0.3 * (found.before.high - found.before.low)
    alone = statistic_interval(before, volume, rng(), resamples=300)
    assert alone == found.before


def test_no_change_is_no_change() -> None:
    values = np.random.default_rng(0).normal(size=(20, 2, 2))
    found = paired_bootstrap(values, values, lambda means: float(means.max()), rng(), resamples=50)
    assert tuple(found.change) == (0, 0, 0)


def test_a_mean_is_covered_as_often_as_the_level_says() -> None:
    draws = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        found = mean_interval(draws.normal(size=50), draws, resamples=200)
        covered += bool(found.low <= 0 <= found.high)
    assert 0.88 <= covered / 200 <= 0.99


def test_the_seed_decides() -> None:
    values = np.random.default_rng(0).normal(size=(30, 2))
    assert np.array_equal(mean_interval(values, rng()), mean_interval(values, rng()))
    assert not np.array_equal(mean_interval(values, rng()).low, mean_interval(values, np.random.default_rng(8)).low)


def test_refuses_what_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="0 prompts"):
        mean_interval(np.empty((0, 2)), rng())
    with pytest.raises(ValueError, match="not paired"):
        paired_bootstrap(np.ones((3, 1, 2)), np.ones((2, 1, 2)), lambda means: 0.0, rng())


def volumes(means: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.array([hypervolume(points, [0.0, 0.0]), points.mean()]) for name, points in means.items()}


def grand_means(means: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.array([points.mean()]) for name, points in means.items()}


def test_the_joint_bootstrap_of_two_is_the_paired_one() -> None:
    source = np.random.default_rng(1)
    before, after = source.normal(1.0, 1.0, (30, 3, 2)), source.normal(1.2, 1.0, (30, 2, 2))
    found = joint_bootstrap({"a": before, "b": after}, volumes, "a", np.random.default_rng(5), resamples=100)
    paired = paired_bootstrap(before, after, lambda x: volumes({"": x})[""][0], np.random.default_rng(5), resamples=100)
    for mine, theirs in ((found["a"][0], paired.before), (found["b"][0], paired.after), (found["b"][1], paired.change)):
        assert [end[0] for end in mine] == pytest.approx([float(end) for end in theirs])
    assert not any(end.any() for end in found["a"][1])


def test_paired_differences_are_covered_as_often_as_the_level_says() -> None:
    source, covered, trials = np.random.default_rng(2), 0, 300
    for _ in range(trials):
        shared = source.normal(0.0, 3.0, (50, 1, 1))
        a, b = (shared + shift + source.normal(0.0, 1.0, (50, 2, 2)) for shift in (3.0, 3.5))
        means = joint_bootstrap({"a": a, "b": b}, grand_means, "a", source, resamples=200)["b"][1]
        covered += means.low[0] <= 0.5 <= means.high[0]
    assert 0.91 <= covered / trials <= 0.98  # 0.95, less what percentile intervals of 50 prompts lack


def test_methods_of_different_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="not paired"):
        joint_bootstrap({"a": np.ones((3, 1, 2)), "b": np.ones((2, 1, 2))}, volumes, "a", np.random.default_rng(0))
