"""RACO: the gradients of all objectives' DPO losses, turned where they conflict (arXiv 2602.02495; CAGrad, 2110.14048).

N objectives, D parameters. g_i is the gradient of objective i's loss, g_0 = sum_i w_i g_i that of DPO-LW.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sipo_pl.interop.numbers import PositiveFloat, ShareBelowOne
from sipo_pl.messages.errors import UsageError
from sipo_pl.method.losses.base import LossContext, LossOutput, PairLogps, implicit_reward
from sipo_pl.method.losses.weighted import WeightedLoss, dpo_lw_loss, objective_losses

SWEEPS = 500
TOLERANCE = 1e-12  # relative gain of a sweep below which nothing more is to be had


def conflict_averse_point(gram: Tensor, weights: Sequence[float], c: float) -> list[float]:
    """Return the p on the simplex that minimises <g_p, g_0> + c |g_0| |g_p| with g_p = sum_i p_i g_i.

    The function is convex. Mass moves between two objectives at a time, each time to the exact minimum along that line,
    until no exchange gains anything.

    Args:
        gram: inner products <g_i, g_j>, (N, N).
        weights: w, N numbers on the simplex.
        c: how far the step may turn from g_0.
    """
    g = gram.double().tolist()
    n = len(g)
    towards = [sum(w * value for w, value in zip(weights, row, strict=True)) for row in g]  # <g_i, g_0>
    radius = c * math.sqrt(max(0.0, sum(w * t for w, t in zip(weights, towards, strict=True))))
    p = list(weights)
    products = list(towards)  # <g_i, g_p>
    value = _value(p, towards, products, radius)
    for _ in range(SWEEPS):
        for i in range(n):
            for j in range(i):
                shift = _exchange(p, i, j, g, towards, products, radius)
                p[i], p[j] = p[i] + shift, p[j] - shift
                products = [product + shift * (row[i] - row[j]) for product, row in zip(products, g, strict=True)]
        last, value = value, _value(p, towards, products, radius)
        if last - value <= TOLERANCE * (abs(value) + TOLERANCE):
            break
    return [min(max(x, 0.0), 1.0) for x in p]


def _value(p: Sequence[float], towards: Sequence[float], products: Sequence[float], radius: float) -> float:
    length = math.sqrt(max(0.0, sum(x * y for x, y in zip(p, products, strict=True))))
    return sum(x * t for x, t in zip(p, towards, strict=True)) + radius * length


def _exchange(
    p: Sequence[float],
    i: int,
    j: int,
    g: Sequence[Sequence[float]],
    towards: Sequence[float],
    products: Sequence[float],
    radius: float,
) -> float:
    """Return how much of p_j to give to p_i, the least of b t + radius sqrt(a (t - t0)^2 + rest) within its bounds."""
    low, high = -p[i], p[j]
    b = towards[i] - towards[j]
    a = g[i][i] - 2 * g[i][j] + g[j][j]
    if a <= 0:  # equal gradients
        return 0.0
    slope = products[i] - products[j]
    t0 = -slope / a
    length = sum(x * y for x, y in zip(p, products, strict=True))
    rest = max(0.0, length - slope * slope / a)
    steep = radius * radius * a - b * b
    if steep <= 0:  # monotone
        return low if b > 0 else high if b < 0 else min(max(t0, low), high)
    return min(max(t0 - math.copysign(math.sqrt(b * b * rest / (a * steep)), b), low), high)


def raco_step(gradients: Tensor, weights: Sequence[float], c: float) -> Tensor:
    """Return the direction of a step: g_0 + c |g_0| g_p / |g_p|, with each p_i clipped to w_i at most.

    Where either gradient is zero it is g_0 alone. Equal gradients give (1 + c) g_0, the direction of DPO-LW.

    Args:
        gradients: (N, D), float32.
        weights: w, N numbers on the simplex.
        c: how far the step may turn from g_0.

    Returns:
        (D,).
    """
    w = torch.tensor(weights, dtype=gradients.dtype, device=gradients.device)
    together = w @ gradients
    p = conflict_averse_point(gradients @ gradients.T, weights, c)
    clipped = [min(share, weight) for share, weight in zip(p, weights, strict=True)]
    turned = torch.tensor(clipped, dtype=gradients.dtype, device=gradients.device) @ gradients
    length = turned.norm()
    if length == 0:
        return together
    return together + c * together.norm() * turned / length


@dataclass(frozen=True)
class RACO(WeightedLoss):
    """DPO-LW as a number, to be logged and validated; the steps of its fit are `raco_step`.

    Args:
        weights: a point such as helpful=0.6,harmless=0.4
        kind: sigmoid for the log-sigmoid of the margin of rewards, hinge for its distance below one
        c: how far a step may turn from the weighted sum of the gradients, from 0 to 1; the released code's is 0.4
        beta: scale of the implicit reward in this loss; the recipe's where not given, the released code's is 0.2
    """

    c: ShareBelowOne = 0.4
    beta: PositiveFloat | None = None

    def check(self, context: LossContext) -> None:
        super().check(context)
        if not 0 <= self.c < 1:
            raise UsageError(f"model.loss.c: {self.c:g} is not in [0, 1)")
        if self.beta is not None and self.beta <= 0:
            raise UsageError(f"model.loss.beta: {self.beta:g} is not above 0")

    def __call__(self, logps: PairLogps, context: LossContext) -> LossOutput:
        assert logps.signs is not None
        return dpo_lw_loss(
            *logps[:4],
            signs=logps.signs,
            weights=self.point(context),
            beta=self.beta or context.beta,
            divergence=context.divergence,
            kind=self.kind,
        )

    def by_objective(self, logps: PairLogps, context: LossContext) -> Tensor:
        """Return each pair's loss under each objective, with gradient, (P, N)."""
        assert logps.signs is not None
        beta, divergence = self.beta or context.beta, context.divergence
        chosen = implicit_reward(logps.policy_chosen, logps.reference_chosen, beta, divergence)
        rejected = implicit_reward(logps.policy_rejected, logps.reference_rejected, beta, divergence)
        return objective_losses(chosen - rejected, logps.signs, self.kind)
