"""Decoding-time fusion of several policies into one distribution (MOD, arXiv 2406.18853), as pure functions.

Shapes: K policies, R rows, V tokens. Everything is float32.
"""

import torch
from torch import Tensor


def fuse_reverse_kl(logps: Tensor, weights: Tensor) -> Tensor:
    """Return sum_i w_i log pi_i(v | x, y_<t), the fused score under reverse KL.

    The history of a row adds a constant to its scores, so the next token does not depend on it.

    Args:
        logps: (K, R, V), log-probabilities of the next token under each policy.
        weights: (R, K), on the simplex; w_i belongs to policy i.

    Returns:
        (R, V); up to a constant per row the log-probabilities of the fused distribution.
    """
    # multiplying zero by a log-probability of -inf would give nan
    terms = torch.where(weights.T[..., None] == 0, torch.zeros((), dtype=logps.dtype), logps * weights.T[..., None])
    return terms.sum(dim=0)


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
