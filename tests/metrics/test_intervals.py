import numpy as np
import pytest

from sipo_pl.metrics.intervals import mean_difference, mean_interval, t_quantile

PROMPTS = [20, 30, 100]
TRIALS = 10_000  # one standard error of a coverage is 0.2 points


def coverage(values: np.ndarray) -> float:
    """Return how often the interval of values with mean 0, (prompts, trials), holds 0."""
    found = mean_interval(values)
    return float(np.mean((found.low <= 0) & (found.high >= 0)))


@pytest.mark.parametrize("prompts", PROMPTS)
def test_means_are_covered_as_often_as_the_level_says(prompts: int) -> None:
    source = np.random.default_rng(1)
    assert coverage(source.normal(size=(prompts, TRIALS))) == pytest.approx(0.95, abs=0.015)
    assert coverage(source.exponential(size=(prompts, TRIALS)) - 1) == pytest.approx(0.95, abs=0.015)
    assert coverage(1 - source.exponential(size=(prompts, TRIALS))) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("prompts", PROMPTS)
def test_rewards_between_bounds_have_intervals_that_are_not_too_narrow(prompts: int) -> None:
    source = np.random.default_rng(3)
    # of flat laws without tails the intervals are a little wide: 96.7 % of 20 prompts
    assert 0.935 <= coverage(source.uniform(-1, 1, size=(prompts, TRIALS))) <= 0.975


@pytest.mark.parametrize("prompts", PROMPTS)
def test_paired_differences_are_covered_as_often_as_the_level_says(prompts: int) -> None:
    source = np.random.default_rng(2)
    shared = source.normal(0, 3, (prompts, TRIALS))
    for noise in (source.normal(size=shared.shape), source.exponential(size=shared.shape) - 1):
        found = mean_difference(shared, shared + 0.5 + noise)
        covered = (found.low <= 0.5) & (found.high >= 0.5)
        assert covered.mean() == pytest.approx(0.95, abs=0.015)


def test_the_interval_of_many_values_is_that_of_the_normal_law() -> None:
    values = np.random.default_rng(0).normal(size=(4000, 3, 2)) + 5
    found = mean_interval(values)
    error = 1.96 * values.std(axis=0) / np.sqrt(4000)
    assert found.estimate == pytest.approx(values.mean(axis=0))
    assert found.low == pytest.approx(values.mean(axis=0) - error, abs=0.001)
    assert found.high == pytest.approx(values.mean(axis=0) + error, abs=0.001)


def test_the_interval_of_symmetric_values_is_that_of_students_t() -> None:
    found = mean_interval(np.array([-2.0, -1.0, 0.0, 1.0, 2.0]))
    assert (found.low, found.estimate, found.high) == pytest.approx((-1.9632, 0, 1.9632), abs=1e-4)


def test_a_long_tail_moves_the_interval_towards_it() -> None:
    found = mean_interval(np.array([0.0] * 9 + [1.0]))
    assert found.high - found.estimate > 1.5 * (found.estimate - found.low)


def test_values_without_spread_have_no_width() -> None:
    found = mean_interval(np.full((7, 2), 0.1))  # whose computed mean is not 0.1
    assert (found.low == found.high).all()
    assert found.low == pytest.approx(np.array([0.1, 0.1]))
    assert tuple(mean_interval(np.array([3.0]))) == (3, 3, 3)
    assert np.isfinite(mean_interval(np.array([1.0, 1.0 + 1e-15, 1.0]))).all()


def test_two_values_tell_little() -> None:
    found = mean_interval(np.array([0.0, 1.0]))
    assert (found.low, found.high) == pytest.approx((0.5 - 6.3531, 0.5 + 6.3531), abs=1e-4)


def test_pairing_takes_out_what_prompts_share() -> None:
    hardness = np.random.default_rng(0).normal(size=100) * 10
    found = mean_difference(hardness, hardness + 0.5)
    assert (found.low, found.estimate, found.high) == pytest.approx((0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="not paired"):
        mean_difference(hardness, hardness[1:])
    with pytest.raises(ValueError, match="0 prompts"):
        mean_interval(np.empty((0, 2)))


def test_the_quantiles_are_those_of_the_tables() -> None:
    table = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 10: 2.228, 19: 2.093, 29: 2.045, 99: 1.984}
    assert {freedom: t_quantile(0.95, freedom) for freedom in table} == pytest.approx(table, abs=6e-4)
    assert t_quantile(0.99, 7) == pytest.approx(3.499, abs=6e-4)
    assert t_quantile(0.95, 100_000) == pytest.approx(1.96, abs=6e-4)
