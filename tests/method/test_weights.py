import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipo_pl.messages.errors import UsageError
from sipo_pl.method.weights import WeightPlan, check_point, corners, interior_grid, parse_point, point_name

TWO = ["helpful", "harmless"]
THREE = ["a", "b", "c"]


@pytest.mark.parametrize(
    "text", ["0.7,0.3", " 0.7 , 0.3 ", "helpful=0.7,harmless=0.3", "harmless = .3, helpful = 7e-1"]
)
def test_one_point_has_many_spellings(text: str) -> None:
    assert parse_point(text, TWO) == (0.7, 0.3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("helpfull=0.7,harmless=0.3", r"no objective 'helpfull'; did you mean 'helpful'\?"),
        ("helpful=0.7,helpful=0.3", "'helpful' appears twice"),
        ("helpful=1", "no weight for harmless"),
        ("helpful=0.7,0.3", "name every objective or none"),
        ("0.7", r"1 numbers for 2 objectives \['helpful', 'harmless'\]"),
        ("0.7,0.3,", "3 numbers for 2 objectives"),
        ("a,b", "not numbers"),
        ("", "1 numbers for 2"),
        ("0.7,0.4", "they sum to 1.1, not 1"),
        ("1.2,-0.2", r"each must lie in \[0, 1\]"),
        ("nan,1", r"each must lie in \[0, 1\]"),
        ("inf,0", r"each must lie in \[0, 1\]"),
    ],
)
def test_a_wrong_point_names_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_point(text, TWO)


def test_the_grid_of_two_objectives_is_the_papers() -> None:
    assert interior_grid(0.2, 2) == [(0.2, 0.8), (0.4, 0.6), (0.6, 0.4), (0.8, 0.2)]


@given(st.integers(2, 4), st.integers(2, 12))
def test_a_grid_holds_every_interior_point_once(n: int, divisions: int) -> None:
    if divisions < n:
        with pytest.raises(UsageError, match="must be a whole number"):
            interior_grid(1 / divisions, n)
        return
    points = interior_grid(1 / divisions, n)
    expected = {c for c in itertools.product(range(1, divisions), repeat=n) if sum(c) == divisions}
    assert {tuple(round(weight * divisions) for weight in point) for point in points} == expected
    assert len(points) == len(expected)
    for point in points:
        check_point(point)


@given(st.integers(2, 5), st.integers(2, 12))
def test_the_name_of_a_point_is_read_back_as_the_point(n: int, divisions: int) -> None:
    objectives = [f"o{i}" for i in range(n)]
    for point in interior_grid(1 / divisions, n) if divisions >= n else corners(n):
        assert parse_point(point_name(point), objectives) == pytest.approx(point, abs=1e-6)


@pytest.mark.parametrize("step", [0.3, 0.0, -0.2, 1.0, 0.6, float("nan"), float("inf")])
def test_a_grid_that_does_not_divide_one_is_refused(step: float) -> None:
    with pytest.raises(UsageError, match="weights grid"):
        interior_grid(step, 2)


def test_a_plan_joins_its_parts_without_repeats_first_weight_descending() -> None:
    plan = WeightPlan(grid=0.5, points=["0.5,0.5", "harmless=0.9,helpful=0.1"], corners=True)
    assert plan.resolve(TWO) == [(1.0, 0.0), (0.5, 0.5), (0.1, 0.9), (0.0, 1.0)]
    assert WeightPlan(corners=True).resolve(THREE) == [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]


def test_a_plan_without_a_weight_is_refused() -> None:
    with pytest.raises(UsageError, match="give a grid, points or corners"):
        WeightPlan().resolve(TWO)


def test_names_are_short() -> None:
    assert point_name((1.0, 0.0)) == "1,0"
    assert point_name((0.2, 0.8)) == "0.2,0.8"


def test_objectives_are_named_in_any_normal_form_of_unicode() -> None:
    assert parse_point("gro\u0308\u00dfe=0.7,b=0.3", ["gr\u00f6\u00dfe", "b"]) == (0.7, 0.3)
