import math
from typing import Any

import pytest
import torch

from sipo_pl.messages.errors import UsageError
from sipo_pl.method.divergences import Alpha, Divergence, ForwardKL, JensenShannon, ReverseKL
from sipo_pl.method.losses import (
    DPO,
    DPOLW,
    MODPO,
    DPOWithNLL,
    LossContext,
    LossOutput,
    PairLogps,
    PreferenceLoss,
    dpo_loss,
    dpo_lw_loss,
    dpo_nll_loss,
    implicit_reward,
    modpo_loss,
    nll_per_token,
    reward_metrics,
)

POLICY_CHOSEN = torch.tensor([-10.0, -20.0])
POLICY_REJECTED = torch.tensor([-12.0, -15.0])
REFERENCE_CHOSEN = torch.tensor([-11.0, -18.0])
REFERENCE_REJECTED = torch.tensor([-10.0, -16.0])
LENGTHS = torch.tensor([5, 8])
# objectives a, b, c: the first pair is a conflict of a and b and a tie of c; on the second all agree
SIGNS = torch.tensor([[1.0, -1.0, 0.0], [1.0, 1.0, 1.0]])
CHOSEN_SCORES = torch.tensor([[0.0, 1.0, 0.5], [0.0, 2.0, -1.0]])
REJECTED_SCORES = torch.tensor([[0.0, 0.4, 0.7], [0.0, 2.0, -2.0]])
PAIRS = PairLogps(
    POLICY_CHOSEN,
    POLICY_REJECTED,
    REFERENCE_CHOSEN,
    REFERENCE_REJECTED,
    LENGTHS,
    SIGNS,
    CHOSEN_SCORES,
    REJECTED_SCORES,
)
DIVERGENCES = [ReverseKL(), ForwardKL(), JensenShannon(), Alpha(0.3)]


def context(beta: float = 0.1, divergence: Divergence = DIVERGENCES[0], trained: int = 0) -> LossContext:
    return LossContext(beta, divergence, ("a", "b", "c"), trained)


def softplus(value: float) -> float:
    """Return -log sigmoid(-value)."""
    return math.log(1 + math.exp(value))


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
    both = dpo_nll_loss(*PAIRS[:5], beta=0.1, alpha=0.4).losses
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
    torch.testing.assert_close(DPO()(PAIRS, context(0.2)).losses, dpo_loss(*PAIRS[:4], beta=0.2).losses)
    torch.testing.assert_close(
        DPOWithNLL(0.3)(PAIRS, context(0.2)).losses, dpo_nll_loss(*PAIRS[:5], beta=0.2, alpha=0.3).losses
    )
    assert DPOWithNLL().alpha == 0.1


# divergences and the hinge


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("loss", [DPO(), DPOLW("0.5,0.3,0.2"), MODPO("0.5,0.3,0.2")])
def test_the_reference_loses_log_two_under_every_divergence(loss: PreferenceLoss, divergence: Divergence) -> None:
    logps, zero = torch.tensor([-30.0, -4.0]), torch.zeros(2, 3)
    pairs = PairLogps(logps, logps - 3, logps, logps - 3, LENGTHS, torch.ones(2, 3), zero, zero)
    assert loss(pairs, context(0.7, divergence)).losses.tolist() == pytest.approx([math.log(2)] * 2)


def test_rewards_of_other_divergences_by_hand() -> None:
    # the first pair's log-ratios are 1 and -2
    rewards = {
        ForwardKL(): (-0.1 * math.exp(-1), -0.1 * math.exp(2)),
        JensenShannon(): (-0.1 * softplus(-1), -0.1 * softplus(2)),
        Alpha(0.5): (-0.2 * math.exp(-0.5), -0.2 * math.exp(1)),
    }
    for divergence, (chosen, rejected) in rewards.items():
        output = DPO()(PAIRS, context(0.1, divergence))
        assert output.chosen_rewards[0].item() == pytest.approx(chosen, rel=1e-5)
        assert output.rejected_rewards[0].item() == pytest.approx(rejected, rel=1e-5)
        assert output.losses[0].item() == pytest.approx(softplus(rejected - chosen), rel=1e-5)
        with_nll = DPOWithNLL(0.4)(PAIRS, context(0.1, divergence)).losses
        torch.testing.assert_close(with_nll - output.losses, 0.4 * torch.tensor([2.0, 2.5]))


def test_the_hinge_is_the_distance_of_the_margin_below_one() -> None:
    assert DPO("hinge")(PAIRS, context()).losses.tolist() == pytest.approx([0.7, 1.3])
    assert DPO("hinge")(PAIRS, context(beta=1.0)).losses.tolist() == pytest.approx([0.0, 4.0])
    assert DPOLW("0.6,0.4,0", "hinge")(PAIRS, context()).losses[0].item() == pytest.approx(0.6 * 0.7 + 0.4 * 1.3)


# weighted losses


def test_modpo_by_hand() -> None:
    # (0.3 - 0.3 * 0.6 - 0.2 * -0.2) / 0.5 = 0.32 and (-0.3 - 0 - 0.2 * 1) / 0.5 = -1
    scores = (CHOSEN_SCORES, REJECTED_SCORES)
    output = modpo_loss(*PAIRS[:4], *scores, weights=(0.5, 0.3, 0.2), trained=0, beta=0.1)
    assert output.losses.tolist() == pytest.approx([softplus(-0.32), softplus(1.0)], rel=1e-5)
    assert output.chosen_rewards[0].item() == pytest.approx((0.1 - 0.3 * 1.0 - 0.2 * 0.5) / 0.5, rel=1e-5)
    # the weight belongs to the objective that is trained; its own score is not read: (0.3 - 0.3 * 0.6) / 0.2 = 0.6
    other = MODPO("c=0.2,a=0.5,b=0.3")(PAIRS, context(trained=2))
    assert other.losses[0].item() == pytest.approx(softplus(-0.6), rel=1e-5)


def test_dpo_lw_by_hand() -> None:
    output = dpo_lw_loss(*PAIRS[:4], signs=SIGNS, weights=(0.5, 0.3, 0.2), beta=0.1)
    conflict = 0.5 * softplus(-0.3) + 0.3 * softplus(0.3)  # the tie has no part
    assert output.losses.tolist() == pytest.approx([conflict, softplus(0.3)], rel=1e-5)
    assert output.chosen_rewards.tolist() == pytest.approx([0.5 * 0.1 + 0.3 * -0.2, -0.2], rel=1e-4)
    assert output.rejected_rewards.tolist() == pytest.approx([0.5 * -0.2 + 0.3 * 0.1, 0.1], rel=1e-4)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("kind", ["sigmoid", "hinge"])
def test_at_its_corner_a_weighted_loss_is_dpo(divergence: Divergence, kind: Any) -> None:
    dpo = DPO(kind)(PAIRS, context(0.2, divergence))
    for found in (
        DPOLW("1,0,0", kind)(PAIRS, context(0.2, divergence)),
        MODPO("1,0,0", kind)(PAIRS, context(0.2, divergence)),
    ):
        for ours, plain in zip(found, dpo, strict=True):
            torch.testing.assert_close(ours, plain)


def test_gradients_of_the_weighted_losses_agree_with_finite_differences() -> None:
    values = [value.double().requires_grad_() for value in PAIRS[:4]]
    more = [value.double() for value in (SIGNS, CHOSEN_SCORES, REJECTED_SCORES)]
    for loss in (DPOLW("0.5,0.3,0.2"), MODPO("0.5,0.3,0.2")):
        for divergence in DIVERGENCES:

            def losses(*logps: torch.Tensor, loss: Any = loss, divergence: Divergence = divergence) -> torch.Tensor:
                output: LossOutput = loss(PairLogps(*logps, LENGTHS, *more), context(0.3, divergence))
                assert not output.chosen_rewards.requires_grad
                return output.losses

            assert torch.autograd.gradcheck(losses, values)


@pytest.mark.parametrize(
    ("loss", "problem"),
    [
        (MODPO("0,0.5,0.5"), r"model\.loss\.weights '0,0\.5,0\.5': the trained objective 'a' has no weight"),
        (MODPO("aa=0.5,b=0.3,c=0.2"), r"model\.loss\.weights .*no objective 'aa'"),
        (DPOLW("0.5,0.5"), "2 numbers for 3 objectives"),
        (DPOLW("0.5,0.3,0.3"), "they sum to 1.1, not 1"),
    ],
)
def test_weights_that_cannot_be_right_are_refused(loss: PreferenceLoss, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        loss.check(context())


def test_weights_that_fit_are_taken() -> None:
    for loss in (DPO(), DPOWithNLL(), MODPO("0.2,0.8,0"), DPOLW("0,1,0")):  # DPO-LW may leave out the trained one
        loss.check(context())


def test_metrics_have_the_names_of_trl() -> None:
    output = LossOutput(torch.zeros(4), torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.0, 2.0, 4.0, 0.0]))
    assert {name: value.mean().item() for name, value in reward_metrics(output).items()} == {
        "rewards/chosen": 2.5,
        "rewards/rejected": 1.5,
        "rewards/margins": 1.0,
        "rewards/accuracies": 0.5,  # an equal pair is not told apart
    }


def test_the_implicit_reward_is_zero_at_the_reference() -> None:
    assert implicit_reward(POLICY_CHOSEN, POLICY_CHOSEN, 0.1).tolist() == [0.0, 0.0]
