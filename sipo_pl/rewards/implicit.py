"""Implicit rewards of all policies in one forward: r_k(x, y) = beta * (log pi_k(y|x) - log ref(y|x))."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from sipo_pl.data.templates import Encoded
from sipo_pl.losses import implicit_reward
from sipo_pl.policies.lora import LoRAStack
from sipo_pl.policies.shared_prompts import shared_prompt_logps


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
        batch_tokens: tokens of one forward at most, over all groups and padding, prompts counted for every row.
        on_rows: told rows and tokens of each forward, for progress.

    Returns:
        (K, len(rows)), float32, on the CPU.
    """
    groups = policies + 1
    rewards = torch.empty(policies, len(rows))
    for indices in _batches(rows, batch_tokens // groups):
        batch = [rows[index] for index in indices]
        logps = shared_prompt_logps(stack.model, groups, batch)
        rewards[:, indices] = implicit_reward(logps[:-1], logps[-1:], beta).cpu()
        on_rows(len(batch), sum(len(row.input_ids) for row in batch) * groups)
    return rewards


def _batches(rows: Sequence[Encoded], budget: int) -> Iterator[list[int]]:
    """Yield the rows' indices in batches of at most `budget` padded tokens, rows of a prompt together."""
    order = sorted(
        range(len(rows)), key=lambda i: (rows[i].input_ids[: rows[i].prompt_length], -rows[i].response_length)
    )
    batch: list[int] = []
    longest = 0
    for index in order:
        longest = max(longest, len(rows[index].input_ids))
        if batch and longest * (len(batch) + 1) > budget:
            yield batch
            batch, longest = [], len(rows[index].input_ids)
        batch.append(index)
    if batch:
        yield batch
