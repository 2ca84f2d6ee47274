import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipo_pl.method.selection import (
    Candidate,
    Choice,
    better_of,
    minimum_margin,
    select_best_margin,
    select_pareto,
    survivors,
)

POLICIES = ["policy:a", "policy:b"]
RESPONSES = [{"policy:a": 1.0, "policy:b": -1.0, "soup": 0.0}, {"policy:a": -1.0, "policy:b": 1.0, "soup": 0.5}]


def rewards(a: float, b: float, soup: float = 9.0) -> dict[str, float]:
    return {"policy:a": a, "policy:b": b, "soup": soup}


@pytest.mark.parametrize(
    ("rewrite", "kept"),
    [
        (rewards(1, 1), "original"),  # as good under every policy
        (rewards(0, 1), "original"),
        (rewards(0, 0), "original"),
        (rewards(1.01, 0), "rewrite"),  # better under one is enough
        (rewards(2, 2), "rewrite"),
    ],
)
def test_a_rewrite_goes_on_unless_the_original_is_as_good_under_every_policy(
    rewrite: dict[str, float], kept: str
) -> None:
    assert better_of(rewards(1, 1, soup=0), rewrite, POLICIES) == kept  # soups have no say


def test_the_margin_is_the_smallest_over_responses_and_models() -> None:
    assert minimum_margin(rewards(3, 4, 2), RESPONSES) == 1.5  # the soup over response 1
    assert minimum_margin(rewards(3, 4, 9), RESPONSES) == 2.0  # policy a over response 0
    assert minimum_margin(rewards(3, -4, 9), RESPONSES) == -5.0


def test_a_survivor_is_strictly_better_everywhere() -> None:
    candidates = [
        Candidate("equal in one", rewards(1, 2), 0),
        Candidate("alive", rewards(1.001, 1.001, 0.501), 1),
        Candidate("soup fails", rewards(2, 2, 0.5), 2),
        Candidate("beats one response only", rewards(0, 2), 3),
    ]
    assert [one.sample_id for one in survivors(candidates, RESPONSES)] == ["alive"]


def test_the_highest_unweighted_sum_of_the_survivors_is_kept() -> None:
    dead = Candidate("dead", rewards(100, 1), 0)
    low, high = Candidate("low", rewards(2, 2, 1), 1), Candidate("high", rewards(4, 1.5, 1), 2)
    assert select_pareto([dead, low, high], RESPONSES) == Choice(high, 0.5)
    assert select_pareto([dead], RESPONSES) is None
    assert select_pareto([], RESPONSES) is None


def test_equal_sums_keep_the_earlier() -> None:
    late, early = Candidate("late", rewards(2, 4), 1), Candidate("early", rewards(4, 2), 0)
    choice = select_pareto([late, early], RESPONSES)
    assert choice is not None
    assert choice.candidate.sample_id == "early"


def test_best_margin_takes_the_best_of_the_dead_too() -> None:
    far, near = Candidate("far", rewards(50, -1), 0), Candidate("near", rewards(0.9, 0.9), 1)
    choice = select_best_margin([far, near], RESPONSES)
    assert choice is not None
    assert choice.candidate.sample_id == "near"
    assert choice.margin == pytest.approx(-0.1)
    assert select_best_margin([], RESPONSES) is None


def test_best_margin_keeps_the_earlier_of_equals() -> None:
    late, early = Candidate("late", rewards(2, 3), 5), Candidate("early", rewards(3, 2), 4)
    choice = select_best_margin([late, early], RESPONSES)
    assert choice is not None
    assert choice.candidate.sample_id == "early"


SMALL = st.integers(-2, 3).map(float)  # so that ties are common
REWARDS = st.fixed_dictionaries(dict.fromkeys(rewards(0, 0), SMALL))


@given(st.lists(REWARDS, max_size=6), st.tuples(REWARDS, REWARDS), st.data())
def test_neither_choice_depends_on_the_order_of_its_inputs(
    scored: list[dict[str, float]], responses: tuple[dict[str, float], dict[str, float]], data: st.DataObject
) -> None:
    candidates = [Candidate(f"s{order}", one, order) for order, one in enumerate(scored)]
    shuffled = data.draw(st.permutations(candidates))
    for select in (select_pareto, select_best_margin):
        assert select(candidates, responses) == select(shuffled, responses[::-1])


@given(st.lists(REWARDS, max_size=6), st.tuples(REWARDS, REWARDS))
def test_the_choice_agrees_with_the_definition(
    scored: list[dict[str, float]], responses: tuple[dict[str, float], dict[str, float]]
) -> None:
    candidates = [Candidate(f"s{order}", one, order) for order, one in enumerate(scored)]
    alive = [
        one
        for one in candidates
        if all(one.rewards[name] > response[name] for response in responses for name in response)
    ]
    choice = select_pareto(candidates, responses)
    assert (choice is None) == (not alive)
    if choice is not None:
        best = max(sum(one.rewards.values()) for one in alive)
        assert choice.candidate == next(one for one in alive if sum(one.rewards.values()) == best)
        assert choice.margin > 0
