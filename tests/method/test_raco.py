"""RACO's solver and step, against brute force and by hand."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sipo_pl.messages.errors import UsageError
from sipo_pl.method.divergences import ReverseKL
from sipo_pl.method.losses import DPOLW, RACO, LossContext, PairLogps, conflict_averse_point, raco_step

numbers = st.floats(-2, 2, width=32)
problems = st.tuples(st.integers(2, 4), st.integers(1, 5)).flatmap(
    lambda shape: st.tuples(
        st.lists(st.lists(numbers, min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]),
        st.lists(st.integers(0, 5), min_size=shape[0], max_size=shape[0]).filter(any),
        st.floats(0, 0.95),
    )
)
STEPS = {2: 400, 3: 60, 4: 24}  # of the grid on the simplex


def value(p: torch.Tensor, g: torch.Tensor, w: torch.Tensor, c: float) -> float:
    together, turned = w @ g, p @ g
    return float(turned @ together + c * together.norm() * turned.norm())


def grid(n: int) -> list[tuple[float, ...]]:
    steps = STEPS[n]
    counts = itertools.product(range(steps + 1), repeat=n - 1)
    return [tuple(k / steps for k in (*head, steps - sum(head))) for head in counts if sum(head) <= steps]


@settings(deadline=None, max_examples=60)
@given(problems)
def test_no_point_of_a_grid_is_better_than_the_solver(problem: tuple[list[list[float]], list[int], float]) -> None:
    rows, counts, c = problem
    g = torch.tensor(rows, dtype=torch.float64)
    w = torch.tensor(counts, dtype=torch.float64) / sum(counts)
    p = conflict_averse_point(g @ g.T, w.tolist(), c)
    assert sum(p) == pytest.approx(1.0)
    assert all(0 <= x <= 1 for x in p)
    points = torch.tensor(grid(len(p)), dtype=torch.float64)
    together = w @ g
    best = float((points @ g @ together + c * together.norm() * (points @ g).norm(dim=1)).min())
    found = value(torch.tensor(p, dtype=torch.float64), g, w, c)
    assert found <= best + 1e-6 * (1 + abs(best))


@pytest.mark.parametrize("objectives", [4, 6])
def test_large_opposed_gradients_leave_nothing_to_gain(objectives: int) -> None:
    """F(p) is at least min_i <g_i, g_0> + c |g_0| <g_i, u> for each u of length one; at the minimum both are equal."""
    generator = torch.Generator().manual_seed(objectives)
    for _ in range(300):
        g = torch.randn(objectives, 8, generator=generator, dtype=torch.float64)
        g[0] *= 30 + 70 * torch.rand((), generator=generator)
        g[1] = g[1] - g[0]
        w = torch.rand(objectives, generator=generator, dtype=torch.float64)
        w /= w.sum()
        c = float(0.95 * torch.rand((), generator=generator))
        p = torch.tensor(conflict_averse_point(g @ g.T, w.tolist(), c), dtype=torch.float64)
        together, turned = w @ g, p @ g
        bound = float((g @ together + c * together.norm() * (g @ turned) / turned.norm()).min())
        assert value(p, g, w, c) == pytest.approx(bound, rel=1e-6, abs=1e-6)


def test_more_objectives_than_it_has_faces_for_are_refused() -> None:
    names = tuple("abcdefghijklm")
    with pytest.raises(UsageError, match="at most 12 objectives, not 13"):
        RACO(",".join(["1", *"0" * 12])).check(LossContext(0.1, ReverseKL(), names, 0))


def test_equal_gradients_give_the_direction_of_dpo_lw() -> None:
    gradient = torch.tensor([3.0, -4.0])
    step = raco_step(gradient.expand(3, 2), [0.2, 0.3, 0.5], c=0.4)
    torch.testing.assert_close(step, 1.4 * gradient)


def test_orthogonal_gradients_by_hand() -> None:
    # by symmetry p is (1/2, 1/2), so that g_p is g_0, and the step is longer by c
    step = raco_step(torch.eye(2), [0.5, 0.5], c=0.4)
    torch.testing.assert_close(step, torch.tensor([0.7, 0.7]))
    # all of p goes to the first, whose gradient g_0 has least of: <g_1, g_0> = 0.2 against 0.8 |g_2|; clipped to w_1
    step = raco_step(torch.eye(2), [0.2, 0.8], c=0.0)
    torch.testing.assert_close(step, torch.tensor([0.2, 0.8]))
    step = raco_step(torch.eye(2), [0.2, 0.8], c=0.1)
    turned = 0.1 * math.hypot(0.2, 0.8)
    assert step[0].item() == pytest.approx(0.2 + turned, rel=1e-2)


def test_without_a_gradient_there_is_no_turn() -> None:
    assert raco_step(torch.zeros(2, 3), [0.5, 0.5], c=0.4).tolist() == [0.0, 0.0, 0.0]
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert raco_step(opposite, [0.5, 0.5], c=0.4).tolist() == [0.0, 0.0]


def test_its_number_is_that_of_dpo_lw_and_the_weighted_sum_of_the_objectives() -> None:
    signs = torch.tensor([[1.0, -1.0], [0.0, 1.0]])
    responses = ((1, 4), (3, 2), (2, 2), (2, 5))
    logps = PairLogps(*(torch.tensor([-a, -b], dtype=torch.float32) for a, b in responses), torch.tensor([5, 5]), signs)
    context = LossContext(0.1, ReverseKL(), ("a", "b"), 0)
    losses = RACO("0.3,0.7")(logps, context).losses
    torch.testing.assert_close(losses, DPOLW("0.3,0.7")(logps, context).losses)
    torch.testing.assert_close(losses, RACO("0.3,0.7").by_objective(logps, context) @ torch.tensor([0.3, 0.7]))
    wider = RACO("0.3,0.7", beta=0.2)(logps, context).losses
    torch.testing.assert_close(wider, DPOLW("0.3,0.7")(logps, context._replace(beta=0.2)).losses)


@pytest.mark.parametrize(("loss", "match"), [(RACO("1,0", c=1.0), "c: 1"), (RACO("1,0", beta=0.0), "beta: 0")])
def test_settings_out_of_range_are_refused(loss: RACO, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        loss.check(LossContext(0.1, ReverseKL(), ("a", "b"), 0))
