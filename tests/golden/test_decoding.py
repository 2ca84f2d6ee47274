"""MOD decoding: token ids equal those of the golden cases, except behind a near tie."""

from collections import defaultdict
from typing import Any

import pytest
from golden import FOLDER, MODEL, adapters, cases, check
from golden_table import note

from sipo_pl.use.functions import decode, next_token_logits

NEAR_TIE = 1e-3  # margin between the best two scores under which rounding decides


def comparable(case: dict[str, Any]) -> int:
    """Return how many tokens come before the first near tie."""
    return next((step for step, margin in enumerate(case["margins"]) if margin < NEAR_TIE), len(case["margins"]))


def same_texts(rows: list[dict[str, Any]], found: list[Any]) -> tuple[int, int]:
    """Compare decoded texts with their cases; return the tokens compared and the tokens of all cases."""
    for case, decoded in zip(rows, found, strict=True):
        count = comparable(case)
        assert decoded.output_ids[: len(case["prompt_ids"])] == case["prompt_ids"]
        assert decoded.new_ids[:count] == case["new_ids"][:count]
        if count == len(case["new_ids"]):
            assert decoded.output_ids == case["output_ids"]
            assert decoded.text == case["text"]
    return sum(map(comparable, rows)), sum(len(case["new_ids"]) for case in rows)


def grouped(rows: list[dict[str, Any]], *keys: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    groups = defaultdict(list)
    for row in rows:
        groups[tuple(row[key] for key in keys)].append(row)
    return groups


@pytest.mark.parametrize(("name", "count"), [("mod_a1", 200), ("mod_a16", 104)])
def test_fused_decoding(name: str, count: int) -> None:
    """All rules over raw logits, as the released greedy search has them; reverse KL does not tell the difference."""
    golden = cases(name)
    assert len(golden["cases"]) == count
    right_so_far = total = 0
    for (f_type, max_length), rows in grouped(golden["cases"], "f_type", "max_length").items():
        for as_released in (True, False) if f_type == "reverse_kl" else (True,):
            found = decode(
                MODEL,
                adapters(golden["adapters"]),
                [row["prompt"] for row in rows],
                [row["weights"] for row in rows],
                f_type=f_type,
                max_length=max_length,
                as_released=as_released,
            )
            right, whole = same_texts(rows, found)
            right_so_far, total = right_so_far + right, total + whole
    assert right_so_far >= 0.9 * total
    note("decoded tokens", right_so_far, 0.0)


def test_base_models_of_the_policies_own() -> None:
    golden = cases("mod_general")
    assert len(golden["cases"]) == 48
    right_so_far = total = 0
    for (max_length,), rows in grouped(golden["cases"], "max_length").items():
        found = decode(
            [str(FOLDER / name) for name in golden["base_models"]],
            adapters(golden["adapters"]),
            [row["prompt"] for row in rows],
            [row["weights"] for row in rows],
            max_length=max_length,
        )
        right, whole = same_texts(rows, found)
        right_so_far, total = right_so_far + right, total + whole
    assert right_so_far >= 0.9 * total
    note("decoded tokens", right_so_far, 0.0)


def test_beams() -> None:
    golden = cases("mod_a1")
    assert len(golden["beam_search"]) == 6
    for case in golden["beam_search"]:
        (found,) = decode(
            MODEL,
            adapters(golden["adapters"]),
            [case["prompt"]],
            [case["weights"]],
            f_type=case["f_type"],
            max_length=case["max_length"],
            num_beams=case["num_beams"],
        )
        assert found.output_ids == case["output_ids"]


def test_a_batch_padded_on_the_right_is_wrong_and_ours_is_not() -> None:
    """The released batches follow the padding of shorter rows; here each row of a batch is what it is alone."""
    golden = cases("mod_a1")
    assert len(golden["batched_right_padded"]) == 2
    alone = {(row["prompt"], tuple(row["weights"])): row for row in golden["cases"] if row["f_type"] == "reverse_kl"}
    for case in golden["batched_right_padded"]:
        rows = [alone[prompt, tuple(case["weights"])] for prompt in case["prompts"]]
        lengths = [len(row["prompt_ids"]) for row in rows]
        assert case["attention_mask"] == [[1] * n + [0] * (max(lengths) - n) for n in lengths]
        found = decode(
            MODEL,
            adapters(golden["adapters"]),
            case["prompts"],
            [case["weights"]] * len(rows),
            max_length=max(row["max_length"] for row in rows),
        )
        for row, decoded, released in zip(rows, found, case["output_ids"], strict=True):
            count = min(comparable(row), len(row["new_ids"]))
            assert decoded.new_ids[:count] == row["new_ids"][:count]
            padding = max(lengths) - len(row["prompt_ids"])
            follows = released[max(lengths) :][:count] == row["new_ids"][:count]
            assert follows == (padding == 0)


@pytest.mark.parametrize("name", ["mod_a1", "mod_a16"])
def test_logits_of_each_policy(name: str) -> None:
    golden = cases(name)
    assert len(golden["logits"]) == 3
    for case in golden["logits"]:
        found = next_token_logits(MODEL, adapters(golden["adapters"]), case["prompt"]).tolist()
        expected = [case["last_logits_model_0"], case["last_logits_model_1"], case["last_logits_base"]]
        check("logits", found, expected)
