"""How far responses lead from the base model: the KL divergence of the fused distribution from the base's."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from sipo_pl.engine.logprobs.response_logprobs import row_sums
from sipo_pl.engine.lora.groups import GroupedForward
from sipo_pl.engine.lora.policies import PolicySet
from sipo_pl.method.divergences import Divergence
from sipo_pl.text.templates import Encoded

POSITIONS = 256  # response tokens whose distributions over the vocabulary exist at once


@torch.inference_mode()
def kl_to_base(
    policies: PolicySet,
    base: int,
    rows: Sequence[Encoded],
    weights: Sequence[Sequence[float]],
    divergence: Divergence,
    batch_tokens: int,
) -> list[float]:
    """Return each response's sum over tokens of KL(fused distribution of the next token || the base model's), in nats.

    Over responses that are sampled at temperature one its mean is the KL divergence of the policies from the base,
    without the noise of log-ratios; over greedy ones it tells how far they strayed along their own way.

    Args:
        policies: the groups.
        base: the group that is the base model alone.
        rows: prompts with responses, as they were generated.
        weights: those of each row, over the groups; groups beyond have none.
        divergence: its rule fuses the policies.
        batch_tokens: tokens of one forward at most, over all groups and padding.
    """
    found = [0.0] * len(rows)
    by_support: dict[tuple[int, ...], list[int]] = {}
    for index, row_weights in enumerate(weights):
        support = tuple(k for k, weight in enumerate(row_weights) if weight > 0)
        if support != (base,) and rows[index].response_length:
            by_support.setdefault(support, []).append(index)
    for support, members in by_support.items():
        waiting = sorted(members, key=lambda i: -len(rows[i].input_ids))
        with policies.active([*support, base]) as forward:
            shares = {i: [weights[i][k] for k in support] for i in members}
            work = partial(_measure, forward, rows, shares, divergence, waiting, found)
            policies.room.run("model.batch_tokens", batch_tokens, work)
    return found


def _measure(
    forward: GroupedForward,
    rows: Sequence[Encoded],
    weights: Mapping[int, Sequence[float]],
    divergence: Divergence,
    waiting: list[int],
    found: list[float],
    tokens: int,
) -> None:
    """Put the values of the rows that wait, longest first, into `found`, with `tokens` in a forward at most."""
    while waiting:
        batch = waiting[: max(1, tokens // (forward.groups * len(rows[waiting[0]].input_ids)))]
        shares = torch.tensor([weights[index] for index in batch], device=forward.device)
        values = _sums(forward, [rows[index] for index in batch], shares, divergence)
        for index, value in zip(batch, values.tolist(), strict=True):
            found[index] = value
        del waiting[: len(batch)]


def _sums(forward: GroupedForward, rows: Sequence[Encoded], weights: Tensor, divergence: Divergence) -> Tensor:
    """Return the rows' sums, (R,); the last group is the base, `weights` (R, K) are those of the others."""
    states, ids, which = _before_each_token(forward, rows)
    said = torch.zeros(forward.groups, len(ids), device=forward.device)
    if divergence.needs_history and weights.shape[1] > 1:
        said = _said_before(forward.token_logps(states, ids), which)
    parts = []
    for at in torch.arange(len(ids), device=forward.device).split(POSITIONS):
        logps = torch.log_softmax(forward.logits(states[:, at]), dim=-1)
        fused = logps[0]
        if weights.shape[1] > 1:
            scores = logps + said[:, at, None]
            reference = scores[-1] if divergence.needs_reference else None
            fused = torch.log_softmax(divergence.fuse(scores[:-1], weights[which[at]], reference), dim=-1)
        terms = fused.exp() * (fused - logps[-1])
        parts.append(torch.where(fused == -torch.inf, 0.0, terms).sum(dim=-1))
    return row_sums(torch.cat(parts), which, len(rows))


def _said_before(logps: Tensor, which: Tensor) -> Tensor:
    """Return, for each token, the log-probability of what its row said before it; both (K, n)."""
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
