"""Tokenised prompts and responses: ids, masks, padding."""

import pytest
from golden import MODEL, cases

from sipo_pl.recipe.recipe import Template
from sipo_pl.text.templates import Encoded, PromptTemplate, common_prefix_length
from sipo_pl.text.token_batch import collate
from sipo_pl.text.tokenizers import load_tokenizer
from sipo_pl.use.functions import tokenize, tokenize_pair

PAD = 2  # the released code pads with EOS


def encode_pairs(start: int, end: int) -> list[Encoded]:
    """Return the golden pairs as tokenised rows, chosen ones first, then rejected ones."""
    examples = cases("dpo_data_map")["examples"]
    template = PromptTemplate(load_tokenizer(MODEL), Template())
    return [
        template.encode(examples["raw_prompt"][index], examples[side][index])
        for side in ("chosen", "rejected")
        for index in range(start, end)
    ]


def test_both_responses_of_a_pair() -> None:
    golden = cases("dpo_data_map")
    examples, mapped = golden["examples"], golden["mapped"]
    assert len(examples["prompt"]) == 14
    for index, raw_prompt in enumerate(examples["raw_prompt"]):
        for side in ("chosen", "rejected"):
            found = tokenize(MODEL, raw_prompt, examples[side][index])
            assert found.input_ids == mapped[f"prompt_{side}_input_ids"][index]
            assert len(found.input_ids) == sum(mapped[f"prompt_{side}_attention_mask"][index])
        assert mapped["prompt_input_ids"][index] == found.input_ids[: len(mapped["prompt_input_ids"][index])]


def test_the_common_prefix_mask_of_the_released_code() -> None:
    golden = cases("dpo_data_map")
    examples, mapped = golden["examples"], golden["mapped"]
    for index, (prompt, chosen, rejected) in enumerate(
        zip(examples["raw_prompt"], examples["chosen"], examples["rejected"], strict=True)
    ):
        found = tokenize_pair(MODEL, prompt, chosen, rejected, common_prefix_mask=True)
        assert found[0].labels == mapped["prompt_chosen_labels"][index]
        assert found[1].labels == mapped["prompt_rejected_labels"][index]
        assert found[0].labels.count(-100) == golden["masked_prefix"][index]["masked"]


def test_the_mask_is_the_prompt() -> None:
    """The released SFT map and scorer mask like this; its pair map masks more (see the compat test)."""
    golden = cases("dpo_data_map")
    for index, raw_prompt in enumerate(golden["examples"]["raw_prompt"]):
        found = tokenize(MODEL, raw_prompt, golden["examples"]["chosen"][index])
        assert found.input_ids == golden["sft_mapped"]["prompt_response_input_ids"][index]
        assert found.labels == golden["sft_mapped"]["prompt_response_labels"][index]
        assert golden["masked_prefix"][index]["prompt_len"] == found.labels.count(-100)


@pytest.mark.parametrize(("name", "start", "end"), [("collated_0_4", 0, 4), ("collated_4_7_multiple8", 4, 7)])
def test_padded_batches(name: str, start: int, end: int) -> None:
    expected = cases("dpo_data_map")[name]
    width = len(expected["input_ids"][0])
    batch = collate(encode_pairs(start, end), pad_id=PAD)
    padded = [row + [PAD] * (width - len(row)) for row in batch.input_ids.tolist()]  # ours has no multiple of eight
    masks = [row + [0] * (width - len(row)) for row in batch.attention_mask.tolist()]
    assert (padded, masks) == (expected["input_ids"], expected["attention_mask"])


def test_prompts_are_padded_on_the_left_to_generate() -> None:
    expected = cases("dpo_data_map")["collated_generate_0_4"]
    template = PromptTemplate(load_tokenizer(MODEL), Template())
    raw_prompts = cases("dpo_data_map")["examples"]["raw_prompt"][:4]
    for raw_prompt, ids, mask in zip(
        raw_prompts, expected["prompt_input_ids"], expected["prompt_attention_mask"], strict=True
    ):
        assert template.prompt_ids(raw_prompt) == ids[mask.count(0) :]


def test_template_and_response_make_the_text() -> None:
    golden = cases("extract_prompt")["cases"]
    assert len(golden) == 27
    tokenizer = load_tokenizer(MODEL)
    rendered = [
        PromptTemplate(tokenizer, Template(text=case["template"])).render(case["raw_prompt"]) + case["response"]
        for case in golden
        if "error" not in case
    ]
    assert rendered == [case["text"] for case in golden if "error" not in case]


def test_common_prefixes() -> None:
    golden = cases("extract_prompt")["common_prefix"]
    assert len(golden) == 5
    assert [common_prefix_length(case["a"], case["b"]) for case in golden] == [case["length"] for case in golden]
