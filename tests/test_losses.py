import math

import pytest
import torch

from sipo_pl.losses import (
    DPO,
    DPOWithNLL,
    LossOutput,
    PairLogps,
    dpo_loss,
    dpo_nll_loss,
    implicit_reward,
    nll_per_token,
    reward_metrics,
)

POLICY_CHOSEN = torch.tensor([-10.0, -20.0])
POLICY_REJECTED = torch.tensor([-12.0, -15.0])
REFERENCE_CHOSEN = torch.tensor([-11.0, -18.0])
REFERENCE_REJECTED = torch.tensor([-10.0, -16.0])
LENGTHS = torch.tensor([5, 8])
PAIRS = PairLogps(POLICY_CHOSEN, POLICY_REJECTED, REFERENCE_CHOSEN, REFERENCE_REJECTED, LENGTHS)


def test_dpo_by_hand() -> None:
    # rewards .1 * (1, -2) and .1 * (-2, 1): margins .3 and -.3
    output = dpo_loss(*PAIRS[:4], beta=0.1)
    expected = [math.log(1 + math.exp(-0.3)), math.log(1 + math.exp(0.3))]
    assert output.losses.tolist() == pytest.approx(expected, rel=1e-5)
    assert output.chosen_rewards.tolist() == pytest.approx([0.1, -0.2], rel=1e-5)
    assert output.rejected_rewards.tolist() == pytest.approx([-0.2, 0.1], rel=1e-5)


def test_a_policy_that_is_the_reference_loses_log_two() -> None:
    logps = torch.randn(4) * 50
    assert dpo_loss(logps, logps - 3, logps, logps - 3, beta=0.1).losses.tolist() == pytest.approx([math.log(2)] * 4)


def test_the_nll_term_divides_by_the_response_tokens() -> None:
    assert nll_per_token(POLICY_CHOSEN, LENGTHS).tolist() == [2.0, 2.5]
    both = dpo_nll_loss(*PAIRS, beta=0.1, alpha=0.4).losses
    alone = dpo_loss(*PAIRS[:4], beta=0.1).losses
    torch.testing.assert_close(both - alone, 0.4 * torch.tensor([2.0, 2.5]))


def test_gradients_by_hand() -> None:
    chosen, rejected = POLICY_CHOSEN.clone().requires_grad_(), POLICY_REJECTED.clone().requires_grad_()
    output = dpo_nll_loss(chosen, rejected, REFERENCE_CHOSEN, REFERENCE_REJECTED, LENGTHS, beta=0.1, alpha=0.4)
    output.losses.sum().backward()
    slope = 0.1 * torch.sigmoid(-torch.tensor([0.3, -0.3]))  # beta * sigmoid(-margin)
    torch.testing.assert_close(chosen.grad, -slope - 0.4 / LENGTHS)
    torch.testing.assert_close(rejected.grad, slope)
    assert not output.chosen_rewards.requires_grad
    assert not output.rejected_rewards.requires_grad


def test_gradients_agree_with_finite_differences() -> None:
    values = [value.double().requires_grad_() for value in PAIRS[:4]]

    def loss(*logps: torch.Tensor) -> torch.Tensor:
        return dpo_nll_loss(*logps, chosen_lengths=LENGTHS, beta=0.3, alpha=0.1).losses

    assert torch.autograd.gradcheck(loss, values)


def test_far_apart_log_probabilities_stay_finite() -> None:
    far = torch.tensor([-1e4, 0.0]).requires_grad_()
    output = dpo_loss(far, far.flip(0), torch.zeros(2), torch.zeros(2), beta=1.0)
    output.losses.sum().backward()
    assert torch.isfinite(output.losses).all()
    assert torch.isfinite(far.grad).all()


def test_the_classes_are_the_functions() -> None:
    torch.testing.assert_close(DPO()(PAIRS, 0.2).losses, dpo_loss(*PAIRS[:4], beta=0.2).losses)
    torch.testing.assert_close(DPOWithNLL(0.3)(PAIRS, 0.2).losses, dpo_nll_loss(*PAIRS, beta=0.2, alpha=0.3).losses)
    assert DPOWithNLL().alpha == 0.1


def test_metrics_have_the_names_of_trl() -> None:
    output = LossOutput(torch.zeros(4), torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.0, 2.0, 4.0, 0.0]))
    assert {name: value.item() for name, value in reward_metrics(output).items()} == {
        "rewards/chosen": 2.5,
        "rewards/rejected": 1.5,
        "rewards/margins": 1.0,
        "rewards/accuracies": 0.5,  # an equal pair is not told apart
    }


def test_the_implicit_reward_is_zero_at_the_reference() -> None:
    assert implicit_reward(POLICY_CHOSEN, POLICY_CHOSEN, 0.1).tolist() == [0.0, 0.0]
