"""How many rows, prompts and tokens slots hold: known beforehand, or grown as rows come."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sipo_pl.engine.lora.groups import TokenIds

LEAST_TOKENS = 64  # tokens that prompts and responses have room for at first, where they grow as rows come


@dataclass(frozen=True)
class SlotSizes:
    """What slots have room for.

    Args:
        rows: R, the number of slots
        prompts: distinct prompts that are held at once
        prompt_tokens: tokens that a prompt may have behind the header
        response_tokens: tokens that a response may grow to
        members: rows that continue one prompt, at most
        header: tokens that all prompts begin with, which are computed once for all of them
    """

    rows: int
    prompts: int
    prompt_tokens: int
    response_tokens: int
    members: int = 1
    header: TokenIds = ()

    @classmethod
    def of(cls, prompts: Sequence[TokenIds], rows: int, response_tokens: int) -> "SlotSizes":
        """Return the sizes for prompts that are all known.

        Args:
            prompts: the prompts to come, one for each row to come, in order, those of a prompt together.
            rows: the number of slots.
            response_tokens: tokens that a response may grow to.
        """
        counts = Counter(prompts)
        header = common_header(list(counts))
        longest = max(map(len, counts)) - len(header)
        return cls(
            rows, prompt_places(prompts, rows), longest, response_tokens, min(rows, max(counts.values())), header
        )

    @classmethod
    def grown(
        cls, rows: int = 0, prompt_tokens: int = 0, response_tokens: int = 0, *, most_rows: int = 0
    ) -> "SlotSizes":
        """Return the sizes, in powers of two, for rows of which more may come; every row may have its own prompt.

        Args:
            rows: rows that need a slot now.
            prompt_tokens: tokens of the longest prompt.
            response_tokens: tokens of the longest response so far.
            most_rows: slots are never more.
        """
        slots = min(most_rows, _power_of_two(rows))
        prompt, response = (max(LEAST_TOKENS, _power_of_two(count)) for count in (prompt_tokens, response_tokens))
        return cls(slots, slots, prompt, response)


def _power_of_two(count: int) -> int:
    return 1 << max(0, count - 1).bit_length()


def prompt_places(prompts: Sequence[TokenIds], rows: int) -> int:
    """Return how many distinct prompts are held for `rows` slots, where the rows of one prompt follow one another.

    Rows of one prompt end at different times, so that up to twice as many prompts are in use as would fill the slots.
    """
    starts = [0, *(int(a != b) for a, b in itertools.pairwise(prompts))]
    seen = list(itertools.accumulate(starts))  # number of each row's prompt
    most = max(seen[min(i + rows, len(seen)) - 1] - seen[i] + 1 for i in range(len(seen)))
    return min(seen[-1] + 1, 2 * most)


def common_header(prompts: Sequence[TokenIds], least: int = 16) -> TokenIds:
    """Return the tokens that all prompts begin with; none where they are fewer than `least`, or there is one prompt.

    A header is at least one token shorter than each prompt. It costs every step a little; the two dozen tokens of a
    chat template are worth it.
    """
    if len(prompts) < 2:
        return ()
    first, last = min(prompts), max(prompts)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    length = min(length, min(map(len, prompts)) - 1)
    return first[:length] if length >= least else ()
