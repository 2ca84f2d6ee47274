"""HelpSteer's schema: one response a row, with a score for each objective."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sipo_pl.data.checks import is_empty, number_field, prompt_field, response_field
from sipo_pl.data.converters.base import (
    EMPTY_PROMPT,
    ONE_RESPONSE,
    Converted,
    Converter,
    checked_range,
    preferred_index,
)
from sipo_pl.data.readers import Located
from sipo_pl.data.rows import PairRow
from sipo_pl.interop.numbers import PositiveInt
from sipo_pl.messages.errors import SettingError, UserError
from sipo_pl.recipe.recipe import Objective
from sipo_pl.text.prompt import Prompt, prompt_id

MANY = 10_000  # pairs of one prompt, more than which are made only where they are asked for
LEFT = "pairs over max_pairs of a prompt"


class _Scored(NamedTuple):
    position: int  # among the prompt's rows, dropped ones included, so that ids last
    text: str
    scores: dict[str, float]  # objective -> score, larger preferred


@dataclass
class _Group:
    prompt: Prompt
    prompt_id: str
    responses: list[_Scored] = field(default_factory=list)


class HelpSteer(Converter):
    """Every two responses of a prompt become a pair; each objective prefers the larger score, equal scores tie.

    Equal prompts belong together wherever in the split they stand.

    Args:
        prompt: column of the prompt, text or chat messages
        response: column of the response
        score_range: least and largest score that is expected, such as [0, 4]; any where not given
        sums: name to the columns that it adds up; an objective's column may be such a name
        max_pairs: pairs of a prompt at most, drawn from all; 10,000 and an error beyond where not given
    """

    def __init__(
        self,
        prompt: str = "prompt",
        response: str = "response",
        score_range: Sequence[float] | None = None,
        sums: Mapping[str, Sequence[str]] | None = None,
        max_pairs: PositiveInt | None = None,
    ) -> None:
        if max_pairs is not None and (isinstance(max_pairs, bool) or not isinstance(max_pairs, int) or max_pairs < 1):
            raise SettingError("max_pairs", f"expected a number from 1 on, found {max_pairs!r}")
        self.max_pairs = max_pairs
        self.prompt_column, self.response_column = prompt, response
        self.score_range, self.sums = checked_range(score_range, "score_range"), sums or {}

    def pairs(self, rows: Iterable[Located], objectives: Sequence[Objective]) -> Converted[PairRow]:
        dropped: Counter[str] = Counter()
        pairs: list[PairRow] = []
        for group in self._groups(rows, objectives, dropped):
            if len(group.responses) == 1:
                dropped[ONE_RESPONSE] += 1
            for first, second in self._twos(group, dropped):
                if reason := self.pairing.flaw(first.text, second.text):
                    dropped[reason] += 1
                else:
                    pairs.append(_pair(group, first, second))
        return Converted(pairs, dropped)

    def _twos(self, group: _Group, dropped: Counter[str]) -> Iterator[tuple[_Scored, _Scored]]:
        """Yield every two responses of a prompt, or as many as are asked for, in order."""
        responses = group.responses
        total, twos = math.comb(len(responses), 2), itertools.combinations(responses, 2)
        if self.max_pairs is None and total > MANY:
            shown, column = str(group.prompt)[:60], self.prompt_column
            raise UserError(
                f"data: {len(responses)} responses to the prompt {shown!r} make {total} pairs; "
                f"data.converter.init_args.max_pairs draws so many a prompt, where {column!r} is the column "
                "that tells prompts apart (init_args.prompt)"
            )
        if self.max_pairs is None or total <= self.max_pairs:
            yield from twos
            return
        dropped[LEFT] += total - self.max_pairs
        chosen = set(random.Random(group.prompt_id).sample(range(total), self.max_pairs))
        yield from (two for place, two in enumerate(twos) if place in chosen)

    def _groups(
        self, rows: Iterable[Located], objectives: Sequence[Objective], dropped: Counter[str]
    ) -> Iterable[_Group]:
        """Return the responses that are paired with each other."""
        read: list[tuple[Prompt, str, _Scored]] = []
        sizes: Counter[str] = Counter()
        for located in rows:
            prompt = prompt_field(located, self.prompt_column)
            text = response_field(located, self.response_column, prompt)
            scores = {objective.name: self._score(located, objective) for objective in objectives}
            name = prompt_id(prompt)
            read.append((prompt, name, _Scored(sizes[name], text, scores)))
            sizes[name] += 1
        names = [name for _, name, _ in read]
        groups: dict[Hashable, _Group] = {}
        for key, (prompt, name, scored) in zip(self.pairing.groups(names), read, strict=True):
            if is_empty(prompt):
                dropped[EMPTY_PROMPT] += 1
                continue
            group = groups.setdefault(key, _Group(prompt, name))
            if reason := self.pairing.flaw(scored.text):
                dropped[reason] += 1
            else:
                group.responses.append(scored)
        return groups.values()

    def _score(self, located: Located, objective: Objective) -> float:
        column = objective.column or objective.name
        score = sum(number_field(located, part, self.score_range) for part in self.sums.get(column, [column]))
        return score if objective.direction == "max" else 0.0 - score  # a plain minus would make -0.0 of 0.0


def _pair(group: _Group, first: _Scored, second: _Scored) -> PairRow:
    return {
        "pair_id": f"{group.prompt_id}/{first.position}-{second.position}",
        "prompt_id": group.prompt_id,
        "prompt": group.prompt,
        "response_0": first.text,
        "response_1": second.text,
        "preferred": {key: preferred_index(first.scores[key], second.scores[key]) for key in first.scores},
        "scores": {key: [first.scores[key], second.scores[key]] for key in first.scores},
    }
