"""What converters return is checked: rows of a user's own class, and marks that another converter reads."""

import logging
from collections import Counter
from typing import Any

import numpy as np
import pytest

from sipo_pl.data.converters.base import Converted, Converter
from sipo_pl.data.converters.checks import checked_pairs, checked_prompts
from sipo_pl.data.converters.helpsteer import HelpSteer
from sipo_pl.data.converters.pairs import Pairs
from sipo_pl.data.converters.trl import TRL
from sipo_pl.data.quirks import say_quirks
from sipo_pl.messages.errors import SettingError, UserError
from sipo_pl.recipe.recipe import Objective, Template

OBJECTIVES = [Objective("kind"), Objective("short")]
ROW: dict[str, Any] = {
    "pair_id": "x/0",
    "prompt_id": "x",
    "prompt": "Why?",
    "response_0": "So.",
    "response_1": "No.",
    "preferred": {"kind": 0, "short": -1},
}


def checked(*rows: Any, **changes: Any) -> list[Any]:
    made = Converted(**{"rows": list(rows), "dropped": Counter(), **changes})
    return list(checked_pairs(made, Converter(), "pairs", OBJECTIVES).rows)


def test_sound_rows_pass_with_numbers_of_numpy_as_plain_ones() -> None:
    scored = {**ROW, "preferred": {"kind": np.int64(1), "short": -1}, "scores": {"kind": [np.float32(1), 2]}}
    (found,) = checked(scored)
    assert found["preferred"] == {"kind": 1, "short": -1}
    assert [type(one) for one in (found["preferred"]["kind"], found["scores"]["kind"][0])] == [int, float]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preferred": {"kind": 0}}, "row 1: key 'preferred.short': expected 0, 1, or -1 for a tie, found null"),
        ({"preferred": {"kind": 2, "short": 0}}, "row 1: key 'preferred.kind': expected 0, 1, or -1 for a tie"),
        ({"preferred": {"kind": True, "short": 0}}, "row 1: key 'preferred.kind': .* found the boolean true"),
        ({"preferred": {"kind": 1.0, "short": 0}}, "row 1: key 'preferred.kind'"),
        ({"preferred": [0, 1]}, "row 1: key 'preferred': expected an index for each objective, found the list"),
        ({"response_1": None}, "row 1: key 'response_1': expected text, found null"),
        ({"prompt": [{"role": "user"}]}, "row 1: key 'prompt': expected text or a list of chat messages"),
        ({"prompt": []}, "row 1: key 'prompt': expected text or a list of chat messages"),
        ({"pair_id": "x/0"}, "row 1: key 'pair_id': expected an id that no other pair has"),
        ({"pair_id": 3}, "row 1: key 'pair_id': expected text, found the number 3"),
        ({"scores": {"kind": [1.0]}}, "row 1: key 'scores.kind': expected two finite numbers"),
        ({"scores": {"kind": [1.0, float("nan")]}}, "row 1: key 'scores.kind': expected two finite numbers"),
    ],
)
def test_a_wrong_row_names_class_row_and_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"^data\.converter: Converter\.pairs: {message}"):
        checked(ROW, {**ROW, "pair_id": "x/1", **change})


def test_what_is_no_converted_is_named() -> None:
    for found, message in (
        ([ROW], "expected a Converted of rows and counts, found list"),
        (None, "expected a Converted of rows and counts, found NoneType"),
        (Converted(iter([ROW]), Counter()), "expected a list of rows, found list_iterator"),
        (Converted([("a", "b")], Counter()), "row 0: expected a dict, found tuple"),
        (Converted([dict(ROW)], Counter(), [1, 2]), "expected 1 slots, one for each row, found 2"),
    ):
        with pytest.raises(UserError, match=rf"Converter\.pairs: {message}"):
            checked_pairs(found, Converter(), "pairs", OBJECTIVES)
    with pytest.raises(UserError, match=r"Converter\.prompts: row 0: key 'prompt_id': expected text"):
        checked_prompts(Converted([{"prompt": "x"}], Counter()), Converter())


# well-known data


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("Hi\n<extra_id_1>Assistant\nYes?\n<extra_id_1>User\nWhy?", "converters.helpsteer2.HelpSteer2 makes messages"),
        ("\n\nHuman: Hi\n\nAssistant:", 'template.text: "{raw_prompt}" adds no marks'),
    ],
)
def test_marks_of_turns_in_prompts_are_said(prompt: str, said: str, logged: pytest.LogCaptureFixture) -> None:
    rows: list[Any] = [dict(ROW), {**ROW, "prompt_id": "y", "prompt": prompt}]
    with logged.at_level(logging.WARNING, logger="sipo_pl"):
        say_quirks("train", rows, Template())
        assert "train: 1 of 2 prompts hold turns marked by" in logged.text
        assert said in logged.text
        logged.clear()
        say_quirks("train", rows, Template(text="{raw_prompt}"))
    assert bool(logged.text) == ("extra_id" in prompt)


def responses(count: int) -> list[tuple[str, dict[str, Any]]]:
    return [(f"f:{i}", {"prompt": "p", "response": f"r{i}", "kind": i % 5, "short": 0}) for i in range(count)]


def test_thousands_of_responses_to_a_prompt_make_pairs_only_where_they_are_asked_for() -> None:
    with pytest.raises(
        UserError,
        match=r"150 responses .* make 11175 pairs; data\.converter\.init_args\.max_pairs draws",
    ):
        HelpSteer().pairs(responses(150), OBJECTIVES)
    found = HelpSteer(max_pairs=20).pairs(responses(150), OBJECTIVES)
    assert len(found.rows) == 20
    assert found.dropped == {"pairs over max_pairs of a prompt": 11155}
    assert found.rows == HelpSteer(max_pairs=20).pairs(responses(150), OBJECTIVES).rows
    assert len({row["response_0"] for row in found.rows}) > 10
    assert len(HelpSteer().pairs(responses(12), OBJECTIVES).rows) == 66
    with pytest.raises(SettingError, match="max_pairs: expected a number from 1 on, found 0"):
        HelpSteer(max_pairs=0)


# names in another normal form of Unicode

COMPOSED, APART = "gr\u00f6\u00dfe", "gro\u0308\u00dfe"


@pytest.mark.parametrize(("asked", "held"), [(COMPOSED, APART), (APART, COMPOSED)])
def test_columns_match_in_any_normal_form(asked: str, held: str) -> None:
    row = {held: 1, "prompt": "p", "response_0": "a", "response_1": "b"}
    objective = Objective(asked)
    assert objective.name == COMPOSED
    found = Pairs(label={asked: "sign"}).pairs([("f:1", row)], [Objective(asked, column=asked)])
    assert found.rows[0]["preferred"] == {COMPOSED: 0}
    with pytest.raises(UserError, match="expected 0, 1 or -1, found the number 3"):
        Pairs(label="sign").pairs([("f:1", {**row, held: 3})], [Objective("x", column=asked)])
    preference = {held: "p", "chosen": "a", "rejected": "b"}
    joined = TRL(prompt=asked).joined({COMPOSED: [("f:1", preference)]}, [objective])
    assert joined.rows[0]["prompt"] == "p"
