"""The alpha-divergence as the released code fuses it."""

from dataclasses import dataclass

from torch import Tensor

from sipo_pl.method.divergences import Alpha


@dataclass(frozen=True)
class UnscaledAlpha(Alpha):
    """The alpha-divergence whose fused scores lack their factor 1/alpha, as in the released code.

    The likeliest token stays the same; samples are drawn as if the temperature were larger by 1/alpha.
    """

    def fuse(self, scores: Tensor, weights: Tensor, reference: Tensor | None) -> Tensor:
        return self.alpha * super().fuse(scores, weights, reference)
