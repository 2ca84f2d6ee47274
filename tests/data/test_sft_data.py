from collections import Counter
from pathlib import Path

import pytest
from tiny import make_tiny_tokenizer

from sipo_pl.data.datamodules.sft_data import SFTData, SFTExample, SFTLoader, sft_examples, split_by_prompt
from sipo_pl.data.rows import PairRow, SFTRow
from sipo_pl.data.sft_rows import sft_rows
from sipo_pl.messages.errors import UsageError, UserError
from sipo_pl.recipe.recipe import Data, Objective, Recipe, Template
from sipo_pl.storage.json_lines import write_jsonl
from sipo_pl.text.templates import Encoded, PromptTemplate

TEMPLATE = PromptTemplate(make_tiny_tokenizer(), Template(text="{raw_prompt}>"))
EOS = TEMPLATE.eos_id


def row(response: str, *preferred_by: str, prompt: str = "ab") -> SFTRow:
    return {"prompt_id": f"id {prompt}", "prompt": prompt, "response": response, "preferred_by": list(preferred_by)}


def example(index: int, prompt: int, length: int = 3) -> SFTExample:
    return SFTExample(f"t{index}", f"p{prompt}", Encoded([1, 5, *[7] * length], 2))


def test_rows_are_the_distinct_responses_with_who_prefers_them() -> None:
    def pair(first: str, second: str, **preferred: int) -> PairRow:
        names = {"pair_id": f"{first}{second}", "prompt_id": "x", "prompt": "q"}
        return {**names, "response_0": first, "response_1": second, "preferred": preferred}  # type: ignore[typeddict-item]

    found = sft_rows([pair("u", "v", a=1, b=-1), pair("v", "w", a=0, b=1), pair("u", "w", a=-1, b=-1)])
    assert [(one["response"], one["preferred_by"]) for one in found] == [("u", []), ("v", ["a"]), ("w", ["b"])]
    assert found[0] == {"prompt_id": "x", "prompt": "q", "response": "u", "preferred_by": []}


def test_both_or_the_chosen_responses_are_tokenised() -> None:
    rows = [row("one", "a"), row("two")]
    both, dropped = sft_examples(rows, "both", TEMPLATE, 100)
    assert len(both) == 2
    assert not dropped
    # BOS, two letters and the mark; three letters and EOS
    assert (both[0].tokens.prompt_length, both[0].tokens.response_length) == (4, 4)
    assert both[0].tokens.input_ids[-1] == EOS
    chosen, dropped = sft_examples(rows, "chosen", TEMPLATE, 100)
    assert chosen == both[:1]
    assert dropped == Counter({"preferred by no objective": 1})


def test_rows_that_are_too_long_are_left_out_and_counted_or_cut_by_a_switch() -> None:
    rows = [row("one"), row("four"), row("x", prompt="a long prompt")]
    kept, dropped = sft_examples(rows, "both", TEMPLATE, 8)
    assert [len(one.tokens.input_ids) for one in kept] == [8]
    assert dropped == Counter({"longer than max_length": 2})
    cut, dropped = sft_examples(rows, "both", TEMPLATE, 8, truncate=True)
    assert [len(one.tokens.input_ids) for one in cut] == [8, 8]
    assert [one.tokens.input_ids[-1] == EOS for one in cut] == [True, False]
    assert dropped == Counter({"longer than max_length": 1})  # nothing is left of its response


def test_all_responses_of_a_prompt_are_on_one_side() -> None:
    examples = [example(index, index // 3) for index in range(30)]
    train, validation = split_by_prompt(examples, 0.15, seed=0)
    assert (len(train), len(validation)) == (24, 6)  # two of ten prompts: 1.5, rounded up
    assert not {one.prompt_id for one in train} & {one.prompt_id for one in validation}
    assert sorted([*train, *validation], key=lambda one: int(one.text_id[1:])) == examples
    assert split_by_prompt(examples, 0.15, seed=0) == (train, validation)
    assert split_by_prompt(examples, 0.15, seed=1) != (train, validation)


def test_micro_batches_know_the_response_tokens_of_their_step_over_all_devices() -> None:
    examples = [example(index, index, length=index + 1) for index in range(5)]  # 1 + 2 + 3 + 4, then 5 tokens
    batches = [list(SFTLoader(examples, 1, 4, None, rank, 2)) for rank in (0, 1)]
    assert [[batch.row_ids for batch in rank] for rank in batches] == [
        [["t0"], ["t2"], ["t4"]],
        [["t1"], ["t3"], ["t4"]],
    ]
    assert [[batch.step_tokens for batch in rank] for rank in batches] == [[10, 10, 5], [10, 10, 5]]
    assert [[batch.spare for batch in rank] for rank in batches] == [[False] * 3, [False, False, True]]
    assert sum(row.response_length for row in batches[0][1].rows) == 3


def recipe_of(tiny_model: Path, tmp_path: Path, rows: list[SFTRow]) -> Recipe:
    recipe = Recipe("t", str(tiny_model), [Objective("a"), Objective("b")], Data([], []), run_dir=str(tmp_path))
    if rows:
        write_jsonl(recipe.layout.sft_rows, rows)
    return recipe


def test_data_that_cannot_train_is_an_error(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.validation_share: 0 is not between 0 and 1"):
        SFTData(recipe_of(tiny_model, tmp_path, []), validation_share=0.0)
    with pytest.raises(UserError, match=r"sft\.jsonl: no such file; `sipo_pl prepare` makes it where .*sft: true"):
        SFTData(recipe_of(tiny_model, tmp_path, [])).setup("fit")
    with pytest.raises(UserError, match=r"sft\.jsonl: 1 responses, none is left to train on \(left out: none\)"):
        SFTData(recipe_of(tiny_model, tmp_path, [row("one")])).setup("fit")
    with pytest.raises(UserError, match=r"none is left to train on \(left out: 1 preferred by no objective\)"):
        SFTData(recipe_of(tiny_model, tmp_path, [row("one")]), "chosen").setup("fit")
