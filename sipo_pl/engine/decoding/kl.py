"""How far responses are from the base model: the KL divergence of the fused distribution from that of the base."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from sipo_pl.engine.decoding.fused_rows import Fusion
from sipo_pl.engine.decoding.teacher_forcing import forced_tokens
from sipo_pl.engine.logprobs.response_logprobs import row_sums
from sipo_pl.engine.lora.policies import PolicySet
from sipo_pl.method.divergences import Divergence
from sipo_pl.text.templates import Encoded


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

    Over responses that are sampled at temperature one, its mean is the KL divergence of the policies from the base,
    without the noise of log-ratios. Over greedy responses it is that divergence at the tokens that were chosen.

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
            fusion = Fusion(forward, divergence, len(support) if divergence.needs_reference else None)
            work = partial(_measure, fusion, rows, shares, waiting, found)
            policies.memory_budget.run("model.batch_tokens", batch_tokens, work)
    return found


def _measure(
    fusion: Fusion,
    rows: Sequence[Encoded],
    weights: Mapping[int, Sequence[float]],
    waiting: list[int],
    found: list[float],
    tokens: int,
) -> None:
    """Measure the rows that wait, longest first, into `found`, with at most `tokens` tokens in a forward."""
    while waiting:
        batch = waiting[: max(1, tokens // (fusion.forward.groups * len(rows[waiting[0]].input_ids)))]
        shares = torch.tensor([weights[index] for index in batch], device=fusion.forward.device)
        values = _sums(fusion, [rows[index] for index in batch], shares)
        for index, value in zip(batch, values.tolist(), strict=True):
            found[index] = value
        del waiting[: len(batch)]


def _sums(fusion: Fusion, rows: Sequence[Encoded], weights: Tensor) -> Tensor:
    """Return the rows' sums, (R,); the last group is the base, `weights` (R, P) are those of the others."""
    values, owners = [], []
    for tokens in forced_tokens(fusion, rows, weights):
        values.append(tokens.kl(tokens.logps[-1]))
        owners.append(tokens.rows)
    return row_sums(torch.cat(values), torch.cat(owners), len(rows))
