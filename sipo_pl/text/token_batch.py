"""Tokenised rows as one right-padded batch with its masks."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sipo_pl.text.templates import Encoded


class TokenBatch(NamedTuple):
    """Right-padded rows.

    Args:
        input_ids: (rows, length), int64
        attention_mask: (rows, length), int64, one at real tokens
        response_mask: (rows, length), bool, true at response tokens, EOS included
    """

    input_ids: Tensor
    attention_mask: Tensor
    response_mask: Tensor

    def to(self, device: torch.device) -> "TokenBatch":
        return TokenBatch(*(tensor.to(device) for tensor in self))


def collate(rows: Sequence[Encoded], pad_id: int = 0) -> TokenBatch:
    """Pad rows on the right; masks come from lengths, never from token ids."""
    length = max(len(row.input_ids) for row in rows)
    input_ids = torch.full((len(rows), length), pad_id)
    lengths = torch.tensor([len(row.input_ids) for row in rows])[:, None]
    starts = torch.tensor([row.prompt_length for row in rows])[:, None]
    for index, row in enumerate(rows):
        input_ids[index, : len(row.input_ids)] = torch.tensor(row.input_ids)
    positions = torch.arange(length)[None]
    real = positions < lengths
    return TokenBatch(input_ids, real.long(), real & (positions >= starts))
