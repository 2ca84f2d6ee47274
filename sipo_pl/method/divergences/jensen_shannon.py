"""The Jensen-Shannon divergence."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from sipo_pl.method.divergences.base import Divergence
from sipo_pl.method.fusion import fuse_jsd


@dataclass(frozen=True)
class JensenShannon(Divergence):
    """Jensen-Shannon: the reward is -beta * log(1 + exp(-x))."""

    needs_reference = True

    def reward(self, log_ratios: Tensor, beta: float) -> Tensor:
        return -beta * F.softplus(-log_ratios)

    def fuse(self, scores: Tensor, weights: Tensor, reference: Tensor | None) -> Tensor:
        assert reference is not None
        return fuse_jsd(scores, weights, reference)
