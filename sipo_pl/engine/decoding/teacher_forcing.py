"""Fused teacher forcing: the fused distribution of the next token in the place of every token of given responses."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sipo_pl.engine.decoding.fused_rows import Fusion
from sipo_pl.engine.lora.groups import GroupedForward
from sipo_pl.text.templates import Encoded

POSITIONS = 256  # response tokens whose distributions over the vocabulary exist at once


class ForcedTokens(NamedTuple):
    """Some tokens of given responses, with the distributions of the next token in their places.

    Args:
        fused: (n, V), float32, log-probabilities under the fusion
        logps: (K, n, V), float32, log-probabilities under each group of the forward
        rows: (n,), int64, the row of each token
    """

    fused: Tensor
    logps: Tensor
    rows: Tensor

    def kl(self, logps: Tensor) -> Tensor:
        """Return KL(fused || other) at each token, (..., n), in nats, for other log-probabilities (..., n, V)."""
        terms = self.fused.exp() * (self.fused - logps)
        return torch.where(self.fused == -torch.inf, 0.0, terms).sum(dim=-1)


def forced_tokens(fusion: Fusion, rows: Sequence[Encoded], weights: Tensor) -> Iterator[ForcedTokens]:
    """Yield all tokens of the rows' responses, in order, some at a time.

    Args:
        fusion: the first groups of its forward are fused, as many as a row has weights.
        rows: prompts with responses, which one forward computes together.
        weights: (R, P), float32, those of the fused groups.
    """
    states, ids, which = _before_each_token(fusion.forward, rows)
    several = weights.shape[1] > 1
    history = None
    if fusion.rule.needs_history and several:
        history = _sums_before(fusion.forward.token_logps(states, ids), which)
    for at in torch.arange(len(ids), device=ids.device).split(POSITIONS):
        logps = torch.log_softmax(fusion.forward.logits(states[:, at]), dim=-1)
        fused = fusion.fuse(logps, None if history is None else history[:, at], weights[which[at]])
        yield ForcedTokens(torch.log_softmax(fused, dim=-1) if several else fused, logps, which[at])


def _sums_before(logps: Tensor, which: Tensor) -> Tensor:
    """Return, for each token, the sum of the log-probabilities of the tokens before it in its row; both (K, n)."""
    total = logps.cumsum(dim=1) - logps
    starts = torch.ones_like(which, dtype=torch.bool)
    starts[1:] = which[1:] != which[:-1]
    first = starts.nonzero().squeeze(1)[starts.cumsum(dim=0) - 1]
    return total - total[:, first]


def _before_each_token(forward: GroupedForward, rows: Sequence[Encoded]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the states (K, n, hidden) that predict the n tokens of all responses, the tokens, and the row of each.

    Equal rows stay apart, because their weights may differ.
    """
    hidden, level = forward.read([tuple(row.input_ids) for row in rows], [], [0] * len(rows), keep=False)
    starts = torch.tensor([row.prompt_length for row in rows], device=forward.device)[:, None]
    place = torch.arange(hidden.shape[2], device=forward.device) + 1  # of the token that a state predicts
    real = (place >= starts) & (place < level.lengths[:, None])
    ids = torch.tensor(
        [token for row in rows for token in row.input_ids[max(1, row.prompt_length) :]], device=forward.device
    )
    return hidden[:, real], ids, real.nonzero()[:, 0]
