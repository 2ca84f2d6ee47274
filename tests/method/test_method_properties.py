"""Identities of the method over random numbers: losses, divergences, decisions."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sipo_pl.method.divergences import Alpha, Divergence, ForwardKL, JensenShannon, ReverseKL
from sipo_pl.method.losses import dpo_loss, dpo_lw_loss, dpo_nll_loss, implicit_reward, modpo_loss
from sipo_pl.method.losses.base import LossKind
from sipo_pl.method.selection import Candidate, better_of, minimum_margin, select_pareto

DIVERGENCES = [ReverseKL(), ForwardKL(), JensenShannon(), Alpha(0.3), Alpha(0.9)]
LOG_TWO = torch.tensor(2.0).log()
every_divergence = pytest.mark.parametrize("divergence", DIVERGENCES, ids=str)
kinds = st.sampled_from(["sigmoid", "hinge"])
betas = st.floats(0.01, 2.0)
logps = st.floats(-30.0, -0.125, width=32)


@st.composite
def pairs(draw: Callable[..., Any]) -> list[Tensor]:
    """Draw log-probabilities of some pairs: policy and reference, chosen and rejected."""
    count = draw(st.integers(1, 4))
    return [torch.tensor(draw(st.lists(logps, min_size=count, max_size=count))) for _ in range(4)]


@every_divergence
@given(values=pairs(), beta=betas, alpha=st.floats(0.0, 2.0))
def test_a_policy_that_is_its_reference_loses_log_two(
    divergence: Divergence, values: list[Tensor], beta: float, alpha: float
) -> None:
    chosen, rejected = values[:2]
    same = (chosen, rejected, chosen, rejected)
    lengths = torch.full_like(chosen, 7.0)
    torch.testing.assert_close(dpo_loss(*same, beta, divergence).losses, LOG_TWO.expand_as(chosen))
    with_nll = dpo_nll_loss(*same, lengths, beta, alpha, divergence).losses
    torch.testing.assert_close(with_nll - alpha * -chosen / lengths, LOG_TWO.expand_as(chosen))


@every_divergence
@given(first=st.floats(-20.0, 20.0), step=st.floats(0.01, 5.0), beta=betas)
def test_the_reward_increases_with_the_log_ratio(
    divergence: Divergence, first: float, step: float, beta: float
) -> None:
    ratios = torch.tensor([first, first + step], dtype=torch.float64)
    lower, upper = implicit_reward(ratios, torch.zeros(2, dtype=torch.float64), beta, divergence)
    assert lower < upper


@every_divergence
@given(values=pairs(), beta=betas, kind=kinds, objectives=st.integers(2, 4), data=st.data())
def test_weighted_losses_at_a_corner_are_dpo(
    divergence: Divergence, values: list[Tensor], beta: float, kind: LossKind, objectives: int, data: st.DataObject
) -> None:
    """DPO-LW under the preference of the corner's objective; MODPO also with margins, which then have no weight."""
    corner, count = data.draw(st.integers(0, objectives - 1)), len(values[0])
    weights = [float(k == corner) for k in range(objectives)]
    expected = dpo_loss(*values, beta, divergence, kind).losses
    signs = torch.tensor(data.draw(matrix(st.sampled_from([-1.0, 0.0, 1.0]), count, objectives)))
    signs[:, corner] = 1.0
    found = dpo_lw_loss(*values, signs, weights, beta, divergence, kind).losses
    torch.testing.assert_close(found, expected)
    scores = [torch.tensor(data.draw(matrix(st.floats(-5, 5, width=32), count, objectives))) for _ in range(2)]
    torch.testing.assert_close(modpo_loss(*values, *scores, weights, corner, beta, divergence, kind).losses, expected)


@given(values=pairs(), beta=betas, kind=kinds, weight=st.floats(0.05, 0.95))
def test_modpo_with_equal_margins_is_dpo_of_a_larger_beta(
    values: list[Tensor], beta: float, kind: LossKind, weight: float
) -> None:
    margins = torch.full((len(values[0]), 2), 3.0)
    found = modpo_loss(*values, margins, margins, [weight, 1 - weight], 0, beta, kind=kind).losses
    torch.testing.assert_close(found, dpo_loss(*values, beta / weight, kind=kind).losses, rtol=1e-4, atol=1e-4)


@given(values=pairs(), beta=betas, weight=st.floats(0.0, 1.0))
def test_a_conflict_under_equal_weights_pulls_neither_way(values: list[Tensor], beta: float, weight: float) -> None:
    """DPO-LW's gradient is sum_i w_i s_i sigmoid(-s_i m): of opposite signs it vanishes at the reference."""
    chosen, rejected = values[0].clone().requires_grad_(), values[1]
    signs = torch.tensor([[1.0, -1.0]]).expand(len(chosen), 2)
    losses = dpo_lw_loss(chosen, rejected, chosen.detach(), rejected, signs, [weight, 1 - weight], beta).losses
    losses.sum().backward()
    assert chosen.grad is not None
    torch.testing.assert_close(chosen.grad, torch.full_like(chosen, -0.5 * beta * (2 * weight - 1)))


scores = st.dictionaries(st.sampled_from("abc"), st.integers(-3, 3).map(float), min_size=3, max_size=3)


@given(st.lists(scores, max_size=5), scores, scores, st.randoms(use_true_random=False))
def test_what_is_kept_beats_both_strictly_whatever_the_order(
    rows: list[dict[str, float]], first: dict[str, float], second: dict[str, float], order: Any
) -> None:
    candidates = [Candidate(str(index), row, index) for index, row in enumerate(rows)]
    kept = select_pareto(candidates, [first, second])
    order.shuffle(candidates)
    assert select_pareto(candidates, [second, first]) == kept
    beating = [row for row in rows if all(row[k] > max(first[k], second[k]) for k in "abc")]
    assert (kept is None) == (not beating)
    if kept is not None:
        assert kept.candidate.rewards == max(beating, key=lambda row: sum(row.values()))
        assert kept.margin == minimum_margin(kept.candidate.rewards, [first, second]) > 0


@given(scores)
def test_an_equal_rewrite_stays_behind_its_original(rewards: dict[str, float]) -> None:
    assert better_of(rewards, dict(rewards), list(rewards)) == "original"


def matrix(values: st.SearchStrategy[float], rows: int, columns: int) -> st.SearchStrategy[list[list[float]]]:
    row = st.lists(values, min_size=columns, max_size=columns)
    return st.lists(row, min_size=rows, max_size=rows)
