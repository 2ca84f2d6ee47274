from typing import Any

import pytest

from sipo_pl.data.converters.trl import TRL
from sipo_pl.messages.errors import UsageError, UserError
from sipo_pl.recipe.recipe import Objective
from sipo_pl.text.prompt import prompt_id

OBJECTIVES = [Objective("x"), Objective("y")]
USER, OTHER = {"role": "user", "content": "p"}, {"role": "user", "content": "q"}


def row(prompt: Any, chosen: Any, rejected: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def says(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def files(**rows: list[dict[str, Any]]) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    return {name: [(f"{name}.jsonl:{i}", one) for i, one in enumerate(found, 1)] for name, found in rows.items()}


def shown(rows: list[Any]) -> list[tuple[Any, ...]]:
    return [(one["prompt"], one["response_0"], one["response_1"], *one["preferred"].values()) for one in rows]


def test_rows_of_equal_prompts_and_responses_are_joined_in_either_order() -> None:
    x = [row("p", "a", "b"), row("p", "a", "c"), row("q", "a", "b")]
    y = [row("q", "a", "b"), row("p", "b", "a"), row("p", "a", "c")]
    found = TRL().joined(files(x=x, y=y), OBJECTIVES)
    assert shown(found.rows) == [("p", "a", "b", 0, 1), ("p", "a", "c", 0, 0), ("q", "a", "b", 0, 0)]
    assert [one["pair_id"] for one in found.rows] == [
        f"{prompt_id('p')}/0",
        f"{prompt_id('p')}/1",
        f"{prompt_id('q')}/0",
    ]


def test_three_objectives_and_one_that_is_turned_around() -> None:
    objectives = [*OBJECTIVES, Objective("z", direction="min")]
    given = files(x=[row("p", "a", "b")], y=[row("p", "b", "a")], z=[row("p", "a", "b")])
    assert shown(TRL().joined(given, objectives).rows) == [("p", "a", "b", 0, 1, 1)]


def test_pairs_that_one_objective_lacks_tie_there_or_go(logged: pytest.LogCaptureFixture) -> None:
    given = {"x": [row("p", "a", "b"), row("q", "a", "b")], "y": [row("p", "a", "b"), row("p", "a", "c")]}
    found = TRL().joined(files(**given), OBJECTIVES)
    assert shown(found.rows) == [("p", "a", "b", 0, 0), ("q", "a", "b", 0, -1), ("p", "a", "c", -1, 0)]
    assert logged.messages == [
        "prepare: y: no row for 1 of 3 pairs, each a tie there",
        "prepare: x: no row for 1 of 3 pairs, each a tie there",
    ]
    found = TRL(unmatched="drop").joined(files(**given), OBJECTIVES)
    assert shown(found.rows) == [("p", "a", "b", 0, 0)]
    assert found.dropped == {"pairs that not every objective has a row for": 2}


def test_what_is_no_preference_is_counted() -> None:
    x = [row("p", "a", "b"), row("p", "a", "b"), row("", "a", "b"), row("p", "a", "a"), row("p", " ", "a")]
    found = TRL().joined(files(x=x, y=x[:1]), OBJECTIVES)
    assert shown(found.rows) == [("p", "a", "b", 0, 0)]
    assert found.dropped == {
        "rows that repeat an earlier one": 1,
        "rows with an empty prompt": 1,
        "pairs of identical responses": 1,
        "rows with an empty response": 1,
    }


@pytest.mark.parametrize(
    ("given", "prompt"),
    [
        (row([USER], [says("a")], [says("b")]), [USER]),
        (row([USER], "a", "b"), [USER]),
        ({"chosen": [USER, says("a")], "rejected": [USER, says("b")]}, [USER]),
        (
            {"chosen": [USER, says("c"), OTHER, says("a")], "rejected": [USER, says("c"), OTHER, says("b")]},
            [USER, says("c"), OTHER],
        ),
    ],
)
def test_conversations_with_and_without_a_prompt(given: dict[str, Any], prompt: Any) -> None:
    assert shown(TRL().joined(files(x=[given], y=[given]), OBJECTIVES).rows) == [(prompt, "a", "b", 0, 0)]
    assert [one["prompt"] for one in TRL().prompts([("f:1", given), ("f:2", given)]).rows] == [prompt]


def test_a_prompt_inside_the_texts() -> None:
    given = {"chosen": "Human: why? Assistant: so it is", "rejected": "Human: why? Assistant: so it was"}
    found = TRL().joined(files(x=[given], y=[given]), OBJECTIVES).rows
    assert shown(found) == [("Human: why? Assistant: so it", " is", " was", 0, 0)]  # as TRL splits it
    found = TRL(prompt_end="Assistant:").joined(files(x=[given], y=[given]), OBJECTIVES).rows
    assert shown(found) == [("Human: why? Assistant:", " so it is", " so it was", 0, 0)]


def test_a_prompt_column_may_be_left_aside() -> None:
    given = row("p", [USER, says("a")], [USER, says("b")])
    assert shown(TRL(prompt=None).joined(files(x=[given], y=[given]), OBJECTIVES).rows) == [([USER], "a", "b", 0, 0)]


@pytest.mark.parametrize(
    ("arguments", "wrong", "message"),
    [
        ({}, {"prompt": "p", "chosen": "a"}, "no key 'rejected'"),
        ({}, {"promt": "p", "text": "a"}, "no key 'prompt'; did you mean 'promt'"),
        ({}, row("p", [says("a")], "b"), "key 'chosen': expected text, as the prompt is text, found the list"),
        ({}, row([USER], [says("a")], [OTHER]), "key 'rejected': expected text or one message of the assistant, found"),
        ({}, row([says("a")], "a", "b"), "key 'prompt': the last message must be the user's, found role 'assistant'"),
        ({}, {"chosen": [USER, says("a")], "rejected": "b"}, "key 'chosen': expected a string, found the list"),
        (
            {},
            {"chosen": [USER, says("a")], "rejected": [OTHER, says("b")]},
            "keys 'chosen' and 'rejected': expected conversations that differ in their last message alone",
        ),
        (
            {},
            {"chosen": [USER, says("a"), OTHER], "rejected": [USER, says("b")]},
            "key 'chosen': expected messages that end with the user's and the assistant's, found the list",
        ),
        (
            {},
            {"chosen": "aa", "rejected": "bb"},
            "no key 'prompt', and 'chosen' and 'rejected' have no common beginning that could be the prompt",
        ),
        (
            {"prompt_end": "Assistant:"},
            {"chosen": "Human: a", "rejected": "Human: b"},
            "keys 'chosen' and 'rejected': expected a common beginning that holds prompt_end 'Assistant:', found 'Hum",
        ),
        (
            {},
            row("p", "b", "a"),
            r"expected the preference of y\.jsonl:1, which has the same pair, found the opposite",
        ),
    ],
)
def test_wrong_rows(arguments: dict[str, Any], wrong: dict[str, Any], message: str) -> None:
    good = row("p", "a", "b") if "prompt_end" not in arguments else {"chosen": "Assistant:a", "rejected": "Assistant:b"}
    with pytest.raises(UserError, match=rf"^y\.jsonl:2: {message}"):
        TRL(**arguments).joined(files(x=[good], y=[good, wrong]), OBJECTIVES)


def test_wrong_uses() -> None:
    with pytest.raises(UsageError, match=r"init_args\.unmatched: no kind 'ties'; did you mean 'tie'\?"):
        TRL(unmatched="ties")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"converter TRL takes files by objective, such as {x: \[x.jsonl\], y: \["):
        TRL().pairs([], OBJECTIVES)
