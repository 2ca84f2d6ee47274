"""HelpSteer2's schema: HelpSteer's columns, and turns of a conversation marked inside the prompt."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from sipo_pl.data.checks import text_field
from sipo_pl.data.converters.base import Converted
from sipo_pl.data.converters.helpsteer import HelpSteer
from sipo_pl.data.readers import Located
from sipo_pl.data.rows import PairRow, PromptRow
from sipo_pl.interop.numbers import PositiveInt
from sipo_pl.messages.errors import UsageError, UserError
from sipo_pl.recipe.recipe import Objective
from sipo_pl.text.prompt import Prompt

SEVERAL_TURNS = "rows of several turns"
_TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")
_KINDS = ("messages", "drop")


class HelpSteer2(HelpSteer):
    """HelpSteer, whose prompts may hold earlier turns behind marks such as `<extra_id_1>Assistant`.

    Args:
        turns: such prompts become chat messages, which need a chat template, or are dropped; messages or drop
        prompt: column of the prompt
        response: column of the response
        score_range: least and largest score that is expected
        sums: name to the columns that it adds up; an objective's column may be such a name
        max_pairs: pairs of a prompt at most, drawn from all; 10,000 and an error beyond where not given
    """

    def __init__(
        self,
        turns: Literal["messages", "drop"] = "messages",
        prompt: str = "prompt",
        response: str = "response",
        score_range: Sequence[float] | None = (0, 4),
        sums: Mapping[str, Sequence[str]] | None = None,
        max_pairs: PositiveInt | None = None,
    ) -> None:
        if turns not in _KINDS:
            raise UsageError(f"data.converter.init_args.turns: expected {' or '.join(_KINDS)}, found {turns!r}")
        super().__init__(prompt, response, None if score_range is None else list(score_range), sums, max_pairs)
        self.turns = turns

    def pairs(self, rows: Iterable[Located], objectives: Sequence[Objective]) -> Converted[PairRow]:
        kept, dropped = self._unfold(rows)
        found = super().pairs(kept, objectives)
        found.dropped.update({SEVERAL_TURNS: dropped} if dropped else {})
        return found

    def prompts(self, rows: Iterable[Located]) -> Converted[PromptRow]:
        kept, dropped = self._unfold(rows)
        found = super().prompts(kept)
        found.dropped.update({SEVERAL_TURNS: dropped} if dropped else {})
        return found

    def _unfold(self, rows: Iterable[Located]) -> tuple[list[Located], int]:
        """Return the rows with their prompts as messages where there are turns, and how many were dropped."""
        kept: list[Located] = []
        dropped = 0
        for location, row in rows:
            prompt = unfolded(text_field((location, row), self.prompt_column), location)
            if isinstance(prompt, str) or self.turns == "messages":
                kept.append((location, {**row, self.prompt_column: prompt}))
            else:
                dropped += 1
        return kept, dropped


def unfolded(text: str, location: str) -> Prompt:
    """Return a prompt without marks as it is, and one with marks as chat messages.

    Raises:
        UserError: turns that do not alternate, or whose last is not the user's.
    """
    first, *rest = _TURN.split(text)
    if not rest:
        return text
    roles = ["User", *rest[::2]]
    if any(role != ("User", "Assistant")[place % 2] for place, role in enumerate(roles)) or len(roles) % 2 == 0:
        raise UserError(f"{location}: turns of {', '.join(roles)}; expected User and Assistant in turns, User last")
    texts = [first, *rest[1::2]]
    return [{"role": role.lower(), "content": part} for role, part in zip(roles, texts, strict=True)]
