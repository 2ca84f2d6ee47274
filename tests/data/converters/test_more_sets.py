"""HelpSteer2, HelpSteer3-Preference and UltraFeedback, on rows laid out as theirs."""

from typing import Any

import pytest

from sipo_pl.data.converters.helpsteer2 import HelpSteer2
from sipo_pl.data.converters.helpsteer3 import HelpSteer3
from sipo_pl.data.converters.ultrafeedback import UltraFeedback
from sipo_pl.messages.errors import UsageError, UserError
from sipo_pl.recipe.recipe import Objective

ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
TURNS = "Hello\n<extra_id_1>Assistant\nHi!\n<extra_id_1>User\nWho are you?"
MESSAGES = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi!"},
    {"role": "user", "content": "Who are you?"},
]


def located(*rows: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"f:{number}", row) for number, row in enumerate(rows, start=1)]


def steer2(prompt: str, response: str, *scores: int) -> dict[str, Any]:
    return {"prompt": prompt, "response": response, **dict(zip(ATTRIBUTES, scores, strict=True))}


def steer3(strength: int, *individual: int, domain: str = "general", **changes: Any) -> dict[str, Any]:
    annotators = [{"score": one, "reasoning": "", "feedback1": "", "feedback2": ""} for one in individual]
    context = [{"role": "user", "content": f"Question {strength} {individual}"}]
    row = {"domain": domain, "language": "english", "context": context, "response1": "One.", "response2": "Two."}
    return {**row, "overall_preference": strength, "individual_preference": annotators, **changes}


def feedback(*ratings: tuple[str, str]) -> dict[str, Any]:
    completions = [
        {
            "model": "m",
            "response": f"Text {place}.",
            "annotations": {
                "helpfulness": {"Rating": helpful, "Rationale": "", "Type": ["1"]},
                "honesty": {"Rating": honest, "Rationale": ""},
            },
            "overall_score": 7.5,
            "fine-grained_score": 3.5,
        }
        for place, (helpful, honest) in enumerate(ratings)
    ]
    return {"source": "x", "instruction": "Why?", "models": ["m"], "completions": completions}


def test_helpsteer2_pairs_attributes_and_unfolds_turns() -> None:
    rows = located(steer2(TURNS, "Me.", 4, 3, 4, 1, 1), steer2(TURNS, "A model.", 3, 3, 4, 2, 2))
    objectives = [Objective("helpfulness"), Objective("short", column="verbosity", direction="min")]
    found = HelpSteer2().pairs(rows, objectives).rows
    assert found[0]["prompt"] == MESSAGES
    assert found[0]["preferred"] == {"helpfulness": 0, "short": 0}
    assert HelpSteer2().prompts(rows).rows[0]["prompt"] == MESSAGES
    dropped = HelpSteer2(turns="drop").pairs([*rows, *located(steer2("a", "b", 0, 0, 0, 0, 0))], objectives)
    assert (dropped.rows, dropped.dropped["rows of several turns"]) == ([], 2)


@pytest.mark.parametrize(
    ("row", "match"),
    [
        (steer2("a", "b", 5, 0, 0, 0, 0), "f:1: key 'helpfulness': expected a number from 0 to 4"),
        (steer2("Hi\n<extra_id_1>User\nHo", "b", 1, 0, 0, 0, 0), "f:1: turns of User, User"),
        (steer2("Hi\n<extra_id_1>Assistant\nHo", "b", 1, 0, 0, 0, 0), "f:1: turns of User, Assistant"),
    ],
)
def test_helpsteer2_names_what_is_wrong(row: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        HelpSteer2().pairs(located(row), [Objective("helpfulness")])


def test_helpsteer3_reads_strengths_of_all_and_of_one() -> None:
    rows = located(steer3(-2, -1, 3), steer3(1, 0), steer3(3, 2, domain="code"))
    objectives = [
        Objective("overall", column="overall_preference"),
        Objective("second", column="individual_preference.1"),
        Objective("worse", column="overall_preference", direction="min"),
    ]
    found = HelpSteer3().pairs(rows, objectives[:2]).rows
    assert [row["preferred"] for row in found] == [
        {"overall": 0, "second": 1},
        {"overall": 1, "second": -1},  # the second annotator did not see it
        {"overall": 1, "second": -1},
    ]
    assert found[0]["response_0"] == "One."
    strong = HelpSteer3(least=2, domains=["general"]).pairs(rows, objectives[::2]).rows
    assert [row["preferred"] for row in strong] == [{"overall": 0, "worse": 1}, {"overall": -1, "worse": -1}]
    assert HelpSteer3().prompts(rows).rows[0]["prompt"] == rows[0][1]["context"]


@pytest.mark.parametrize(
    ("row", "match"),
    [
        (steer3(4), "f:1: key 'overall_preference': expected a number from -3 to 3"),
        ({key: value for key, value in steer3(1).items() if key != "response2"}, "f:1: no key 'response2'"),
    ],
)
def test_helpsteer3_names_what_is_wrong(row: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        HelpSteer3().pairs(located(row), [Objective("overall", column="overall_preference")])
    with pytest.raises(UsageError, match="least"):
        HelpSteer3(least=0)


def test_ultrafeedback_pairs_completions_by_aspect() -> None:
    rows = located(feedback(("4", "2"), ("3", "5"), ("N/A", "5"), ("4", "1")))
    found = UltraFeedback().pairs(rows, [Objective("helpfulness"), Objective("honesty")])
    assert [(row["pair_id"].partition("/")[2], row["preferred"]) for row in found.rows] == [
        ("0-1", {"helpfulness": 0, "honesty": 1}),
        ("0-2", {"helpfulness": -1, "honesty": 0}),
        ("1-2", {"helpfulness": 1, "honesty": 0}),
    ]
    assert found.dropped["completions without a rating"] == 1
    assert UltraFeedback().prompts(rows).rows[0]["prompt"] == "Why?"
    overall = UltraFeedback().pairs(rows, [Objective("overall_score")]).rows
    assert {row["preferred"]["overall_score"] for row in overall} == {-1}


def test_ultrafeedback_names_what_is_wrong() -> None:
    with pytest.raises(UserError, match="no aspect 'honest'; did you mean 'honesty'"):
        UltraFeedback().pairs([], [Objective("honest")])
    with pytest.raises(UserError, match=r"f:1: completion 0: key 'honesty.Rating': expected a number or N/A"):
        UltraFeedback().pairs(located(feedback(("4", "good"))), [Objective("honesty")])


def test_ultrafeedback_knows_the_tens_that_are_ones(logged: pytest.LogCaptureFixture) -> None:
    (where, row), *_ = located(feedback(("1", "1"), ("5", "5"), ("2", "1")))
    for completion, (overall, fine) in zip(row["completions"], ((10, 1.25), (10, 4.75), (4, None)), strict=True):
        completion |= {"overall_score": overall, "fine-grained_score": fine}
    objectives = [Objective("overall_score")]
    made = {}
    with logged.at_level("WARNING", logger="sipo_pl"):
        for way in ("drop", "one", "keep"):
            found = UltraFeedback(false_tens=way).pairs([(where, row)], objectives)
            made[way] = [one["preferred"]["overall_score"] for one in found.rows]
            assert found.dropped == ({"completions whose 10 means 1": 1} if way == "drop" else {})
    assert made == {"drop": [0], "one": [1, 1, 0], "keep": [-1, 0, 0]}
    assert "1 completions are rated 10 where their other ratings are low" in logged.text
    assert "left out (data.converter.init_args.false_tens)" in logged.text
    row["completions"][0]["annotations"]["honesty"]["Rating"] = "10"  # of five at most
    assert UltraFeedback(false_tens="one").pairs([(where, row)], [Objective("honesty")]).rows[0]["preferred"] == {
        "honesty": 1
    }
    with pytest.raises(UsageError, match="false_tens: no way 'dorp'; did you mean 'drop'"):
        UltraFeedback(false_tens="dorp")  # type: ignore[arg-type]
