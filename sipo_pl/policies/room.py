"""How many rows are decoded at once: as many as the config says, or as a GPU's free memory holds."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from sipo_pl.errors import UserError
from sipo_pl.policies.decoding import Decoding, Request
from sipo_pl.policies.grouped import GroupedForward, TokenIds
from sipo_pl.policies.slots import prompt_places

CPU_ROWS = 64  # more gain nothing there
MOST_ROWS = 512
SHARE = 0.7  # of the free memory; the rest is for what a forward holds for a moment
SCORES = 4  # float32 numbers of every policy and vocabulary entry that choosing a token holds at once


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


@contextmanager
def room_for(key: str, value: object) -> Iterator[None]:
    """Within the block, a GPU without memory left is a UserError that names the config's key."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        what = str(error).split(". ")[1] if ". " in str(error) else str(error)
        raise UserError(f"{key}: {value} is too much for the GPU's memory ({what}); a smaller one needs less") from None
