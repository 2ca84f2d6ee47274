"""Decisions of combine and filter from scores, and from the texts themselves."""

import pytest
from golden import MODEL, adapters, cases, check
from golden_table import note

from sipo_pl.use.functions import implicit_rewards, select_sample, take_rewrite

SAMPLES = ["a1_soup", "a1_nosoup", "a16_soup", "a16_nosoup"]


@pytest.mark.parametrize("name", ["a1", "a16"])
def test_rewrite_or_original(name: str) -> None:
    golden = cases(f"select_rewrite_{name}")
    scores = list(zip(golden["mod_scores"], golden["rewrite_scores"], strict=True))
    assert len(scores) == 160
    taken = [take_rewrite(*pair) for pair in scores]
    assert taken == golden["took_rewrite"]
    note("decisions", len(taken), 0.0)
    texts = zip(taken, golden["mod"], golden["rewrite"], strict=True)
    assert [rewrite if took else mod for took, mod, rewrite in texts] == golden["output"]


@pytest.mark.parametrize("name", SAMPLES)
def test_the_kept_sample(name: str) -> None:
    golden = cases(f"select_sample_{name}")
    assert len(golden["rows"]) == 40
    output = []
    for index, row in enumerate(golden["rows"]):
        kept = select_sample(row["chosen_scores"], row["rejected_scores"], row["sample_scores"])
        if kept is not None:
            prompt = golden["prompt_template"].replace("{raw_prompt}", row["raw_prompt"])
            output.append({"prompt_response": prompt + row["samples"][kept], "map_index": index})
    assert output == golden["output"]
    note("decisions", len(golden["rows"]), 0.0)


@pytest.mark.parametrize("name", SAMPLES)
def test_scores_behind_the_decisions(name: str) -> None:
    golden = cases(f"select_sample_{name}")
    rows = golden["rows"]
    texts = [(row["raw_prompt"], text) for row in rows for text in (row["chosen"], row["rejected"], *row["samples"])]
    expected = [
        scores for row in rows for scores in (row["chosen_scores"], row["rejected_scores"], *row["sample_scores"])
    ]
    found = implicit_rewards(
        MODEL,
        adapters(golden["adapters"]),
        *map(list, zip(*texts, strict=True)),
        beta=golden["beta"],
        soup_weights=[(weight, 1 - weight) for weight in golden["soup_weights"] or []],
        prompt_template=golden["prompt_template"],
    )
    check("implicit rewards", [one.reward for one in found], expected)


@pytest.mark.parametrize("name", ["a1", "a16"])
def test_scores_behind_the_choice_of_a_rewrite(name: str) -> None:
    golden = cases(f"select_rewrite_{name}")
    before, after = golden["prompt_template"].split("{raw_prompt}")
    texts = [text.removeprefix(before).split(after, 1) for text in golden["mod"] + golden["rewrite"]]
    found = implicit_rewards(
        MODEL, adapters(golden["adapters"]), *map(list, zip(*texts, strict=True)), beta=golden["beta"]
    )
    expected = golden["mod_scores"] + golden["rewrite_scores"]
    check("implicit rewards", [one.reward for one in found], expected)
