from typing import Any

import pytest
from tiny import make_tiny_tokenizer

from sipo_pl.data.preference import preference_pairs, realignment_pairs, unique_rows, unique_texts
from sipo_pl.data.rows import KeptRow, PairRow
from sipo_pl.recipe.recipe import Template
from sipo_pl.released.masks import mask_common_prefix
from sipo_pl.text.templates import PromptTemplate

TEMPLATE = PromptTemplate(make_tiny_tokenizer(), Template(text="{raw_prompt}>"))


def row(pair_id: str, a: int, b: int, response_0: str = "zero", response_1: str = "one!") -> PairRow:
    return {
        "pair_id": pair_id,
        "prompt_id": "x",
        "prompt": "p",
        "response_0": response_0,
        "response_1": response_1,
        "preferred": {"a": a, "b": b},  # type: ignore[dict-item]
    }


def kept(pair_id: str, a: int, text: str = "better") -> KeptRow:
    rest: dict[str, Any] = {"kept": text, "sample_id": "s", "point": "0.5,0.5", "source": "original"}
    return {**row(pair_id, a, 1 - a), **rest, "margin": 1.0, "rewards": {}}  # type: ignore[typeddict-item]


def text(encoded: Any) -> str:
    return TEMPLATE.decode(encoded.input_ids[encoded.prompt_length : -1])


def test_a_pair_is_turned_as_its_objective_prefers() -> None:
    rows = [row("p", 0, 1), row("q", 1, 0)]
    for objective, chosen in (("a", ["zero", "one!"]), ("b", ["one!", "zero"])):
        pairs, dropped = preference_pairs(rows, objective, TEMPLATE, 100)
        assert [pair.pair_id for pair in pairs] == ["p", "q"]
        assert [text(pair.chosen) for pair in pairs] == chosen
        assert [text(pair.rejected) for pair in pairs] == chosen[::-1]
        assert not dropped


def test_ties_of_the_objective_alone_are_dropped_and_counted() -> None:
    pairs, dropped = preference_pairs([row("p", -1, 1), row("q", 1, -1)], "a", TEMPLATE, 100)
    assert [pair.pair_id for pair in pairs] == ["q"]
    assert dropped == {"tie": 1}


def test_any_takes_what_another_objective_decides_and_agreed_what_all_decide_alike() -> None:
    rows = [row("p", -1, 1), row("q", 0, 1), row("r", 1, 1), row("t", -1, -1)]
    pairs, dropped = preference_pairs(rows, "a", TEMPLATE, 100, select="any")
    assert [(pair.pair_id, text(pair.chosen)) for pair in pairs] == [("p", "one!"), ("q", "zero"), ("r", "one!")]
    assert [pair.signs for pair in pairs] == [{"a": 0, "b": 1}, {"a": 1, "b": -1}, {"a": 1, "b": 1}]
    assert dropped == {"tie": 1}
    pairs, dropped = preference_pairs(rows, "a", TEMPLATE, 100, select="agreed")
    assert [pair.pair_id for pair in pairs] == ["r"]
    assert dropped == {"tie": 2, "conflict": 1}


@pytest.mark.parametrize(("response", "fits"), [("1234", True), ("12345", False)])
@pytest.mark.parametrize("preferred", [0, 1])
def test_a_pair_is_dropped_and_never_cut_if_either_side_is_too_long(response: str, fits: bool, preferred: int) -> None:
    # BOS p > 1 2 3 4 EOS are eight tokens
    pairs, dropped = preference_pairs([row("p", preferred, 0, response, "x")], "a", TEMPLATE, 8)
    assert len(pairs) == fits
    assert dropped == ({} if fits else {"longer than max_length": 1})


def test_realignment_prefers_the_kept_response_over_both() -> None:
    pairs, dropped = realignment_pairs([kept("p", 0), kept("q", 1)], ["a", "b"], TEMPLATE, 100)
    assert [text(pair.chosen) for pair in pairs] == ["better"] * 4
    # over the one that objective 1 prefers first
    assert [text(pair.rejected) for pair in pairs] == ["zero", "one!", "one!", "zero"]
    assert len({pair.pair_id for pair in pairs}) == 4
    assert not dropped


def test_realignment_prefers_the_kept_response_over_the_one_of_the_round_before_that_it_beats() -> None:
    rows: list[KeptRow] = [{**kept("p", 1), "previous": "once"}, kept("q", 0)]
    pairs, _ = realignment_pairs(rows, ["a", "b"], TEMPLATE, 100)
    assert [pair.pair_id for pair in pairs] == ["p>1", "p>0", "p>previous", "q>0", "q>1"]
    assert [text(pair.rejected) for pair in pairs] == ["one!", "zero", "once", "zero", "one!"]
    assert {text(pair.chosen) for pair in pairs} == {"better"}


def test_where_objective_1_ties_the_next_one_orders_the_pairs_of_realignment() -> None:
    rows: list[KeptRow] = [{**kept("p", -1), "preferred": {"a": -1, "b": b}} for b in (0, 1)]  # type: ignore[dict-item]
    pairs, _ = realignment_pairs(rows, ["a", "b"], TEMPLATE, 100)
    assert [text(pair.rejected) for pair in pairs] == ["zero", "one!", "one!", "zero"]


def test_realignment_drops_long_pairs_one_by_one() -> None:
    pairs, dropped = realignment_pairs([{**kept("p", 0), "response_1": "very long"}], ["a", "b"], TEMPLATE, 10)
    assert [text(pair.rejected) for pair in pairs] == ["zero"]
    assert dropped == {"longer than max_length": 1}
    assert not realignment_pairs([kept("p", 0, text="much too long")], ["a", "b"], TEMPLATE, 10)[0]


def test_a_row_that_pairs_share_is_one_row() -> None:
    pairs, _ = realignment_pairs([kept("p", 0), kept("q", 1)], ["a", "b"], TEMPLATE, 100)
    assert sorted(text(encoded) for encoded in unique_rows(pairs)) == ["better", "one!", "zero"]


def test_signs_say_which_side_each_objective_prefers() -> None:
    rows = [row("p", 0, 1), row("q", 1, 1), row("r", 1, -1)]
    pairs, _ = preference_pairs(rows, "a", TEMPLATE, 100)
    assert [pair.signs for pair in pairs] == [{"a": 1, "b": -1}, {"a": 1, "b": 1}, {"a": 1, "b": 0}]
    pairs, _ = preference_pairs(rows, "b", TEMPLATE, 100)
    assert [pair.signs for pair in pairs] == [{"a": -1, "b": 1}, {"a": 1, "b": 1}]
    pairs, _ = realignment_pairs([kept("p", 0)], ["a", "b"], TEMPLATE, 100)
    assert [pair.signs for pair in pairs] == [{"a": 1, "b": 1}] * 2  # what is kept beats both under every objective


def test_rewards_read_the_texts_of_the_rows() -> None:
    pairs, _ = preference_pairs([row("p", 1, 0)], "a", TEMPLATE, 100)
    assert pairs[0].texts == (("p", "one!"), ("p", "zero"))
    assert list(unique_texts(pairs).values()) == [("p", "one!"), ("p", "zero")]
    assert set(unique_texts(pairs)) == {(tuple(one.input_ids), one.prompt_length) for one in pairs[0].rows}


# compat.common_prefix_mask


def masked(response_0: str, response_1: str) -> Any:
    return preference_pairs([row("p", 0, 0, response_0, response_1)], "a", TEMPLATE, 100, mask=mask_common_prefix)


def test_what_both_responses_begin_with_is_masked_in_both() -> None:
    pairs, _ = masked("yes, at noon", "yes, never")
    assert [text(one) for one in pairs[0].rows] == ["at noon", "never"]
    assert [one.response_length for one in pairs[0].rows] == [8, 6]  # with EOS
    pairs, _ = masked("", "no")
    assert [text(one) for one in pairs[0].rows] == ["", "no"]
    plain, _ = preference_pairs([row("p", 0, 0, "yes, at noon", "yes, never")], "a", TEMPLATE, 100)
    assert [text(one) for one in plain[0].rows] == ["yes, at noon", "yes, never"]


def test_equal_rows_leave_nothing_to_learn_from() -> None:
    pairs, dropped = masked("same", "same")
    assert not pairs
    assert dropped == {"all masked": 1}


def test_a_kept_response_is_masked_against_each_of_its_pair() -> None:
    rows = [{**kept("p", 0, text="zest"), "response_0": "zero", "response_1": "zeal"}]
    pairs, _ = realignment_pairs(rows, ["a", "b"], TEMPLATE, 100, mask=mask_common_prefix)  # type: ignore[arg-type]
    assert [text(one) for pair in pairs for one in pair.rows] == ["st", "ro", "st", "al"]
