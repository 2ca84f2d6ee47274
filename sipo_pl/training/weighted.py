"""Baselines with a policy for each weight: MODPO, DPO-LW, or another loss at a point of the simplex."""

from typing import Any

from sipo_pl.method.losses import WeightedLoss
from sipo_pl.training.dpo import DPOAlignment


class WeightedAlignment(DPOAlignment):
    """Aligns the base model at one weight of the objectives; the reference is the base model.

    Args:
        weights: the weight
        loss: loss of a pair at a weight: MODPO, DPOLW, RACO or your own
    """

    def __init__(self, *args: Any, weights: str, loss: WeightedLoss, **kwargs: Any) -> None:
        super().__init__(*args, loss=loss.at(weights), **kwargs)
