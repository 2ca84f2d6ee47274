from collections.abc import Callable, Mapping

import numpy as np
import pytest

from sipo_pl.metrics.bootstrap import joint_bootstrap, paired_bootstrap, statistic_interval
from sipo_pl.metrics.hypervolume import hypervolume

Noise = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]  # noise around 0 of that shape


def normal(source: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return source.normal(size=shape)


def skewed(source: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return source.exponential(size=shape) - 1


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


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


def test_the_seed_decides() -> None:
    values = np.random.default_rng(0).normal(size=(30, 2, 2))
    found = [statistic_interval(values, np.max, np.random.default_rng(seed), resamples=50) for seed in (7, 7, 8)]
    assert found[0] == found[1]
    assert found[0].low != found[2].low


def test_refuses_what_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="0 prompts"):
        statistic_interval(np.empty((0, 2, 2)), np.max, rng())
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


@pytest.mark.parametrize("noise", [normal, skewed])
def test_changes_of_hypervolume_are_covered_as_often_as_the_level_says(noise: Noise) -> None:
    source, prompts, trials, shift = np.random.default_rng(2), 20, 1000, 0.3
    front = np.array([[3.0, 1.0], [2.2, 2.2], [1.0, 3.0]])
    shared = noise(source, (prompts, trials, 1, 2))
    before, after = (front + by + shared + 0.5 * noise(source, (prompts, trials, 3, 2)) for by in (0.0, shift))

    def areas(means: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the hypervolume over 0 of each simulated run."""
        return {name: staircase(points.reshape(trials, 3, 2)) for name, points in means.items()}

    rewards = {"before": before.reshape(prompts, -1, 2), "after": after.reshape(prompts, -1, 2)}
    change = joint_bootstrap(rewards, areas, "before", source, resamples=400)["after"][1]
    truth = staircase((front + shift)[None]) - staircase(front[None])
    # one standard error of the simulation is 0.7 points
    assert np.mean((change.low <= truth) & (truth <= change.high)) == pytest.approx(0.95, abs=0.015)


def staircase(points: np.ndarray) -> np.ndarray:
    """Return the hypervolume over 0 of fronts of two objectives, (fronts, points, 2), as (fronts,)."""
    order = np.argsort(-points[..., 0], axis=1)
    x, y = (np.take_along_axis(np.maximum(points[..., axis], 0), order, axis=1) for axis in (0, 1))
    return -(np.diff(x, axis=1, append=0) * np.maximum.accumulate(y, axis=1)).sum(axis=1)


def test_the_staircase_is_the_hypervolume() -> None:
    points = np.random.default_rng(0).normal(1, 1, (20, 4, 2))
    assert staircase(points) == pytest.approx([hypervolume(front, [0.0, 0.0]) for front in points])


def test_two_prompts_reach_as_far_as_their_draws() -> None:
    values = np.array([0.0, 1.0]).reshape(2, 1, 1)
    assert statistic_interval(values, np.max, rng(), resamples=100) == (0.5, 0.0, 1.0)
    assert statistic_interval(values[1:], np.max, rng(), resamples=100) == (1.0, 1.0, 1.0)


def test_methods_of_different_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="not paired"):
        joint_bootstrap({"a": np.ones((3, 1, 2)), "b": np.ones((2, 1, 2))}, volumes, "a", np.random.default_rng(0))
