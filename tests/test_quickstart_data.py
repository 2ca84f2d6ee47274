"""The shipped quickstart data holds what its README says, and the script's parts do what they claim."""

import re
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest

from sipo_pl.messages.errors import UserError
from sipo_pl.rewards.text import FUNCTION_WORDS, words
from sipo_pl.storage.json_lines import read_jsonl
from tools.quickstart_data import main, pair_statistics, scores, split, usable
from tools.quickstart_sampler import Job, Sampler, draw, job_seed

FOLDER = Path(__file__).parents[1] / "configs" / "quickstart" / "data"
SPLITS = ("train", "validation", "test")
GOOD = "Bees carry pollen from one flower to the next."


@pytest.fixture(scope="module")
def data() -> dict[str, list[dict[str, Any]]]:
    return {name: read_jsonl(FOLDER / f"{name}.jsonl") for name in SPLITS}


@pytest.mark.parametrize("name", SPLITS)
def test_rows_follow_the_schema(data: dict[str, list[dict[str, Any]]], name: str) -> None:
    for row in data[name]:
        assert list(row) == ["prompt", "response", "detail", "ease"]
        assert isinstance(row["prompt"], str)
        assert row["prompt"] == row["prompt"].strip() != ""


@pytest.mark.parametrize("name", SPLITS)
def test_stored_scores_are_the_formulas(data: dict[str, list[dict[str, Any]]], name: str) -> None:
    for row in data[name]:
        assert {key: row[key] for key in ("detail", "ease")} == scores(row["response"])


@pytest.mark.parametrize("name", SPLITS)
def test_responses_are_whole_short_and_distinct(data: dict[str, list[dict[str, Any]]], name: str) -> None:
    assert all(usable(row["response"]) and len(words(row["response"])) < 64 for row in data[name])
    assert len({(row["prompt"], row["response"]) for row in data[name]}) == len(data[name])


@pytest.mark.parametrize(("name", "least"), [("train", 180), ("validation", 24), ("test", 96)])
def test_prompts_have_three_or_four_consecutive_responses(
    data: dict[str, list[dict[str, Any]]], name: str, least: int
) -> None:
    prompts = [row["prompt"] for row in data[name]]
    counts = Counter(prompts)
    borders = sum(before != after for before, after in pairwise(prompts))
    assert len(counts) >= least
    assert set(counts.values()) <= {3, 4}
    assert borders == len(counts) - 1


def test_objectives_conflict_in_a_good_share_and_agree_in_another(data: dict[str, list[dict[str, Any]]]) -> None:
    for name in ("train", "validation"):
        found = pair_statistics(data[name])
        assert 0.4 <= found["conflict_share"] <= 0.7
        assert found["ties"] <= 0.15 * found["pairs"]


def test_splits_share_no_prompt_and_no_near_duplicate(data: dict[str, list[dict[str, Any]]]) -> None:
    prompts = [prompt for name in SPLITS for prompt in dict.fromkeys(row["prompt"] for row in data[name])]
    content = [set(words(prompt)) - FUNCTION_WORDS for prompt in prompts]
    assert len(set(prompts)) == len(prompts)
    for (one, a), (other, b) in combinations(zip(prompts, content, strict=True), 2):
        assert len(a & b) / len(a | b) < 0.5, (one, other)


def test_prompts_are_among_the_written_ones(data: dict[str, list[dict[str, Any]]]) -> None:
    written = (FOLDER / "prompts.txt").read_text(encoding="utf-8").splitlines()
    assert len(set(written)) == len(written)
    assert all(5 <= len(prompt.split()) <= 16 for prompt in written)
    assert {row["prompt"] for name in SPLITS for row in data[name]} <= set(written)


def test_folder_is_small_and_its_readme_tells_the_figures(data: dict[str, list[dict[str, Any]]]) -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 600_000
    for name in SPLITS:
        found = pair_statistics(data[name])
        line = next(line for line in readme.splitlines() if line.startswith(f"| {name} "))
        cells = [float(value) for value in re.findall(r"[\d.]+", line)]
        assert cells == [found[key] for key in ("prompts", "rows", "pairs", "ties", "conflict_share", "mean_words")]


@pytest.mark.parametrize(
    "text",
    [
        "Too short now.",
        "This one was cut before it came to",
        "Why would you ask me such a thing?",
        "First a line.\nThen a second line of it.",
        "It is a cat and it is a cat and it is a cat.",
        "Sure, here are two sentences about bees and honey.",
    ],
)
def test_unusable(text: str) -> None:
    assert usable(GOOD)
    assert not usable(text)


def test_pair_statistics_counts_conflicts_and_ties() -> None:
    values = {"p": [(1.0, -1.0), (2.0, -2.0), (2.0, -3.0)], "q": [(1.0, -2.0), (2.0, -1.0)]}
    rows = [{"prompt": p, "response": GOOD, "detail": d, "ease": e} for p, pairs in values.items() for d, e in pairs]
    found = pair_statistics(rows)
    assert (found["prompts"], found["rows"], found["pairs"]) == (2, 5, 4)
    assert (found["ties"], found["conflict_share"]) == (1, 0.5)


def test_split_is_a_seeded_partition() -> None:
    prompts = [str(number) for number in range(20)]
    found = split(prompts, validation=3, test=5, seed=1)
    assert [len(found[name]) for name in SPLITS] == [12, 3, 5]
    assert sorted(prompt for chosen in found.values() for prompt in chosen) == sorted(prompts)
    assert found == split(prompts, validation=3, test=5, seed=1) != split(prompts, validation=3, test=5, seed=2)


def test_draw_keeps_to_the_nucleus_in_the_right_proportion() -> None:
    import torch

    logits = torch.tensor([0.6, 0.3, 0.1]).log().repeat(2000, 1)
    generators = [torch.Generator().manual_seed(number) for number in range(len(logits))]
    drawn = Counter(draw(logits, generators, temperature=1.0, top_p=0.8).tolist())
    assert set(drawn) == {0, 1}  # 0.6 alone falls short of 0.8, so the second is in and the third is out
    assert drawn[0] / len(logits) == pytest.approx(2 / 3, abs=0.04)


def test_answers_do_not_depend_on_the_batch(tiny_model: Path) -> None:
    sampler = Sampler(str(tiny_model), seed=0, max_new_tokens=200, temperature=1.0, top_p=1.0, end_of_turn="</s>")
    jobs = [Job(prompt, "brief", attempt) for prompt in ("hello", "what is honey", "why") for attempt in range(4)]
    together = sampler.answer(jobs)
    assert together == [sampler.answer([job])[0] for job in jobs]
    assert len({job_seed(0, job) for job in jobs}) == len(jobs)
    assert None in together
    assert any(together)


def test_a_tokenizer_without_end_of_turn_is_refused(tiny_model: Path) -> None:
    with pytest.raises(UserError, match=r"expected a tokenizer with a chat template and the token <\|im_end\|>"):
        Sampler(str(tiny_model), seed=0, max_new_tokens=8, temperature=1.0, top_p=0.95, end_of_turn="<|im_end|>")


def test_missing_prompts_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"prompts\.txt: no such file"):
        main(["--out", str(tmp_path), "--model", "none"])
