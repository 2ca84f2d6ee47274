"""RACO: the gradients of all objectives' DPO losses, turned where they conflict (arXiv 2602.02495; CAGrad, 2110.14048).

N objectives, D parameters. g_i is the gradient of objective i's loss, g_0 = sum_i w_i g_i that of DPO-LW.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from sipo_pl.interop.numbers import PositiveFloat, ShareBelowOne
from sipo_pl.messages.errors import UsageError
from sipo_pl.method.losses.base import LossContext, LossOutput, PairLogps, implicit_reward
from sipo_pl.method.losses.weighted import WeightedLoss, dpo_lw_loss, objective_losses

MOST_OBJECTIVES = 12  # the simplex of N objectives has 2^N - 1 faces
TOLERANCE = 1e-12  # relative difference of values, or part of p below zero, that is rounding


def conflict_averse_point(gram: Tensor, weights: Sequence[float], c: float) -> list[float]:
    """Return the p on the simplex that minimises F(p) = <g_p, g_0> + c |g_0| |g_p| with g_p = sum_i p_i g_i.

    F is convex, so its minimum lies inside some face of the simplex, and is there the minimum over the whole plane of
    the face, which has a closed form. The function takes the least of these minima over all faces. Of equal ones it
    takes that of the largest face.

    Args:
        gram: inner products <g_i, g_j>, (N, N), at most `MOST_OBJECTIVES` objectives.
        weights: w, N numbers on the simplex.
        c: how far the step may turn from g_0.
    """
    g = gram.detach().double().cpu()
    w = g.new_tensor(weights)
    towards = g @ w  # <g_i, g_0>
    radius = c * math.sqrt(max(0.0, float(w @ towards)))
    best, least = w, math.inf
    for size in range(len(g), 0, -1):
        points = _minima(g, towards, radius, _faces(len(g), size))
        lengths = (points @ g * points).sum(dim=1).clamp(min=0).sqrt()
        values = points @ towards + radius * lengths
        values[~(points >= -TOLERANCE).all(dim=1)] = math.inf  # outside the simplex, or nowhere
        place = int(values.argmin())
        if (value := float(values[place])) < least - TOLERANCE * abs(value):
            best, least = points[place], value
    best = best.clamp(min=0)
    found: list[float] = (best / best.sum()).tolist()
    return found


@lru_cache
def _faces(n: int, size: int) -> Tensor:
    """Return the corners of each face of `size` corners, (faces, size), int64."""
    return torch.tensor(list(itertools.combinations(range(n), size)))


def _minima(g: Tensor, towards: Tensor, radius: float, corners: Tensor) -> Tensor:
    """Return where b p + radius sqrt(p G p) is least on the plane of each face, (faces, N); NaN where nowhere.

    With p = middle + Z y the root holds (y - y_0) H (y - y_0) + rest. The minimum is y_0 - H^-1 d t, where d is the
    slope of b along Z and t = sqrt(rest / (radius^2 - d H^-1 d)).
    """
    faces, size = corners.shape
    middle = torch.zeros(faces, len(g), dtype=g.dtype).scatter_(1, corners, 1 / size)
    along = torch.zeros(faces, size - 1, len(g), dtype=g.dtype)  # Z, the transposed: from the first corner to another
    along.scatter_(2, corners[:, 1:, None], 1.0)
    along.scatter_add_(
        2, corners[:, :1, None].expand(-1, size - 1, -1), torch.full((faces, size - 1, 1), -1.0, dtype=g.dtype)
    )
    inverse = torch.linalg.pinv(along @ g @ along.mT, hermitian=True)
    across = along @ (middle @ g)[..., None]
    slope = along @ towards[:, None]
    nearest, turn = -inverse @ across, inverse @ slope
    rest = ((middle @ g * middle).sum(dim=1) + (across * nearest).sum(dim=(1, 2))).clamp(min=0)
    steep = radius * radius - (slope * turn).sum(dim=(1, 2))
    reach = torch.where(rest > 0, (rest / steep).sqrt(), 0.0)
    return middle + ((nearest - reach[:, None, None] * turn).mT @ along)[:, 0]


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
        if len(context.objectives) > MOST_OBJECTIVES:
            raise UsageError(
                f"model.loss: RACO takes at most {MOST_OBJECTIVES} objectives, not {len(context.objectives)}"
            )
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
