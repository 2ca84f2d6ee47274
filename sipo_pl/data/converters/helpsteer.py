"""HelpSteer's schema: one response a row, with a score for each objective."""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sipo_pl.data.checks import is_empty, number_field, prompt_field, text_field
from sipo_pl.data.converters.base import (
    EMPTY_PROMPT,
    EMPTY_RESPONSE,
    IDENTICAL,
    ONE_RESPONSE,
    Converted,
    Converter,
    preferred_index,
)
from sipo_pl.data.readers import Located
from sipo_pl.data.rows import PairRow, Prompt, prompt_id
from sipo_pl.recipe import Objective


class _Scored(NamedTuple):
    position: int  # among the prompt's rows, dropped ones included, so that ids last
    text: str
    scores: dict[str, float]  # objective -> score, larger preferred


@dataclass
class _Group:
    prompt: Prompt
    size: int = 0
    responses: list[_Scored] = field(default_factory=list)


class HelpSteer(Converter):
    """Every two responses of a prompt become a pair; each objective prefers the larger score, equal scores tie.

    Equal prompts belong together wherever in the split they stand.

    Args:
        prompt: column of the prompt, text or chat messages
        response: column of the response
    """

    def __init__(self, prompt: str = "prompt", response: str = "response") -> None:
        self.prompt_column = prompt
        self.response_column = response

    def pairs(self, rows: Iterable[Located], objectives: Sequence[Objective]) -> Converted[PairRow]:
        dropped: Counter[str] = Counter()
        groups: dict[str, _Group] = {}
        for located in rows:
            prompt = prompt_field(located, self.prompt_column)
            text = text_field(located, self.response_column)
            scores = {objective.name: _score(located, objective) for objective in objectives}
            if is_empty(prompt):
                dropped[EMPTY_PROMPT] += 1
                continue
            group = groups.setdefault(prompt_id(prompt), _Group(prompt))
            if is_empty(text):
                dropped[EMPTY_RESPONSE] += 1
            else:
                group.responses.append(_Scored(group.size, text, scores))
            group.size += 1
        pairs: list[PairRow] = []
        for name, group in groups.items():
            if len(group.responses) == 1:
                dropped[ONE_RESPONSE] += 1
            for first, second in itertools.combinations(group.responses, 2):
                if first.text == second.text:
                    dropped[IDENTICAL] += 1
                else:
                    pairs.append(_pair(name, group.prompt, first, second))
        return Converted(pairs, dropped)


def _score(located: Located, objective: Objective) -> float:
    score = number_field(located, objective.column or objective.name)
    return score if objective.direction == "max" else 0.0 - score  # a plain minus would make -0.0 of 0.0


def _pair(name: str, prompt: Prompt, first: _Scored, second: _Scored) -> PairRow:
    return {
        "pair_id": f"{name}/{first.position}-{second.position}",
        "prompt_id": name,
        "prompt": prompt,
        "response_0": first.text,
        "response_1": second.text,
        "preferred": {key: preferred_index(first.scores[key], second.scores[key]) for key in first.scores},
        "scores": {key: [first.scores[key], second.scores[key]] for key in first.scores},
    }
