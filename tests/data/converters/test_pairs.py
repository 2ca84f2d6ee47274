from typing import Any

import pytest

from sipo_pl.data.converters.base import Pairing
from sipo_pl.data.converters.pairs import Pairs
from sipo_pl.messages.errors import UsageError, UserError
from sipo_pl.recipe.recipe import Objective
from sipo_pl.released.pairing import no_flaw
from sipo_pl.text.prompt import prompt_id

BETTER, SAFER = Objective("better", column="better_response_id"), Objective("safer", column="safer_response_id")
PKU = {"prompt": "p", "response_0": "a", "response_1": "b", "better_response_id": 1, "safer_response_id": 0}


def located(*rows: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"train.jsonl:{number}", row) for number, row in enumerate(rows, start=1)]


def test_rows_of_pku_safe_rlhf_are_taken_as_they_are() -> None:
    found = Pairs().pairs(located({**PKU, "is_response_0_safe": True}, {**PKU, "response_1": "c"}), [BETTER, SAFER])
    name = prompt_id("p")
    assert found.rows[0] == {
        "pair_id": f"{name}/0",
        "prompt_id": name,
        "prompt": "p",
        "response_0": "a",
        "response_1": "b",
        "preferred": {"better": 1, "safer": 0},
    }
    assert found.rows[1]["pair_id"] == f"{name}/1"


@pytest.mark.parametrize(
    ("label", "direction", "values", "preferred"),
    [
        ("index", "max", [0, 1, -1], [0, 1, -1]),
        ("index", "min", [0, 1, -1], [1, 0, -1]),
        ("sign", "max", [1, -1, 0], [0, 1, -1]),  # +1 prefers response_0
        ("sign", "min", [1.0, -1.0, 0.0], [1, 0, -1]),
    ],
)
def test_labels(label: Any, direction: Any, values: list[float], preferred: list[int]) -> None:
    rows = [{"prompt": "p", "response_0": "a", "response_1": str(value), "x": value} for value in values]
    found = Pairs(label=label).pairs(located(*rows), [Objective("x", direction=direction)])
    assert [row["preferred"]["x"] for row in found.rows] == preferred


def test_two_scores_and_a_kind_for_each_objective() -> None:
    row = {"prompt": "p", "response_0": "a", "response_1": "b", "q0": 3, "q1": 1, "l0": 9, "l1": 4, "third": -1}
    objectives = [Objective("quality", column="q"), Objective("brief", column="l", direction="min"), Objective("third")]
    converter = Pairs(label={"quality": "scores", "brief": "scores"}, score_columns=["{column}0", "{column}1"])
    found = converter.pairs(located(row), objectives).rows[0]
    assert found["preferred"] == {"quality": 0, "brief": 1, "third": -1}
    assert found["scores"] == {"quality": [3, 1], "brief": [-9, -4]}


def test_what_is_no_pair_is_counted_and_keeps_its_place() -> None:
    rows = [PKU, {**PKU, "response_1": "a"}, {**PKU, "response_0": " "}, {**PKU, "prompt": ""}, {**PKU, "prompt": "q"}]
    found = Pairs().pairs(located(*rows), [BETTER, SAFER])
    assert found.slots == [0, 4]
    assert found.dropped == {
        "pairs of identical responses": 1,
        "rows with an empty response": 1,
        "rows with an empty prompt": 1,
    }
    converter = Pairs()
    converter.pairing = Pairing(flaw=no_flaw)
    assert converter.pairs(located(*rows), [BETTER, SAFER]).slots == [0, 1, 2, 4]


def test_chat_prompts_take_responses_as_text_or_as_a_message() -> None:
    prompt = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "v"},
        {"role": "user", "content": "w"},
    ]
    row = {**PKU, "prompt": prompt, "response_1": [{"role": "assistant", "content": "b"}]}
    found = Pairs().pairs(located(row), [BETTER, SAFER]).rows[0]
    assert (found["prompt"], found["response_0"], found["response_1"]) == (prompt, "a", "b")


def test_ids_of_their_own() -> None:
    rows = [{**PKU, "nr": "x7"}, {**PKU, "response_0": "c", "nr": 8}]
    found = Pairs(id="nr").pairs(located(*rows), [BETTER, SAFER])
    assert [row["pair_id"] for row in found.rows] == [f"{prompt_id('p')}/x7", f"{prompt_id('p')}/8"]


@pytest.mark.parametrize(
    ("arguments", "change", "message"),
    [
        ({}, {"better_response_id": 2}, "key 'better_response_id': expected 0, 1 or -1, found the number 2"),
        ({}, {"better_response_id": 0.5}, "key 'better_response_id': expected 0, 1 or -1, found the number 0.5"),
        ({}, {"safer_response_id": None}, "key 'safer_response_id': expected a number, found null"),
        ({}, {"response_1": ["b"]}, "key 'response_1': expected text, as the prompt is text, found the list"),
        ({"label": "sign"}, {"better_response_id": 2}, "key 'better_response_id': expected 0, 1 or -1, found"),
        ({"label": "scores"}, {}, "no key 'better_response_id_0'; did you mean 'better_response_id'"),
        ({"id": "nr"}, {}, "no key 'nr'"),
        ({"id": "nr"}, {"nr": 1.5}, "key 'nr': expected an id, text or a whole number, found the number 1.5"),
    ],
)
def test_wrong_rows(arguments: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"^train\.jsonl:1: {message}"):
        Pairs(**arguments).pairs(located({**PKU, **change}), [BETTER, SAFER])


def test_an_id_given_twice_names_both_places() -> None:
    rows = [{**PKU, "nr": 1}, {**PKU, "response_0": "c", "nr": 1}]
    message = r"train\.jsonl:2: key 'nr': expected an id that no other pair of the prompt has \(train\.jsonl:1\), found"
    with pytest.raises(UserError, match=message):
        Pairs(id="nr").pairs(located(*rows), [BETTER, SAFER])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label": "sing"}, r"init_args\.label: no kind 'sing'; did you mean 'sign'\?"),
        ({"label": {"better": "score"}}, r"init_args\.label: no kind 'score'; did you mean 'scores'\?"),
        ({"score_columns": ["a", "{column}"]}, r"init_args\.score_columns: expected two names that hold {column}"),
        ({"score_range": [4, 0]}, r"init_args\.score_range: expected \[least, largest\], found \[4, 0\]"),
        ({"score_range": 4}, r"init_args\.score_range: expected \[least, largest\], found 4"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Pairs(**arguments)


def test_a_kind_for_an_unknown_objective() -> None:
    with pytest.raises(UsageError, match=r"label: no objective 'bettr'; did you mean 'better'\?"):
        Pairs(label={"bettr": "sign"}).pairs(located(PKU), [BETTER, SAFER])
