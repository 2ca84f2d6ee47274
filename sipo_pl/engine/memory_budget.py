"""How much is computed at once: as much as the config says, or as a GPU's memory holds."""

import gc
import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from sipo_pl.engine.decoding.options import Decoding, Request
from sipo_pl.engine.decoding.slot_sizes import prompt_places
from sipo_pl.engine.lora.groups import GroupedForward, TokenIds
from sipo_pl.messages.errors import UserError

log = logging.getLogger("sipo_pl")

Result = TypeVar("Result")

CPU_ROWS = 64  # more gain nothing there
MOST_ROWS = 512
SHARE = 0.7  # of the free memory; the rest is for what a forward holds for a moment
SCORES = 4  # float32 numbers of every policy and vocabulary entry that choosing a token holds at once


class MemoryBudget:
    """How much is computed at once: half as much once a GPU's memory ran out, unless results must not depend on it.

    Args:
        fixed: raise an error where memory runs out, because other shapes use other kernels, which may change a text
    """

    def __init__(self, fixed: bool = True) -> None:
        self.fixed = fixed
        self.halved: dict[str, int] = {}  # key of the config -> the size that fitted

    def run(self, key: str, size: int, work: Callable[[int], Result]) -> Result:
        """Return `work(size)`; where memory runs out, try half the size, and remember it for the next work.

        Args:
            key: key of the config that sets the size, for messages.
            size: rows or tokens at once.
            work: starts from the beginning at each call.

        Raises:
            UserError: memory ran out, and the size is fixed or one.
        """
        size = min(size, self.halved.get(key, size))
        while True:
            try:
                return work(size)
            except torch.OutOfMemoryError as error:
                what = str(error).split(". ")[1] if ". " in str(error) else str(error)
            # here, where the error no longer holds the tensors of the forward that failed
            gc.collect()
            torch.cuda.empty_cache()
            problem = f"{key}: {size} is too much for the GPU's memory ({what})"
            if self.fixed or size == 1:
                way = "; or let it shrink by itself with recipe.reproducible: false" if size > 1 else ""
                raise UserError(f"{problem}; a smaller one needs less{way}")
            size //= 2
            self.halved[key] = size
            log.warning("%s; going on with %d", problem, size)


def rows_at_once(forward: GroupedForward, requests: Sequence[Request], decoding: Decoding) -> int:
    """Return how many of `requests` to decode at once.

    Args:
        forward: the groups; on a GPU, their keys and values are what rows take memory for.
        requests: all rows.
        decoding: `batch_rows` decides where it is given.
    """
    if decoding.batch_rows is not None:
        return decoding.batch_rows
    if forward.device.type != "cuda":
        return CPU_ROWS
    reserved = torch.cuda.memory_reserved(forward.device) - torch.cuda.memory_allocated(forward.device)
    free = torch.cuda.mem_get_info(forward.device)[0] + reserved
    prompts = [request.prompt_ids for request in requests]
    response = max(decoding.limit(len(prompt)) for prompt in prompts)
    score = SCORES * 4 * forward.groups * forward.vocabulary
    return most_rows(prompts, response, forward.token_bytes, score, int(SHARE * free))


def most_rows(prompts: Sequence[TokenIds], response: int, token_bytes: int, row_bytes: int, free: int) -> int:
    """Return the largest number of rows whose slots fit into memory, 1 at least and MOST_ROWS at most.

    Args:
        prompts: the prompts of all rows, those of a prompt together; slots hold each once for its rows.
        response: tokens that a response may grow to.
        token_bytes: keys and values of a token, of all groups.
        row_bytes: what a row takes beside its keys and values.
        free: bytes.
    """
    longest = max(map(len, prompts))

    def too_much(rows: int) -> bool:
        tokens = rows * response + prompt_places(prompts, rows) * longest
        return tokens * token_bytes + rows * row_bytes > free

    return max(1, bisect_left(range(1, min(MOST_ROWS, len(prompts)) + 1), True, key=too_much))
