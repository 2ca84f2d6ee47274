"""How far models are from true fusion: their next-token distributions beside the fused one, on fused answers."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from sipo_pl.engine.decoding.fused_rows import Fusion
from sipo_pl.engine.decoding.teacher_forcing import forced_tokens
from sipo_pl.engine.lora.policies import PolicySet
from sipo_pl.method.divergences import Divergence
from sipo_pl.text.templates import Encoded


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
    with policies.active(groups) as forward:
        fusion = Fusion(forward, divergence, reference)
        point = torch.tensor([weights], device=forward.device)
        for row in rows:
            for tokens in forced_tokens(fusion, [row], point):
                theirs = tokens.logps[count : count + len(others)]
                sums[0] += tokens.kl(theirs).sum(dim=1).cpu()
                sums[1] += (tokens.fused.argmax(-1) == theirs.argmax(-1)).sum(dim=1).cpu()
    total = sum(row.response_length for row in rows)
    return [Distance(float(kl) / total, float(same) / total, total) for kl, same in sums.T]
