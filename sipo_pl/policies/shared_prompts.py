"""Log-probabilities of responses that share prompts: each prompt is computed once, for scoring without gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sipo_pl.data.templates import Encoded
from sipo_pl.policies.grouped import GroupedForward
from sipo_pl.policies.logprobs import token_logps


def shared_prompt_logps(model: PreTrainedModel, groups: int, rows: Sequence[Encoded]) -> Tensor:
    """Return log pi_k(response | prompt) of every row under every adapter group; `response_logps`, with less work.

    Args:
        model: the base model with its stack of `groups` active adapters.
        groups: K.
        rows: R prompts with responses.

    Returns:
        (K, R), float32.
    """
    forward = GroupedForward(model, groups)
    before, cache, prompt_mask = forward.prefill([tuple(row.input_ids[: row.prompt_length]) for row in rows])
    lengths = torch.tensor([row.response_length for row in rows])[:, None]
    real = torch.arange(int(lengths.max()))[None] < lengths
    ids = torch.zeros(real.shape, dtype=torch.long)
    ids[real] = torch.tensor([token for row in rows for token in row.input_ids[row.prompt_length :]])
    ids, real = ids.to(forward.device), real.to(forward.device)
    hidden = before[:, :, None]  # the last prompt token predicts the first of the response
    if ids.shape[1] > 1:
        mask = torch.cat([prompt_mask, real[:, :-1].long()], dim=1)
        positions = prompt_mask.sum(dim=1, keepdim=True) + torch.arange(ids.shape[1] - 1, device=forward.device)
        hidden = torch.cat([hidden, forward.forward(ids[:, :-1], mask, positions, cache)], dim=2)
    picked = hidden[:, real].flatten(0, 1)
    logps = token_logps(model, picked, ids[real].repeat(groups)).view(groups, -1)
    owner = torch.arange(len(rows), device=forward.device)[:, None].expand_as(real)[real]
    return torch.zeros(groups, len(rows), device=forward.device).index_add(1, owner, logps)
