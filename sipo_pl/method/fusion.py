"""Decoding-time fusion of several policies into one distribution (MOD, arXiv 2406.18853), as pure functions.

Shapes: K policies, R rows, V tokens. Everything is float32. A score s_i is the cumulative log-probability, under policy
i, of what a row has said and a next token v. Fused scores are such sums too, up to a constant per row.

Each rule is exact at the corners of the simplex, ignores policies of weight zero, even impossible tokens of theirs, and
gives s + c for scores that are all larger by c.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

TINY_LOG = -15.0  # below it, log(1 - exp(-exp(b))) is b to the last bit of a float32


def fuse_reverse_kl(scores: Tensor, weights: Tensor) -> Tensor:
    """Return sum_i w_i s_i.

    What a row has said adds a constant to its scores, so log-probabilities of the next token alone do as well.

    Args:
        scores: (K, R, V).
        weights: (R, K), on the simplex; w_i belongs to policy i.

    Returns:
        (R, V).
    """
    return _weighted_sum(scores, weights)


def fuse_forward_kl(scores: Tensor, weights: Tensor) -> Tensor:
    """Return -log sum_i w_i exp(-s_i), the weighted harmonic mean of the probabilities.

    Args:
        scores: (K, R, V), cumulative.
        weights: (R, K), on the simplex.

    Returns:
        (R, V).
    """
    return -_log_mean(-scores, weights)


def fuse_alpha(scores: Tensor, weights: Tensor, alpha: float) -> Tensor:
    """Return -(1/alpha) log sum_i w_i exp(-alpha s_i), between reverse KL (alpha 0) and forward KL (alpha 1).

    Args:
        scores: (K, R, V), cumulative.
        weights: (R, K), on the simplex.
        alpha: order, above zero.

    Returns:
        (R, V).
    """
    return _exact_at_corners(-_log_mean(-alpha * scores, weights) / alpha, scores, weights)


def fuse_jsd(scores: Tensor, weights: Tensor, reference: Tensor) -> Tensor:
    """Return s_0 + v - log(2 - e^v), with v = sum_i w_i log(2 u_i / (1 + u_i)) and u_i = exp(s_i - s_0).

    With a = v - log 2 = -sum_i w_i softplus(s_0 - s_i) it reads s_0 + a - log(1 - e^a). Where all policies find the
    text far likelier than the reference does, a vanishes, and log(1 - e^a) is log(-a), which comes from logarithms
    throughout.

    Args:
        scores: (K, R, V), cumulative.
        weights: (R, K), on the simplex.
        reference: (R, V), the cumulative scores s_0 of the reference; what is impossible under it stays impossible.

    Returns:
        (R, V).
    """
    below = reference - scores  # -log u_i
    a = -_weighted_sum(F.softplus(below), weights)
    log_minus_a = _log_mean(_log_softplus(below), weights)
    log_rest = torch.where(log_minus_a < TINY_LOG, log_minus_a, torch.log(-torch.expm1(a)))
    fused = torch.where(reference == -math.inf, reference, reference + a - log_rest)
    return _exact_at_corners(fused, scores, weights)


def _weighted_sum(values: Tensor, weights: Tensor) -> Tensor:
    # multiplying zero by an infinite value would give nan
    columns = weights.T[..., None]
    return torch.where(columns == 0, torch.zeros((), dtype=values.dtype), values * columns).sum(dim=0)


def _log_mean(logs: Tensor, weights: Tensor) -> Tensor:
    """Return log sum_i w_i exp(logs_i)."""
    columns = weights.T[..., None]
    return torch.where(columns == 0, -math.inf, columns.log() + logs).logsumexp(dim=0)


def _log_softplus(values: Tensor) -> Tensor:
    # softplus(x) is exp(x) to the last bit of a float32 below TINY_LOG, and underflows further down
    return torch.where(values < TINY_LOG, values, F.softplus(values).log())


def _exact_at_corners(fused: Tensor, scores: Tensor, weights: Tensor) -> Tensor:
    # rounding could make ties there, and change the ranking
    largest, owner = weights.max(dim=1)
    own = scores[owner, torch.arange(len(owner), device=owner.device)]
    return torch.where(largest[:, None] == 1, own, fused)


def next_tokens(scores: Tensor, uniforms: Tensor, temperature: float, top_p: float) -> Tensor:
    """Choose a token per row: greedily at temperature zero, else by inverting the distribution at a given uniform.

    One uniform a row and step is all the noise there is, so that a row's text depends on its own seed and not on its
    company.

    Args:
        scores: (R, V), log-probabilities up to a constant.
        uniforms: (R,), in [0, 1).
        temperature: divides the scores; zero is greedy.
        top_p: smallest share of probability that the most likely tokens must hold to be drawn from.

    Returns:
        (R,), token ids, int64.
    """
    if temperature == 0:
        return scores.argmax(dim=-1)
    probabilities, tokens = torch.softmax(scores / temperature, dim=-1).sort(dim=-1, descending=True, stable=True)
    cumulative = probabilities.cumsum(dim=-1)
    mass = cumulative[:, -1]
    if top_p < 1:
        before = torch.nn.functional.pad(cumulative[:, :-1], (1, 0))
        inside = before < top_p  # the token that crosses top_p is inside
        mass = torch.where(inside, cumulative, 0).amax(dim=-1)
    rank = torch.searchsorted(cumulative, (uniforms * mass)[:, None], right=True).clamp_(max=scores.shape[-1] - 1)
    return tokens.gather(-1, rank).squeeze(-1)
