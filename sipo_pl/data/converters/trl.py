"""Preference files in TRL's format, prompt, chosen and rejected, one or several for each objective."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from sipo_pl.data.checks import conversation, is_empty, prompt_field, response_field, text_field, wrong
from sipo_pl.data.converters.base import EMPTY_PROMPT, EMPTY_RESPONSE, IDENTICAL, Converted, Converter, distinct_prompts
from sipo_pl.data.readers import Located
from sipo_pl.data.rows import PairRow, PromptRow
from sipo_pl.messages.errors import UsageError, UserError, nearest
from sipo_pl.recipe.recipe import Objective
from sipo_pl.storage.json_lines import require_key
from sipo_pl.storage.unicode_names import same_name
from sipo_pl.text.prompt import Prompt, prompt_id

log = logging.getLogger("sipo_pl")

REPEATED = "rows that repeat an earlier one"
UNMATCHED = "pairs that not every objective has a row for"
ON_UNMATCHED = ("tie", "drop")


_Key = tuple[str, frozenset[str]]  # id of the prompt, and the two responses


class _Preference(NamedTuple):
    prompt: Prompt
    chosen: str
    rejected: str


@dataclass
class _Joined:
    prompt: Prompt
    responses: tuple[str, str]
    preferred: dict[str, Literal[0, 1, -1]] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)


class TRL(Converter):
    """Joins the objectives' files: rows of an equal prompt and the same two responses, in either order, are one pair.

    Prompt, chosen and rejected are text or chat messages. Without a prompt column the prompt is what chosen and
    rejected begin with: all messages but the last, or the text up to where they part.

    Args:
        prompt: column of the prompt; null where the prompt stands in chosen and rejected, although there is such a
            column
        chosen: column of the preferred response
        rejected: column of the other response
        unmatched: a pair that only some objectives have a row for is a tie in the others, or is dropped
        prompt_end: text with which a prompt inside chosen and rejected ends, such as "Assistant:"
    """

    def __init__(
        self,
        prompt: str | None = "prompt",
        chosen: str = "chosen",
        rejected: str = "rejected",
        unmatched: Literal["tie", "drop"] = "tie",
        prompt_end: str | None = None,
    ) -> None:
        if unmatched not in ON_UNMATCHED:
            raise UsageError(
                f"data.converter.init_args.unmatched: no kind {unmatched!r}{nearest(str(unmatched), ON_UNMATCHED)}"
            )
        self.own_prompt, self.sides, self.unmatched, self.prompt_end = prompt, (chosen, rejected), unmatched, prompt_end

    def joined(self, rows: Mapping[str, Iterable[Located]], objectives: Sequence[Objective]) -> Converted[PairRow]:
        dropped: Counter[str] = Counter()
        found: dict[_Key, _Joined] = {}
        for objective in objectives:
            for located in rows[objective.name]:
                row = self._preference(located)
                if reason := _unusable(row):
                    dropped[reason] += 1
                    continue
                key = (prompt_id(row.prompt), frozenset((row.chosen, row.rejected)))
                joined = found.setdefault(key, _Joined(row.prompt, (row.chosen, row.rejected)))
                _add(joined, row, objective, located[0], dropped)
        return Converted(self._pairs(found, objectives, dropped), dropped)

    def _pairs(
        self,
        found: Mapping[_Key, _Joined],
        objectives: Sequence[Objective],
        dropped: Counter[str],
    ) -> list[PairRow]:
        pairs: list[PairRow] = []
        seen: Counter[str] = Counter()
        missing: Counter[str] = Counter()
        for (name, _), joined in found.items():
            lacking = [one.name for one in objectives if one.name not in joined.preferred]
            missing.update(lacking)
            if lacking and self.unmatched == "drop":
                dropped[UNMATCHED] += 1
                continue
            pairs.append(
                {
                    "pair_id": f"{name}/{seen[name]}",
                    "prompt_id": name,
                    "prompt": joined.prompt,
                    "response_0": joined.responses[0],
                    "response_1": joined.responses[1],
                    "preferred": {one.name: joined.preferred.get(one.name, -1) for one in objectives},
                }
            )
            seen[name] += 1
        for name, count in missing.items():
            fate = "dropped" if self.unmatched == "drop" else "a tie there"
            log.warning("prepare: %s: no row for %d of %d pairs, each %s", name, count, len(found), fate)
        return pairs

    def prompts(self, rows: Iterable[Located]) -> Converted[PromptRow]:
        return distinct_prompts(self._prompt(located) for located in rows)

    def _preference(self, located: Located) -> _Preference:
        if self._has_prompt(located):
            prompt = prompt_field(located, str(self.own_prompt))
            return _Preference(prompt, *(response_field(located, side, prompt) for side in self.sides))
        location, row = located
        chosen, rejected = (require_key(row, side, location) for side in self.sides)
        if isinstance(chosen, list) and isinstance(rejected, list):
            return self._split_messages(location, chosen, rejected)
        return self._split_text(located)

    def _prompt(self, located: Located) -> Prompt:
        if self._has_prompt(located):
            return prompt_field(located, str(self.own_prompt))
        return self._preference(located).prompt

    def _has_prompt(self, located: Located) -> bool:
        location, row = located
        if self.own_prompt is None:
            return False
        has_prompt = same_name(self.own_prompt, row) is not None
        if not has_prompt and all(same_name(side, row) is None for side in self.sides):
            require_key(row, self.own_prompt, location)
        return has_prompt

    def _split_messages(self, location: str, chosen: list[Any], rejected: list[Any]) -> _Preference:
        whole = []
        for side, value in zip(self.sides, (chosen, rejected), strict=True):
            messages = conversation(value, location, side)
            if len(messages) < 2 or [message["role"] for message in messages[-2:]] != ["user", "assistant"]:
                raise wrong(location, side, "messages that end with the user's and the assistant's", value)
            whole.append(messages)
        if whole[0][:-1] != whole[1][:-1]:
            raise UserError(
                f"{location}: keys {self.sides[0]!r} and {self.sides[1]!r}: expected conversations that differ in "
                "their last message alone"
            )
        return _Preference(whole[0][:-1], whole[0][-1]["content"], whole[1][-1]["content"])

    def _split_text(self, located: Located) -> _Preference:
        location = located[0]
        chosen, rejected = (text_field(located, side) for side in self.sides)
        pairs = zip(chosen, rejected, strict=False)
        shared = next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(chosen), len(rejected)))
        if self.prompt_end is not None:
            end = chosen[:shared].rfind(self.prompt_end)
            if end == -1:
                raise UserError(
                    f"{location}: keys {self.sides[0]!r} and {self.sides[1]!r}: expected a common beginning that "
                    f"holds prompt_end {self.prompt_end!r}, found {chosen[:shared][-40:]!r}"
                )
            shared = end + len(self.prompt_end)
        elif shared and shared < max(len(chosen), len(rejected)) and chosen[shared - 1] == " ":
            shared -= 1  # the blank belongs to the response, as TRL has it
        if not shared:
            raise UserError(
                f"{location}: no key {self.own_prompt!r}, and {self.sides[0]!r} and {self.sides[1]!r} have no common "
                "beginning that could be the prompt"
            )
        return _Preference(chosen[:shared], chosen[shared:], rejected[shared:])


def _unusable(row: _Preference) -> str | None:
    if is_empty(row.prompt):
        return EMPTY_PROMPT
    if not row.chosen.strip() or not row.rejected.strip():
        return EMPTY_RESPONSE
    return IDENTICAL if row.chosen == row.rejected else None


def _add(joined: _Joined, row: _Preference, objective: Objective, location: str, dropped: Counter[str]) -> None:
    """Note the preference of a row; an objective of direction min prefers the rejected response."""
    preferred = row.chosen if objective.direction == "max" else row.rejected
    index: Literal[0, 1] = 0 if preferred == joined.responses[0] else 1
    earlier = joined.preferred.setdefault(objective.name, index)
    if earlier != index:
        place = joined.places[objective.name]
        raise UserError(f"{location}: expected the preference of {place}, which has the same pair, found the opposite")
    if objective.name in joined.places:
        dropped[REPEATED] += 1
    joined.places.setdefault(objective.name, location)
