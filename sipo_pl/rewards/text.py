"""Rewards that are deterministic public formulas over the text: no model, no download."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from sipo_pl.rewards.base import Reward
from sipo_pl.text.prompt import TextRow

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)|\n+")
WORST_GRADE = 30.0

# articles, pronouns, prepositions, conjunctions, auxiliaries and common adverbs of English
FUNCTION_WORDS = frozenset(Path(__file__).with_name("function_words.txt").read_text(encoding="utf-8").split())


def words(text: str) -> list[str]:
    """Return the words of `text` in lower case; digits and signs are no words."""
    return [word.lower() for word in _WORD.findall(text)]


def detail(text: str) -> float:
    """Return log(1 + number of distinct content words), where content words are those that are no function words."""
    return math.log1p(len({word for word in words(text) if word not in FUNCTION_WORDS and len(word) > 1}))


def reading_grade(text: str) -> float:
    """Return the Coleman-Liau index, the school grade that a text asks for.

    0.0588 L - 0.296 S - 15.8 with L letters and S sentences per 100 words (Coleman and Liau, 1975), clamped to
    [0, 30]. A text without words has the worst grade. A line break ends a sentence, as in lists.
    """
    found = words(text)
    if not found:
        return WORST_GRADE
    sentences = sum(1 for part in _SENTENCE_END.split(text) if _WORD.search(part))
    letters = sum(len(word.replace("'", "").replace("’", "")) for word in found)
    grade = 0.0588 * (100 * letters / len(found)) - 0.296 * (100 * sentences / len(found)) - 15.8
    return min(max(grade, 0.0), WORST_GRADE)


class Detail(Reward):
    """How much a response says: `detail` of its text."""

    def score(self, rows: Sequence[TextRow]) -> list[float]:
        return [detail(row.response) for row in rows]


class Ease(Reward):
    """How easily a response reads: minus its `reading_grade`."""

    def score(self, rows: Sequence[TextRow]) -> list[float]:
        return [-reading_grade(row.response) for row in rows]


class Brevity(Reward):
    """How short a response is: minus its number of words."""

    def score(self, rows: Sequence[TextRow]) -> list[float]:
        return [-float(len(words(row.response))) for row in rows]


class Length(Reward):
    """How long a response is: its number of words."""

    def score(self, rows: Sequence[TextRow]) -> list[float]:
        return [float(len(words(row.response))) for row in rows]
