"""How far models are from true fusion: their next-token distributions beside the fused one, on fused answers."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sipo_pl.engine.lora.groups import GroupedForward
from sipo_pl.engine.lora.policies import PolicySet
from sipo_pl.method.divergences import Divergence
from sipo_pl.text.templates import Encoded

POSITIONS = 64  # whose logits, of all groups, exist at once


class Distance(NamedTuple):
    """Distance of one model from the fusion.

    Args:
        kl: mean over tokens of KL(fused || model), in nats
        agreement: share of tokens at which both have the same likeliest token
        tokens: how many tokens were looked at, EOS included
    """

    kl: float
    agreement: float
    tokens: int


@torch.inference_mode()
def distances(
    policies: PolicySet,
    weights: Sequence[float],
    divergence: Divergence,
    others: Sequence[int],
    rows: Sequence[Encoded],
) -> list[Distance]:
    """Compare models with the fusion of the first policies, at every token of given answers.

    Args:
        policies: the groups; the first len(weights) are fused.
        weights: of the fusion.
        divergence: its rule fuses.
        others: groups that are compared with the fusion.
        rows: prompts with the answers along which distributions are compared, those of the fusion itself as a rule.

    Returns:
        One for each of `others`.
    """
    count = len(weights)
    groups = [*range(count), *others]
    reference = None
    if divergence.needs_reference:
        groups.append(policies.common_reference(range(count)))
        reference = len(groups) - 1
    sums = torch.zeros(2, len(others), dtype=torch.float64)
    tokens = 0
    with policies.active(groups) as forward:
        for row in rows:
            logps = _logps(forward, row)
            fused = _fused(logps[:count], row, weights, divergence, None if reference is None else logps[reference])
            theirs = logps[count : count + len(others)]
            gaps = torch.where(fused == -torch.inf, 0.0, fused.exp() * (fused - theirs))
            sums[0] += gaps.sum(dim=(1, 2)).cpu()
            sums[1] += (fused.argmax(-1) == theirs.argmax(-1)).sum(dim=1).cpu()
            tokens += row.response_length
    return [Distance(float(kl) / tokens, float(same) / tokens, tokens) for kl, same in sums.T]


def _logps(forward: GroupedForward, row: Encoded) -> Tensor:
    """Return log-probabilities over the vocabulary at each response token, (K, n, V), float32."""
    hidden, _ = forward.read([tuple(row.input_ids[:-1])], [], [0], keep=False)
    states = hidden[:, 0, row.prompt_length - 1 :]
    return torch.cat([torch.log_softmax(forward.logits(part), -1) for part in states.split(POSITIONS, dim=1)], dim=1)


def _fused(
    logps: Tensor, row: Encoded, weights: Sequence[float], divergence: Divergence, reference: Tensor | None
) -> Tensor:
    """Return the fused log-probabilities at each response token, (n, V)."""
    ids = torch.tensor(row.input_ids[row.prompt_length :], device=logps.device)
    said = logps if reference is None else torch.cat([logps, reference[None]])
    if divergence.needs_history:
        taken = said.gather(-1, ids.expand(len(said), -1)[..., None])[..., 0]
        history = taken.cumsum(dim=1) - taken
        # differences alone matter, and large sums would cost the last digits
        said = said + (history - history.amin(dim=0))[..., None]
    point = torch.tensor(weights, device=logps.device).expand(len(ids), -1)
    scores = said[: len(weights)]
    return torch.log_softmax(divergence.fuse(scores, point, None if reference is None else said[-1]), dim=-1)
