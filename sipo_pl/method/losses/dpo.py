"""DPO and DPO + NLL under any divergence, as pure functions and as the classes that configs name."""

from dataclasses import dataclass

from torch import Tensor

from sipo_pl.interop.numbers import NonNegativeFloat
from sipo_pl.method.divergences import Divergence
from sipo_pl.method.losses.base import (
    REVERSE_KL,
    LossContext,
    LossKind,
    LossOutput,
    PairLogps,
    PreferenceLoss,
    compare,
    implicit_reward,
)


def dpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
    divergence: Divergence = REVERSE_KL,
    kind: LossKind = "sigmoid",
) -> LossOutput:
    """Return -log sigmoid(r_w - r_l) per pair, with r the implicit reward (2305.18290, equation 7; 2309.16240)."""
    chosen = implicit_reward(policy_chosen, reference_chosen, beta, divergence)
    rejected = implicit_reward(policy_rejected, reference_rejected, beta, divergence)
    return LossOutput(compare(chosen - rejected, kind), chosen.detach(), rejected.detach())


def nll_per_token(policy_chosen: Tensor, chosen_lengths: Tensor) -> Tensor:
    """Return -log pi(y_w|x) / |y_w|, where |y_w| counts response tokens with EOS."""
    return -policy_chosen / chosen_lengths


def dpo_nll_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    chosen_lengths: Tensor,
    beta: float,
    alpha: float,
    divergence: Divergence = REVERSE_KL,
    kind: LossKind = "sigmoid",
) -> LossOutput:
    """Return DPO loss - alpha * log pi(y_w|x) / |y_w| per pair (arXiv 2502.14354, re-alignment)."""
    dpo = dpo_loss(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta, divergence, kind)
    return dpo._replace(losses=dpo.losses + alpha * nll_per_token(policy_chosen, chosen_lengths))


@dataclass(frozen=True)
class DPO(PreferenceLoss):
    """`dpo_loss`.

    Args:
        kind: sigmoid for the log-sigmoid of the margin of rewards, hinge for its distance below one
    """

    kind: LossKind = "sigmoid"

    def __call__(self, logps: PairLogps, context: LossContext) -> LossOutput:
        return dpo_loss(*logps[:4], beta=context.beta, divergence=context.divergence, kind=self.kind)


@dataclass(frozen=True)
class DPOWithNLL(PreferenceLoss):
    """`dpo_nll_loss`.

    Args:
        alpha: weight of the NLL term
        kind: sigmoid for the log-sigmoid of the margin of rewards, hinge for its distance below one
    """

    alpha: NonNegativeFloat = 0.1
    kind: LossKind = "sigmoid"

    def __call__(self, logps: PairLogps, context: LossContext) -> LossOutput:
        return dpo_nll_loss(
            *logps[:5], beta=context.beta, alpha=self.alpha, divergence=context.divergence, kind=self.kind
        )
