"""Forward KL."""

from dataclasses import dataclass

from torch import Tensor

from sipo_pl.method.divergences.base import Divergence, bounded_exp
from sipo_pl.method.fusion import fuse_forward_kl


@dataclass(frozen=True)
class ForwardKL(Divergence):
    """KL(ref || pi): the reward is -beta * exp(-x)."""

    def reward(self, log_ratios: Tensor, beta: float) -> Tensor:
        return -beta * bounded_exp(-log_ratios)

    def fuse(self, scores: Tensor, weights: Tensor, reference: Tensor | None) -> Tensor:
        return fuse_forward_kl(scores, weights)
