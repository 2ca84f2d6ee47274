"""How much slots hold: rows, prompts and tokens, known beforehand or grown into."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sipo_pl.engine.lora.groups import TokenIds


@dataclass(frozen=True)
class SlotSizes:
    """What slots have room for.

    Args:
        rows: R, the number of slots
        prompts: prompts held at once
        prompt_tokens: tokens that a prompt may have behind the header
        response_tokens: tokens that a response may grow to
        members: rows behind one prompt
        header: what all prompts begin with, computed once for all of them
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


def prompt_places(prompts: Sequence[TokenIds], rows: int) -> int:
    """Return how many distinct prompts are held for `rows` slots, those of a prompt in succession.

    Rows of a prompt end at different times: twice as many prompts are at work as would fill the slots.
    """
    starts = [0, *(int(a != b) for a, b in itertools.pairwise(prompts))]
    seen = list(itertools.accumulate(starts))  # number of each row's prompt
    most = max(seen[min(i + rows, len(seen)) - 1] - seen[i] + 1 for i in range(len(seen)))
    return min(seen[-1] + 1, 2 * most)


def common_header(prompts: Sequence[TokenIds], least: int = 16) -> TokenIds:
    """Return what all prompts begin with, at least one token shorter than each; nothing if it is short or alone.

    A header costs every step a little; a chat template's two dozen tokens pay for it.
    """
    if len(prompts) < 2:
        return ()
    first, last = min(prompts), max(prompts)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    length = min(length, min(map(len, prompts)) - 1)
    return first[:length] if length >= least else ()
