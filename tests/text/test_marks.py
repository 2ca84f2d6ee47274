from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipo_pl.text.marks import MARKS, MarkRules, longest_line_run, mark_duplicates, repeated_share, text_marks

SOUND = """Leaves take in light. With it they turn water and air into sugar, which feeds the plant.

1. Light comes from the sun.
2. Water comes from the roots."""


@pytest.mark.parametrize(
    "text", [SOUND, "42", "Yes.", "光合作用是植物利用阳光制造养分的过程。", "ต้นไม้ต้องการแสงแดด", "हाँ", "é"]
)
def test_a_sound_text_has_no_marks(text: str) -> None:
    assert text_marks(text, "eos") == []


@pytest.mark.parametrize("text", ["", " \n\t", "...", "- - -\n***", "!?", "👍"])
def test_a_text_without_a_word_is_empty(text: str) -> None:
    assert text_marks(text, "eos") == ["empty"]


def test_a_text_that_reached_the_length_is_cut() -> None:
    assert text_marks(SOUND, "length") == ["cut"]


@pytest.mark.parametrize(
    "text",
    [
        "Boil an egg: " * 8,
        "yes yes yes yes yes yes yes yes",
        SOUND + "\n" + "It is good for you and for me and " * 12,
        "Say more.\nSay more.\n\n  say more.",
        "很好很好很好很好很好很好很好很好",
        "ดีมาก" * 8,
        "ha" * 40,
    ],
)
def test_a_repeating_text_is_collapsed(text: str) -> None:
    assert text_marks(text, "eos") == ["collapsed"]


@pytest.mark.parametrize(
    "text",
    [
        "Row, row, row your boat, gently down the stream.",
        "| a | b |\n| - | - |\n| - | - |\n| - | - |\n| 1 | 2 |",
        "No.\nNo.\nYes.\nNo.",
        "no no no",
    ],
)
def test_a_little_repetition_is_no_collapse(text: str) -> None:
    assert text_marks(text, "eos") == []


def test_marks_come_in_a_fixed_order() -> None:
    assert text_marks("", "length") == ["empty", "cut"]
    assert text_marks("so it goes on " * 9, "length") == ["cut", "collapsed"]


def test_the_rules_decide() -> None:
    text = "one two three four one two three four"
    assert repeated_share(text) == pytest.approx(1 / 5)  # 5 n-grams, of which the last has come before
    assert text_marks(text, "eos", MarkRules(max_repeated_share=0.1)) == ["collapsed"]
    assert text_marks(text, "eos", MarkRules(ngram=9, max_repeated_share=0.0)) == []
    assert text_marks("Say more.\nSay more.", "eos", MarkRules(line_repeats=2)) == ["collapsed"]
    assert text_marks("ab" * 10, "eos", MarkRules(longest_word=10)) == ["collapsed"]


def test_lines_are_counted_in_a_row() -> None:
    assert longest_line_run("") == 0
    assert longest_line_run("a b\nc d\na b\nc d") == 1
    assert longest_line_run("a b\nc d\n\nC d \n---\nc d\ne f") == 3


def test_lines_of_one_word_are_no_collapse() -> None:
    text = "<p>Enjoy your meal, and come again soon!</p>\n</div>\n</div>\n</div>"
    assert longest_line_run(text) == 1
    assert text_marks(text, "eos") == []


def row(prompt_id: str, text: str, marks: list[str]) -> dict[str, Any]:
    return {"prompt_id": prompt_id, "text": text, "marks": marks}


def test_the_later_of_equal_texts_of_a_prompt_is_a_duplicate() -> None:
    rows = [row("p", "x", []), row("q", "x", []), row("p", "x", ["cut"]), row("p", "y", []), row("p", "x", [])]
    mark_duplicates(rows)
    assert [row["marks"] for row in rows] == [[], [], ["cut", "duplicate"], [], ["duplicate"]]
    mark_duplicates(rows)
    assert rows[4]["marks"] == ["duplicate"]


@given(st.text(), st.sampled_from(["eos", "length"]))
def test_any_text_gets_known_marks_in_order(text: str, finish_reason: Any) -> None:
    marks = text_marks(text, finish_reason)
    assert marks == [mark for mark in MARKS if mark in marks]
    assert ("cut" in marks) == (finish_reason == "length")
    assert text_marks(f" {text}\n", finish_reason) == marks


@given(st.lists(st.tuples(st.sampled_from("pq"), st.sampled_from("xyz")), max_size=12))
def test_as_many_rows_stay_unmarked_as_there_are_different_texts(keys: list[tuple[str, str]]) -> None:
    rows = [row(prompt_id, text, []) for prompt_id, text in keys]
    mark_duplicates(rows)
    assert sum(not row["marks"] for row in rows) == len(set(keys))
