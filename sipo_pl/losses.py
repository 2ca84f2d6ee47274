"""Preference losses as pure functions of response log-probabilities, and the classes that configs name.

Shapes: every tensor is (pairs,), float32. Log-probabilities are summed over response tokens, EOS included.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class PairLogps(NamedTuple):
    """What a preference loss may use of a batch of pairs.

    Args:
        policy_chosen: log pi(y_w | x)
        policy_rejected: log pi(y_l | x)
        reference_chosen: log ref(y_w | x)
        reference_rejected: log ref(y_l | x)
        chosen_lengths: response tokens of y_w, EOS included, integer
    """

    policy_chosen: Tensor
    policy_rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_lengths: Tensor


class LossOutput(NamedTuple):
    """A loss per pair and the implicit rewards to log.

    Args:
        losses: with gradient
        chosen_rewards: beta * (log pi - log ref) of y_w, detached
        rejected_rewards: the same of y_l
    """

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor


def implicit_reward(policy_logps: Tensor, reference_logps: Tensor, beta: float) -> Tensor:
    """Return beta * (log pi(y|x) - log ref(y|x)), the reward that reverse-KL alignment maximises (arXiv 2305.18290)."""
    return beta * (policy_logps - reference_logps)


def dpo_loss(
    policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> LossOutput:
    """Return -log sigmoid(r_w - r_l) per pair, with r the implicit reward (arXiv 2305.18290, equation 7)."""
    chosen = implicit_reward(policy_chosen, reference_chosen, beta)
    rejected = implicit_reward(policy_rejected, reference_rejected, beta)
    return LossOutput(-F.logsigmoid(chosen - rejected), chosen.detach(), rejected.detach())


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
) -> LossOutput:
    """Return DPO loss - alpha * log pi(y_w|x) / |y_w| per pair (arXiv 2502.14354, re-alignment)."""
    dpo = dpo_loss(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta)
    return dpo._replace(losses=dpo.losses + alpha * nll_per_token(policy_chosen, chosen_lengths))


class PreferenceLoss(ABC):
    """A loss that a config injects by `class_path`; beta comes from the recipe, so that filter and loss share it."""

    @abstractmethod
    def __call__(self, logps: PairLogps, beta: float) -> LossOutput:
        """Return a loss per pair."""


@dataclass(frozen=True)
class DPO(PreferenceLoss):
    """`dpo_loss`."""

    def __call__(self, logps: PairLogps, beta: float) -> LossOutput:
        return dpo_loss(
            logps.policy_chosen, logps.policy_rejected, logps.reference_chosen, logps.reference_rejected, beta
        )


@dataclass(frozen=True)
class DPOWithNLL(PreferenceLoss):
    """`dpo_nll_loss`.

    Args:
        alpha: weight of the NLL term
    """

    alpha: float = 0.1

    def __call__(self, logps: PairLogps, beta: float) -> LossOutput:
        return dpo_nll_loss(*logps, beta=beta, alpha=self.alpha)


def reward_metrics(output: LossOutput) -> dict[str, Tensor]:
    """Return the mean rewards, margin and accuracy of a batch, under the names that TRL logs."""
    margins = output.chosen_rewards - output.rejected_rewards
    return {
        "rewards/chosen": output.chosen_rewards.mean(),
        "rewards/rejected": output.rejected_rewards.mean(),
        "rewards/margins": margins.mean(),
        "rewards/accuracies": (margins > 0).to(torch.float32).mean(),
    }
