"""Marks of generated texts that no pair should be made of: empty, cut, collapsed, duplicate."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sipo_pl.interop.numbers import IntFromTwo, PositiveInt, Share

MARKS = ("empty", "cut", "collapsed", "duplicate")

# Scripts that put no blanks between words (Thai, Lao, Burmese, Khmer, kana, Han): each character counts as a word.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_PIECE = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


@dataclass(frozen=True)
class MarkRules:
    """When a text counts as collapsed, that is, repeating itself.

    Args:
        ngram: how many words in a row count as one repeatable piece; single characters in scripts without blanks
        max_repeated_share: largest share of such pieces that may have occurred earlier in the text; in [0, 1]
        line_repeats: a line of two words or more that comes this many times in a row is a collapse; at least 2
        longest_word: a longer run of letters and digits is no word, so that its characters are looked at one by one
    """

    ngram: PositiveInt = 4
    max_repeated_share: Share = 0.4
    line_repeats: IntFromTwo = 3
    longest_word: PositiveInt = 40


def text_marks(text: str, finish_reason: Literal["eos", "length"], rules: MarkRules = MarkRules()) -> list[str]:
    """Return which of empty, cut and collapsed a generated text is, in this order.

    Args:
        text: the text as decoded, without special tokens; blanks around it do not matter.
        finish_reason: why its generation ended; "length" makes it a cut one.
        rules: when it counts as collapsed.

    Returns:
        "empty" where there is neither letter nor digit of any script, "cut", "collapsed"; an empty list for a sound
        text.
    """
    found = {
        "empty": not any(character.isalnum() for character in text),
        "cut": finish_reason == "length",
        "collapsed": is_collapsed(text, rules),
    }
    return [mark for mark in MARKS if found.get(mark)]


def is_unmarked(marks: Sequence[str]) -> bool:
    """Return whether a text of these marks is reviewed and scored, and may be kept."""
    return not marks


def is_collapsed(text: str, rules: MarkRules = MarkRules()) -> bool:
    """Return whether a text repeats itself beyond `rules`: in one line over and over, or in its runs of words."""
    return longest_line_run(text) >= rules.line_repeats or repeated_share(text, rules) > rules.max_repeated_share


def repeated_share(text: str, rules: MarkRules = MarkRules()) -> float:
    """Return the share of the text's word n-grams that occurred earlier in it; 0 where it is shorter than one."""
    words = _words(text, rules.longest_word)
    ngrams = [tuple(words[start : start + rules.ngram]) for start in range(len(words) - rules.ngram + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def longest_line_run(text: str) -> int:
    """Return how often a line of two words or more comes in a row at most.

    Case, blanks around a line, and lines without a word between do not count; code repeats lines of one word.
    """
    longest = run = 0
    previous: list[str] = []
    for line in text.splitlines():
        words = _PIECE.findall(line.casefold())
        if not words:
            continue
        run = run + 1 if words == previous else 1
        previous = words
        if len(words) > 1:
            longest = max(longest, run)
    return longest


def mark_duplicates(rows: Sequence[dict[str, Any]]) -> None:
    """Mark, in place, each row whose prompt and text equal an earlier one's.

    Args:
        rows: rows with `prompt_id`, `text` and `marks`; "duplicate" becomes the last of the marks. The first of equal
            rows stays unmarked.
    """
    seen: set[tuple[str, str]] = set()
    for row in rows:
        key = (row["prompt_id"], row["text"])
        if key in seen and "duplicate" not in row["marks"]:
            row["marks"] = [*row["marks"], "duplicate"]
        seen.add(key)


def _words(text: str, longest_word: int) -> list[str]:
    words: list[str] = []
    for piece in _PIECE.findall(text.casefold()):
        words.extend(piece if len(piece) > longest_word else [piece])
    return words
