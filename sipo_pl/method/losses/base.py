"""What every preference loss sees and returns.

Shapes: P pairs, N objectives in the recipe's order; float32 where nothing else is said. Log-probabilities are summed
over response tokens, EOS included.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sipo_pl.method.divergences import Divergence, ReverseKL

LossKind = Literal["sigmoid", "hinge"]
REVERSE_KL = ReverseKL()


class PairLogps(NamedTuple):
    """What a preference loss may use of a batch of pairs.

    Args:
        policy_chosen: log pi(y_w | x), (P,)
        policy_rejected: log pi(y_l | x), (P,)
        reference_chosen: log ref(y_w | x), (P,)
        reference_rejected: log ref(y_l | x), (P,)
        chosen_lengths: what the NLL term is divided by, (P,), integer: response tokens of y_w, EOS included
        signs: (P, N), +1 where an objective prefers y_w, -1 where it prefers y_l, 0 where it ties
        chosen_scores: scores of y_w, (P, N), zero for the trained objective; None where the loss needs none
        rejected_scores: the same of y_l
    """

    policy_chosen: Tensor
    policy_rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_lengths: Tensor
    signs: Tensor | None = None
    chosen_scores: Tensor | None = None
    rejected_scores: Tensor | None = None


class LossOutput(NamedTuple):
    """A loss per pair and the rewards to log.

    Args:
        losses: with gradient, (P,)
        chosen_rewards: reward of y_w that the loss compares, detached, (P,)
        rejected_rewards: the same of y_l
    """

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor


class LossContext(NamedTuple):
    """What of recipe and stage a loss may use.

    Args:
        beta: scale of the implicit reward
        divergence: what holds the policy to its reference
        objectives: names in the recipe's order
        trained: index of the objective whose policy is trained
    """

    beta: float
    divergence: Divergence
    objectives: tuple[str, ...]
    trained: int


class PreferenceLoss(ABC):
    """A loss that a config injects by `class_path`; beta and divergence are the recipe's, as the filter's are."""

    needs_scores: ClassVar[bool] = False  # whether pairs are scored under the other objectives

    def check(self, context: LossContext) -> None:  # noqa: B027 (most losses take any objectives)
        """Raise UsageError where the loss does not fit the recipe; called before any model is loaded."""

    @abstractmethod
    def __call__(self, logps: PairLogps, context: LossContext) -> LossOutput:
        """Return a loss per pair."""


def implicit_reward(
    policy_logps: Tensor, reference_logps: Tensor, beta: float, divergence: Divergence = REVERSE_KL
) -> Tensor:
    """Return what alignment under the divergence maximises; beta * (log pi - log ref) for reverse KL (2305.18290)."""
    return divergence.reward(policy_logps - reference_logps, beta)


def compare(margins: Tensor, kind: LossKind) -> Tensor:
    """Return the loss of reward margins r_w - r_l: -log sigmoid(m), or the hinge max(0, 1 - m) (SLiC, 2305.10425)."""
    return -F.logsigmoid(margins) if kind == "sigmoid" else F.relu(1 - margins)


def reward_metrics(output: LossOutput) -> dict[str, Tensor]:
    """Return rewards, margin and whether it is right of each pair, (P,), under the names whose means TRL logs."""
    margins = output.chosen_rewards - output.rejected_rewards
    return {
        "rewards/chosen": output.chosen_rewards,
        "rewards/rejected": output.rejected_rewards,
        "rewards/margins": margins,
        "rewards/accuracies": (margins > 0).to(torch.float32),
    }
