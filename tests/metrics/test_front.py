import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sipo_pl.metrics.front import pareto_front

# Few values, so that ties and duplicates are common.
clouds = arrays(
    np.float64, array_shapes(min_dims=2, max_dims=2, max_side=9).filter(lambda s: s[1] <= 5), elements=st.integers(0, 3)
)


def dominated(points: np.ndarray, index: int) -> bool:
    return any((other >= points[index]).all() and (other > points[index]).any() for other in points)


@settings(deadline=None)
@given(clouds)
def test_equals_the_definition(points: np.ndarray) -> None:
    expected = [not dominated(points, index) for index in range(len(points))]
    assert pareto_front(points).tolist() == expected


def test_duplicates_on_the_front_are_all_kept() -> None:
    assert pareto_front([[1, 2], [1, 2], [0, 2], [2, 0]]).tolist() == [True, True, False, True]


def test_no_points_have_an_empty_front() -> None:
    assert pareto_front(np.empty((0, 2))).shape == (0,)


@pytest.mark.parametrize("points", [[1.0, 2.0], [[1.0, float("nan")]], np.empty((2, 0))])
def test_refuses_what_is_no_finite_matrix(points) -> None:
    with pytest.raises(ValueError, match="points"):
        pareto_front(points)
