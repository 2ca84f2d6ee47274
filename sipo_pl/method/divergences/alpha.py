"""The alpha-divergence."""

import math
from dataclasses import dataclass

from torch import Tensor

from sipo_pl.interop.numbers import OpenShare
from sipo_pl.messages.errors import UserError
from sipo_pl.method.divergences.base import Divergence, bounded_exp
from sipo_pl.method.fusion import fuse_alpha


@dataclass(frozen=True)
class Alpha(Divergence):
    """The alpha-divergence: the reward is -(beta / alpha) * exp(-alpha * x).

    Args:
        alpha: order, between 0 and 1
    """

    alpha: OpenShare = 0.5

    def __post_init__(self) -> None:
        if not (0 < self.alpha < 1 and math.isfinite(self.alpha)):
            raise UserError(f"divergence.alpha: {self.alpha:g} is not in (0, 1)")

    def reward(self, log_ratios: Tensor, beta: float) -> Tensor:
        return -(beta / self.alpha) * bounded_exp(-self.alpha * log_ratios)

    def fuse(self, scores: Tensor, weights: Tensor, reference: Tensor | None) -> Tensor:
        return fuse_alpha(scores, weights, self.alpha)
