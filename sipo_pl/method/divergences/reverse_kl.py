"""Reverse KL, the divergence of DPO and of SIPO (arXiv 2305.18290)."""

from dataclasses import dataclass

from torch import Tensor

from sipo_pl.method.divergences.base import Divergence
from sipo_pl.method.fusion import fuse_reverse_kl


@dataclass(frozen=True)
class ReverseKL(Divergence):
    """KL(pi || ref): the reward is beta * x (arXiv 2305.18290)."""

    needs_history = False
    is_linear = True

    def reward(self, log_ratios: Tensor, beta: float) -> Tensor:
        return beta * log_ratios

    def fuse(self, scores: Tensor, weights: Tensor, reference: Tensor | None) -> Tensor:
        return fuse_reverse_kl(scores, weights)
