from functools import partial
from typing import Any

import pytest

from sipo_pl.data.converters.base import Pairing
from sipo_pl.data.converters.helpsteer import HelpSteer
from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.recipe import Objective
from sipo_pl.released.map_batches import adjacent_runs
from sipo_pl.text.prompt import prompt_id

OBJECTIVES = [Objective("correct", column="correctness"), Objective("short", column="verbosity", direction="min")]


def rows(*triples: tuple[Any, str, float, float]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"train.jsonl:{line}", {"prompt": prompt, "response": response, "correctness": first, "verbosity": second})
        for line, (prompt, response, first, second) in enumerate(triples, start=1)
    ]


def test_every_two_responses_of_a_prompt_become_a_pair() -> None:
    found = HelpSteer().pairs(rows(("p", "a", 4, 3), ("p", "b", 2, 3), ("p", "c", 4, 0)), OBJECTIVES)
    name = prompt_id("p")
    assert len(name) == 12
    assert found.rows == [
        {
            "pair_id": f"{name}/0-1",
            "prompt_id": name,
            "prompt": "p",
            "response_0": "a",
            "response_1": "b",
            "preferred": {"correct": 0, "short": -1},
            "scores": {"correct": [4.0, 2.0], "short": [-3.0, -3.0]},
        },
        {
            "pair_id": f"{name}/0-2",
            "prompt_id": name,
            "prompt": "p",
            "response_0": "a",
            "response_1": "c",
            "preferred": {"correct": -1, "short": 1},
            "scores": {"correct": [4.0, 4.0], "short": [-3.0, 0.0]},
        },
        {
            "pair_id": f"{name}/1-2",
            "prompt_id": name,
            "prompt": "p",
            "response_0": "b",
            "response_1": "c",
            "preferred": {"correct": 1, "short": 1},
            "scores": {"correct": [2.0, 4.0], "short": [-3.0, 0.0]},
        },
    ]
    assert str(found.rows[1]["scores"]["short"][1]) == "0.0"  # not -0.0
    assert not found.dropped


def test_equal_prompts_are_joined_where_they_are_not_adjacent() -> None:
    found = HelpSteer().pairs(rows(("p", "a", 1, 1), ("q", "b", 1, 1), ("p", "c", 0, 1), ("q", "d", 1, 0)), OBJECTIVES)
    assert [(row["prompt"], row["response_0"], row["response_1"]) for row in found.rows] == [
        ("p", "a", "c"),
        ("q", "b", "d"),
    ]


def test_chat_prompts_keep_their_messages_and_differ_by_any_of_them() -> None:
    short = [{"role": "user", "content": "p"}]
    long = [{"role": "system", "content": "s"}, *short]
    found = HelpSteer().pairs(
        rows((short, "a", 1, 1), (long, "b", 1, 1), (short, "c", 0, 1), (long, "d", 1, 0)), OBJECTIVES
    )
    assert [row["prompt"] for row in found.rows] == [short, long]
    assert found.rows[0]["prompt_id"] == prompt_id(short) != found.rows[1]["prompt_id"]


def test_what_makes_no_pair_is_counted_and_ids_keep_the_place_in_the_file() -> None:
    found = HelpSteer().pairs(
        rows(
            ("p", "a", 1, 1),
            ("p", " ", 1, 1),
            ("p", "a", 2, 1),
            ("p", "b", 0, 1),
            ("\n", "x", 1, 1),
            ("alone", "x", 1, 1),
        ),
        OBJECTIVES,
    )
    name = prompt_id("p")
    assert [row["pair_id"] for row in found.rows] == [f"{name}/0-3", f"{name}/2-3"]
    assert found.dropped == {
        "rows with an empty response": 1,
        "rows with an empty prompt": 1,
        "pairs of identical responses": 1,
        "prompts with one response": 1,
    }


def test_sums_and_ranges() -> None:
    converter = HelpSteer(sums={"both": ["correctness", "verbosity"]}, score_range=[0, 4])
    found = converter.pairs(rows(("p", "a", 4, 0), ("p", "b", 1, 2)), [Objective("overall", column="both")])
    assert found.rows[0]["scores"] == {"overall": [4, 3]}
    with pytest.raises(
        UserError, match=r"train\.jsonl:2: key 'verbosity': expected a number from 0 to 4, found the number 5"
    ):
        converter.pairs(rows(("p", "a", 4, 0), ("p", "b", 1, 5)), OBJECTIVES)


def test_only_neighbours_within_a_map_batch_are_paired_where_asked_for() -> None:
    raw = rows(("p", "a", 1, 1), ("p", "b", 0, 1), ("p", "c", 0, 1), ("q", "d", 1, 0), ("p", "e", 0, 0))
    converter = HelpSteer()
    assert len(converter.pairs(raw, OBJECTIVES).rows) == 6
    converter.pairing = Pairing(partial(adjacent_runs, map_batch=2))
    assert [row["pair_id"] for row in converter.pairs(raw, OBJECTIVES).rows] == [f"{prompt_id('p')}/0-1"]
    converter.pairing = Pairing(partial(adjacent_runs, map_batch=1000, map_shards=2))  # three rows, then two
    assert len(converter.pairs(raw, OBJECTIVES).rows) == 3


def test_own_column_names() -> None:
    raw = [
        ("x:1", {"q": "p", "a": "1", "correct": 1, "short": 0}),
        ("x:2", {"q": "p", "a": "2", "correct": 0, "short": 0}),
    ]
    objectives = [Objective("correct"), Objective("short")]
    assert HelpSteer(prompt="q", response="a").pairs(raw, objectives).rows[0]["preferred"] == {
        "correct": 0,
        "short": -1,
    }


def test_prompts_need_no_response_and_come_once() -> None:
    raw = [("x:1", {"prompt": "b"}), ("x:2", {"prompt": "a"}), ("x:3", {"prompt": "b"}), ("x:4", {"prompt": ""})]
    found = HelpSteer().prompts(raw)
    assert [row["prompt"] for row in found.rows] == ["b", "a"]
    assert found.rows[0]["prompt_id"] == prompt_id("b")
    assert found.dropped == {"rows with an empty prompt": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correctness": "4"}, "key 'correctness': expected a number, found the string \"4\""),
        ({"correctness": None}, "key 'correctness': expected a number, found null"),
        ({"correctness": True}, "key 'correctness': expected a number, found the boolean true"),
        ({"verbosity": float("nan")}, "key 'verbosity': expected a finite number, found the number NaN"),
        ({"response": None}, "key 'response': expected a string, found null"),
        ({"prompt": {"text": "p"}}, "key 'prompt': expected text or a list of chat messages, found the object"),
    ],
)
def test_a_wrong_type_names_line_and_key(change: dict[str, Any], message: str) -> None:
    raw = rows(("p", "a", 1, 1), ("p", "b", 0, 1))
    raw[1][1].update(change)
    with pytest.raises(UserError, match=rf"train\.jsonl:2: {message}"):
        HelpSteer().pairs(raw, OBJECTIVES)


def test_a_misspelt_column_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match=r"train\.jsonl:1: no key 'corectness'; did you mean 'correctness'\?"):
        HelpSteer().pairs(rows(("p", "a", 1, 1)), [Objective("corectness"), Objective("verbosity")])
    with pytest.raises(UserError, match=r"train\.jsonl:1: no key 'responses'; did you mean 'response'\?"):
        HelpSteer(response="responses").pairs(rows(("p", "a", 1, 1)), OBJECTIVES)
