import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sipo_pl.metrics.spread import spread
from sipo_pl.metrics.steering import inner_product, kendall_tau

small = st.integers(-2, 2).map(float)
pairs = st.tuples(st.integers(2, 6), st.integers(2, 4)).flatmap(
    lambda shape: st.tuples(arrays(np.float64, shape, elements=small), arrays(np.float64, shape, elements=small))
)


def tau_b(x: np.ndarray, y: np.ndarray) -> float:
    """Kendall's tau-b by counting pairs (Kendall, 1945)."""
    concordant = discordant = only_x = only_y = 0
    for i, j in itertools.combinations(range(len(x)), 2):
        product = (x[i] - x[j]) * (y[i] - y[j])
        concordant += product > 0
        discordant += product < 0
        only_x += product == 0 and x[i] != x[j]
        only_y += product == 0 and y[i] != y[j]
    decided = concordant + discordant
    if decided + only_y == 0:
        return math.nan
    return (concordant - discordant) / math.sqrt((decided + only_x) * (decided + only_y)) if decided + only_x else 0.0


@settings(deadline=None)
@given(pairs)
def test_tau_equals_counting_pairs(found: tuple[np.ndarray, np.ndarray]) -> None:
    rewards, weights = found
    expected = np.mean([tau_b(x, y) for x, y in zip(rewards.T, weights.T, strict=True)])
    assert kendall_tau(rewards, weights) == pytest.approx(expected, nan_ok=True)


def test_tau_at_its_ends() -> None:
    weights = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    assert kendall_tau(weights**2, weights) == pytest.approx(1.0)
    assert kendall_tau(-weights, weights) == pytest.approx(-1.0)
    assert kendall_tau(np.ones((3, 2)), weights) == 0.0  # a knob without effect
    assert math.isnan(kendall_tau(np.ones((1, 2)), weights[:1]))


@settings(deadline=None)
@given(pairs)
def test_inner_product_equals_the_sum(found: tuple[np.ndarray, np.ndarray]) -> None:
    rewards, weights = found
    expected = sum(w * r for row in zip(weights, rewards, strict=True) for w, r in zip(*row, strict=True))
    assert inner_product(rewards, weights) == pytest.approx(expected / len(rewards))


def test_spread_is_the_diagonal_of_the_front() -> None:
    points = np.array([[0.0, 4.0], [3.0, 0.0], [-9.0, -9.0]])  # the last is dominated
    assert spread(points, [1.0, 1.0]) == pytest.approx(5.0)
    assert spread(points, [3.0, 4.0]) == pytest.approx(math.sqrt(2))
    assert spread(points[:1], [1.0, 1.0]) == 0.0
