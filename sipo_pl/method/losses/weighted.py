"""Losses that weigh objectives: MODPO and DPO-LW, as pure functions and as the classes that configs name."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from sipo_pl.messages.errors import UsageError
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
from sipo_pl.method.weights import parse_point


def modpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    chosen_scores: Tensor,
    rejected_scores: Tensor,
    weights: Sequence[float],
    trained: int,
    beta: float,
    divergence: Divergence = REVERSE_KL,
    kind: LossKind = "sigmoid",
) -> LossOutput:
    """Return -log sigmoid((1/w_k) (r_w - r_l - sum over j != k of w_j m_j)) per pair (MODPO, arXiv 2310.03708).

    Args:
        policy_chosen: (P,)
        policy_rejected: (P,)
        reference_chosen: (P,)
        reference_rejected: (P,)
        chosen_scores: (P, N), scores of y_w under every objective; the trained one's are not read
        rejected_scores: (P, N), those of y_l; m_j is the difference of both
        weights: w, N numbers
        trained: k, the objective whose preferences the pairs hold; its weight is above zero
        beta: scale of the implicit reward r
        divergence: what r belongs to
        kind: sigmoid or hinge
    """
    others = torch.tensor(weights, dtype=policy_chosen.dtype, device=policy_chosen.device)
    others[trained] = 0.0
    chosen = implicit_reward(policy_chosen, reference_chosen, beta, divergence) - chosen_scores @ others
    rejected = implicit_reward(policy_rejected, reference_rejected, beta, divergence) - rejected_scores @ others
    chosen, rejected = chosen / weights[trained], rejected / weights[trained]
    return LossOutput(compare(chosen - rejected, kind), chosen.detach(), rejected.detach())


def dpo_lw_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    signs: Tensor,
    weights: Sequence[float],
    beta: float,
    divergence: Divergence = REVERSE_KL,
    kind: LossKind = "sigmoid",
) -> LossOutput:
    """Return the sum over i of w_i * DPO loss under objective i's preference per pair (loss weighting, 2310.03708).

    Args:
        policy_chosen: (P,)
        policy_rejected: (P,)
        reference_chosen: (P,)
        reference_rejected: (P,)
        signs: (P, N), +1 where objective i prefers y_w, -1 where it prefers y_l, 0 where it ties and has no part
        weights: w, N numbers
        beta: scale of the implicit reward
        divergence: what the reward belongs to
        kind: sigmoid or hinge
    """
    chosen = implicit_reward(policy_chosen, reference_chosen, beta, divergence)
    rejected = implicit_reward(policy_rejected, reference_rejected, beta, divergence)
    w = torch.tensor(weights, dtype=policy_chosen.dtype, device=policy_chosen.device)
    losses = (w * objective_losses(chosen - rejected, signs, kind)).sum(dim=1)
    agree, differ = (w * (signs > 0)).sum(dim=1), (w * (signs < 0)).sum(dim=1)
    chosen, rejected = chosen.detach(), rejected.detach()
    return LossOutput(losses, agree * chosen + differ * rejected, agree * rejected + differ * chosen)


def objective_losses(margins: Tensor, signs: Tensor, kind: LossKind = "sigmoid") -> Tensor:
    """Return each pair's DPO loss under each objective's preference, zero where the objective ties, (P, N).

    Args:
        margins: r_w - r_l, (P,)
        signs: (P, N), see `dpo_lw_loss`
        kind: sigmoid or hinge
    """
    return signs.abs() * compare(signs * margins[:, None], kind)


@dataclass(frozen=True)
class WeightedLoss(PreferenceLoss):
    """A loss at a point of the simplex.

    Args:
        weights: a point such as helpful=0.6,harmless=0.4; that of the stage where it has one
        kind: sigmoid for the log-sigmoid of the margin of rewards, hinge for its distance below one
    """

    weights: str = ""
    kind: LossKind = "sigmoid"

    def at(self, weights: str) -> Self:
        """Return the same loss at a point."""
        return replace(self, weights=weights)

    def check(self, context: LossContext) -> None:
        self.point(context)

    def point(self, context: LossContext) -> tuple[float, ...]:
        """Return the weights in the objectives' order.

        Raises:
            UsageError: no point of the simplex.
        """
        try:
            return parse_point(self.weights, context.objectives)
        except UsageError as error:
            raise UsageError(f"model.loss.{error}") from None


@dataclass(frozen=True)
class MODPO(WeightedLoss):
    """`modpo_loss`.

    Args:
        weights: a point such as helpful=0.6,harmless=0.4; the trained objective's weight is above zero
        kind: sigmoid for the log-sigmoid of the margin of rewards, hinge for its distance below one
    """

    needs_scores: ClassVar[bool] = True

    def check(self, context: LossContext) -> None:
        if self.point(context)[context.trained] <= 0:
            name = context.objectives[context.trained]
            raise UsageError(f"model.loss.weights {self.weights!r}: the trained objective {name!r} has no weight")

    def __call__(self, logps: PairLogps, context: LossContext) -> LossOutput:
        assert logps.chosen_scores is not None
        assert logps.rejected_scores is not None
        return modpo_loss(
            *logps[:4],
            logps.chosen_scores,
            logps.rejected_scores,
            weights=self.point(context),
            trained=context.trained,
            beta=context.beta,
            divergence=context.divergence,
            kind=self.kind,
        )


@dataclass(frozen=True)
class DPOLW(WeightedLoss):
    """`dpo_lw_loss`.

    Args:
        weights: a point such as helpful=0.6,harmless=0.4
        kind: sigmoid for the log-sigmoid of the margin of rewards, hinge for its distance below one
    """

    def __call__(self, logps: PairLogps, context: LossContext) -> LossOutput:
        assert logps.signs is not None
        return dpo_lw_loss(
            *logps[:4],
            signs=logps.signs,
            weights=self.point(context),
            beta=context.beta,
            divergence=context.divergence,
            kind=self.kind,
        )
