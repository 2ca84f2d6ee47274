"""Forwards of K adapter groups over cached prompts: a prompt is computed once for all the rows that share it."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from sipo_pl.policies.logprobs import decoder, positions

PromptIds = tuple[int, ...]


class GroupedForward:
    """Runs a model whose stack has `groups` active adapters, each row once in every group.

    Args:
        model: the base model with its stack.
        groups: K, the number of active adapters.
    """

    def __init__(self, model: PreTrainedModel, groups: int) -> None:
        self.model, self.groups, self.device = model, groups, model.device

    def prefill(self, prompts: Sequence[PromptIds]) -> tuple[Tensor, DynamicCache, Tensor]:
        """Compute the distinct prompts of some rows once, and hand each row its own part of the cache.

        Args:
            prompts: R prompts, one a row; equal ones are computed once.

        Returns:
            Hidden states of the last prompt token, (K, R, hidden); the cache, K * R rows; the prompts' mask,
            (R, length), padded on the left, so that the last position is every row's newest token.
        """
        distinct = list(dict.fromkeys(prompts))
        length = max(map(len, distinct))
        ids = torch.zeros(len(distinct), length, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for index, prompt in enumerate(distinct):
            ids[index, length - len(prompt) :] = torch.tensor(prompt)
            mask[index, length - len(prompt) :] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        cache = DynamicCache(config=self.model.config)
        hidden = self.forward(ids, mask, positions(mask), cache)[:, :, -1]
        where = {prompt: index for index, prompt in enumerate(distinct)}
        rows = torch.tensor([where[prompt] for prompt in prompts], device=self.device)
        self.select(cache, rows, len(distinct))
        return hidden[:, rows], cache, mask[rows]

    def forward(self, ids: Tensor, mask: Tensor, position_ids: Tensor, cache: DynamicCache) -> Tensor:
        """Run tokens behind what is cached.

        Args:
            ids: (R, new), int64.
            mask: (R, cached + new), one at real tokens.
            position_ids: (R, new).
            cache: of K * R rows; the new tokens are added to it.

        Returns:
            Hidden states, (K, R, new, hidden).
        """
        output = decoder(self.model)(
            input_ids=ids.repeat(self.groups, 1),
            attention_mask=mask.repeat(self.groups, 1),
            position_ids=position_ids.repeat(self.groups, 1),
            past_key_values=cache,
            use_cache=True,
        )
        hidden = output.last_hidden_state
        return hidden.view(self.groups, len(ids), *hidden.shape[1:])

    def select(self, cache: DynamicCache, rows: Tensor, size: int) -> None:
        """Keep `rows`, in their order, of each of the K groups of `size` cached rows."""
        offsets = torch.arange(self.groups, device=rows.device)[:, None] * size
        cache.batch_select_indices((offsets + rows[None]).flatten())
