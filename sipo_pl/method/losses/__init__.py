"""Preference losses: pure functions of response log-probabilities, and the classes that configs name."""

from sipo_pl.method.losses.base import (
    LossContext,
    LossOutput,
    PairLogps,
    PreferenceLoss,
    compare,
    implicit_reward,
    reward_metrics,
)
from sipo_pl.method.losses.dpo import DPO, DPOWithNLL, dpo_loss, dpo_nll_loss, nll_per_token
from sipo_pl.method.losses.raco import RACO, conflict_averse_point, raco_step
from sipo_pl.method.losses.weighted import DPOLW, MODPO, WeightedLoss, dpo_lw_loss, modpo_loss, objective_losses

__all__ = [
    "DPO",
    "DPOLW",
    "MODPO",
    "RACO",
    "DPOWithNLL",
    "LossContext",
    "LossOutput",
    "PairLogps",
    "PreferenceLoss",
    "WeightedLoss",
    "compare",
    "conflict_averse_point",
    "dpo_loss",
    "dpo_lw_loss",
    "dpo_nll_loss",
    "implicit_reward",
    "modpo_loss",
    "nll_per_token",
    "objective_losses",
    "raco_step",
    "reward_metrics",
]
