import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sipo_pl.metrics.union import igd_plus, union_front, union_share


def clouds(count: int) -> st.SearchStrategy[list[np.ndarray]]:
    """Return several point sets of one number of objectives, on a grid, so that points repeat."""
    values = st.integers(-3, 3).map(float)
    return st.integers(2, 4).flatmap(
        lambda n: st.tuples(
            *(st.integers(1, 5).flatmap(lambda k: arrays(np.float64, (k, n), elements=values)) for _ in range(count))
        ).map(list)
    )


def dominated(point: np.ndarray, points: np.ndarray) -> bool:
    return any((other >= point).all() and (other > point).any() for other in points)


@settings(deadline=None)
@given(clouds(3))
def test_the_union_is_what_no_point_of_any_method_dominates(fronts: list[np.ndarray]) -> None:
    everything = np.concatenate(fronts)
    by_definition = {tuple(point) for point in everything if not dominated(point, everything)}
    assert {tuple(point) for point in union_front(fronts)} == by_definition


@settings(deadline=None)
@given(clouds(2), st.floats(0.5, 4))
def test_igd_plus_is_the_mean_of_the_least_shortfalls(fronts: list[np.ndarray], unit: float) -> None:
    union, points = union_front(fronts), fronts[0]
    shortfalls = []
    for target in union:
        shortfalls.append(min(sum(max(t - p, 0) ** 2 for t, p in zip(target, x, strict=True)) ** 0.5 for x in points))
    scale = np.full(points.shape[1], unit)
    assert igd_plus(points, union, scale) == pytest.approx(float(np.mean(shortfalls)) / unit, abs=1e-9)


@settings(deadline=None)
@given(clouds(2))
def test_shares_count_the_union_points_that_a_method_reaches(fronts: list[np.ndarray]) -> None:
    union = union_front(fronts)
    for points in fronts:
        reached = sum(any(tuple(target) == tuple(x) for x in points) for target in union)
        assert union_share(points, union) == pytest.approx(reached / len(union))
    assert sum(union_share(points, union) for points in fronts) >= 1 - 1e-12


def test_numbers_by_hand() -> None:
    mine, theirs = np.array([[0.0, 2.0], [1.0, 0.0]]), np.array([[1.0, 1.0], [0.0, 2.0]])
    union = union_front([mine, theirs])
    assert union.tolist() == [[0.0, 2.0], [1.0, 1.0]]
    assert union_share(mine, union) == 0.5
    assert union_share(theirs, union) == 1.0
    assert igd_plus(mine, union, [1.0, 2.0]) == pytest.approx(0.25)  # (1, 1) lies half a unit above (1, 0)
    assert igd_plus(theirs, union, [1.0, 2.0]) == 0.0
