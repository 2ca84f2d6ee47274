"""Which rows a forward of a fit takes: as many as its token budget holds, those of a prompt together."""

from collections.abc import Hashable, Iterable, Sequence

import torch
from transformers import PreTrainedModel

from sipo_pl.engine.logprobs.packed_sequences import added_length
from sipo_pl.text.templates import Encoded

CPU_TOKENS = 512  # matrix products are at their best from there on, and what a forward keeps still lies in the caches
GPU_TOKENS = 8192
SHARE = 0.6  # of a GPU's free memory
HIDDEN, INNER = 24, 6  # states of a token that a layer keeps for the backward pass, by their width
CHECKPOINTED = 1 / 8  # of these, where layers are computed anew


def tokens_at_once(model: PreTrainedModel, checkpointing: bool) -> int:
    """Return the tokens of a forward that suit the model's device, as far as a GPU's free memory holds them."""
    if model.device.type != "cuda":
        return CPU_TOKENS
    config = model.config.get_text_config()
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    token = config.num_hidden_layers * (HIDDEN * config.hidden_size + INNER * inner) * model.dtype.itemsize
    # among it what graphs keep between replays, so that the budget is the same before and after they are captured
    cached = torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
    free = torch.cuda.mem_get_info(model.device)[0] + cached
    return max(1, min(GPU_TOKENS, int(SHARE * free / (token * (CHECKPOINTED if checkpointing else 1)))))


def forwards_of(items: Sequence[Iterable[Encoded]], budget: int | None) -> list[list[int]]:
    """Return the items that each forward takes, by their indices.

    Args:
        items: the rows of each, such as both of a pair, which stay together.
        budget: tokens of a forward, packed; an item that is longer has a forward of its own. All in one where None.
    """
    if budget is None:
        return [list(range(len(items)))]
    rows = [list(item) for item in items]
    prompts: dict[tuple[int, ...], list[int]] = {}
    for index, item in enumerate(rows):
        prompts.setdefault(tuple(item[0].input_ids[: item[0].prompt_length]), []).append(index)
    forwards: list[list[int]] = []
    length, there = 0, set[Hashable]()  # of the last forward
    for index in (index for together in prompts.values() for index in together):
        length += added_length(rows[index], there)
        if forwards and length <= budget:
            forwards[-1].append(index)
        else:
            there = set()
            length = added_length(rows[index], there)
            forwards.append([index])
    return forwards
