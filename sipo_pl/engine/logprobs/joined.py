"""Fits of several adapters of one base, whose forwards and backward passes are one."""

import copy
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest
from typing import NamedTuple

from torch import Tensor
from transformers import PreTrainedModel

from sipo_pl.engine.decoding.attention import attend_along
from sipo_pl.engine.logprobs.chunked_backward import Sum, add_losses
from sipo_pl.engine.logprobs.packed_attention import NAME
from sipo_pl.engine.logprobs.packed_sequences import pack, packed_logps
from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.text.templates import Encoded


class Forward(NamedTuple):
    """A forward of an adapter in training, and the loss of what it gives.

    Args:
        rows: prompts with responses
        loss: their log-probabilities, (rows,), float32 -> a scalar
    """

    rows: Sequence[Encoded]
    loss: Callable[[Tensor], Tensor]


def twin(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model with modules of its own over the same weights: a stack may replace its linears."""
    shared = {id(one): one for one in chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, shared)


def joined_sums(stacks: Sequence[LoRAStack], forwards: Sequence[Sequence[Forward]]) -> list[Tensor]:
    """Return the sum of each adapter's losses; its backward pass gives the gradient to that adapter's parameters.

    The first forwards of all adapters are one, with one backward pass, then the second ones; an adapter with fewer
    leaves the rest to the others.

    Args:
        stacks: over twins of one base; each has the ranks of one adapter.
        forwards: of each adapter, at least one.

    Returns:
        A scalar for each adapter.
    """
    sums = [Sum(stack.trained) for stack in stacks]
    for at_once in zip_longest(*forwards):
        there = [(stacks[k], sums[k], one) for k, one in enumerate(at_once) if one is not None]
        taking = [stack for stack, _, _ in there]
        first = taking[0]
        packed = pack([one.rows for _, _, one in there]).to(first.model.device)
        with first.joined(taking, packed.lengths), attend_along(first.model, NAME):
            logps = packed_logps(first.model, packed)
            losses = [one.loss(found) for (_, _, one), found in zip(there, logps, strict=True)]
            add_losses([one for _, one, _ in there], losses)  # within, as layers may be computed again
    return [one.value for one in sums]
