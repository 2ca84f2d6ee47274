"""Implicit rewards of all policies in one forward: r_k(x, y) = beta * (log pi_k(y|x) - log ref(y|x))."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sipo_pl.data.templates import Encoded
from sipo_pl.losses import implicit_reward
from sipo_pl.policies.logprobs import TokenBatch, collate, response_logps
from sipo_pl.policies.lora import LoRAStack


@torch.inference_mode()
def implicit_rewards(
    stack: LoRAStack,
    policies: int,
    rows: Sequence[Encoded],
    beta: float,
    batch_tokens: int,
    on_rows: Callable[[int, int], None] = lambda rows, tokens: None,
) -> Tensor:
    """Score rows under every policy of a stack whose last group is the reference.

    Args:
        stack: K + 1 adapter groups, the reference last.
        policies: K.
        rows: prompts with responses.
        beta: scale of the implicit reward.
        batch_tokens: tokens of one forward, over all groups and padding.
        on_rows: told rows and tokens of each forward, for progress.

    Returns:
        (K, len(rows)), float32, on the CPU.
    """
    groups = policies + 1
    rewards = torch.empty(policies, len(rows))
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].input_ids))
    start = 0
    while start < len(order):
        count = max(1, batch_tokens // (groups * len(rows[order[start]].input_ids)))
        indices = order[start : start + count]
        batch = collate([rows[i] for i in indices]).to(stack.model.device)
        repeated = TokenBatch(*(tensor.repeat(groups, 1) for tensor in batch))
        logps = response_logps(stack.model, repeated).view(groups, -1)
        rewards[:, indices] = implicit_reward(logps[:-1], logps[-1:], beta).cpu()
        on_rows(len(indices), int(batch.attention_mask.sum()) * groups)
        start += count
    return rewards
