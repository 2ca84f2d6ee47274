import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sipo_pl.metrics.front import pareto_front
from sipo_pl.metrics.hypervolume import calibrated_frame, fixed_frame, hypervolume

clouds = st.tuples(st.integers(1, 6), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.floats(-1, 2, width=32))
)


def by_inclusion_exclusion(points: np.ndarray, reference: np.ndarray) -> float:
    """Volume of a union of boxes: single boxes, minus pairs' intersections, plus triples', ..."""
    volume = 0.0
    for size in range(1, len(points) + 1):
        for chosen in itertools.combinations(points, size):
            sides = np.clip(np.min(chosen, axis=0) - reference, 0, None)
            volume -= (-1) ** size * sides.prod()
    return volume


@settings(deadline=None)
@given(clouds)
def test_equals_inclusion_and_exclusion(points: np.ndarray) -> None:
    reference = np.zeros(points.shape[1])
    assert hypervolume(points, reference) == pytest.approx(by_inclusion_exclusion(points, reference), abs=1e-9)


@settings(deadline=None)
@given(clouds)
def test_only_the_front_counts(points: np.ndarray) -> None:
    reference = np.full(points.shape[1], -1.5)
    assert hypervolume(points[pareto_front(points)], reference) == pytest.approx(hypervolume(points, reference))


def test_equals_the_count_of_random_darts_in_five_objectives() -> None:
    rng = np.random.default_rng(0)
    points, darts = rng.random((7, 5)), rng.random((200_000, 5))
    hit = (points[:, None] >= darts).all(axis=2).any(axis=0).mean()
    assert hypervolume(points, np.zeros(5)) == pytest.approx(hit, abs=5e-3)


def test_points_below_the_reference_contribute_nothing() -> None:
    assert hypervolume([[2, 1], [-5, 9], [9, -5], [3, 0]], [0, 0]) == 2.0
    assert hypervolume([[-1, -1]], [0, 0]) == 0.0
    assert hypervolume(np.empty((0, 2)), [0, 0]) == 0.0


def test_scale_divides_by_the_product_of_units() -> None:
    assert hypervolume([[3, 5], [2, 6]], [1, 1], scale=[2, 4]) == pytest.approx(
        hypervolume([[3, 5], [2, 6]], [1, 1]) / 8
    )


def test_refuses_a_reference_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="expected 2 finite numbers"):
        hypervolume([[1, 2]], [0])
    with pytest.raises(ValueError, match="expected 2 finite numbers"):
        hypervolume([[1, 2]], [0, float("-inf")])


def test_frame_of_base_and_first_alignment() -> None:
    frame = fixed_frame([[1.0, 5.0, 7.0], [3.0, 4.0, 7.0]])
    assert frame.scale.tolist() == [2.0, 1.0, 1.0]  # a range of 0 counts as 1
    assert frame.reference == pytest.approx([0.8, 3.9, 6.9])


def test_a_calibrated_frame_knows_its_texts_only() -> None:
    frame = calibrated_frame([[1.0, 5.0], [3.0, 5.0]], below=1.5)
    assert frame.scale.tolist() == [1.0, 1.0]  # a standard deviation of 1, and of 0, which is no unit
    assert frame.reference.tolist() == [0.5, 3.5]
