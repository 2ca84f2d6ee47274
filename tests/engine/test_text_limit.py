"""Texts that a model cannot take, or that would change with the texts beside them, are refused; shorter ones do not."""

import copy
from collections.abc import Sequence

import pytest
import torch
from families import tiny_family
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from sipo_pl.engine.decoding.generation import generate
from sipo_pl.engine.decoding.options import Decoding, Request
from sipo_pl.engine.decoding.streaming import stream
from sipo_pl.engine.logprobs.cuda_graphs import AdapterLogps
from sipo_pl.engine.logprobs.shared_prompts import shared_prompt_logps
from sipo_pl.engine.lora.groups import GroupedForward
from sipo_pl.engine.lora.policies import BASE, GroupPlace, PolicySet
from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.engine.models.model_check import check_model
from sipo_pl.engine.models.text_limit import text_limit
from sipo_pl.messages.errors import UserError
from sipo_pl.method.divergences import ReverseKL
from sipo_pl.text.templates import Encoded

BORDER, EOS = 16, 2
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 8,
    "long_factor": [5.0] * 8,
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
BORDERS = {
    "longrope": ("Phi3", {"rope_parameters": LONGROPE, "original_max_position_embeddings": BORDER}),
    "dynamic": ("Llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": BORDER}),
    "learned": ("OPT", {"max_position_embeddings": BORDER, "ffn_dim": 96, "word_embed_proj_dim": 64}),
}


@pytest.fixture(scope="module", params=BORDERS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    family, changes = BORDERS[request.param]
    made = tiny_family(family, **changes)
    check_model(made)
    return made


@torch.inference_mode()
def alone(model: PreTrainedModel, row: Encoded) -> float:
    """Return the row's log-probability by the model's own forward of the row."""
    logps = model(input_ids=torch.tensor([row.input_ids])).logits[0].double().log_softmax(dim=-1)
    targets = torch.tensor(row.input_ids[row.prompt_length :])
    return float(logps[row.prompt_length - 1 : -1].gather(1, targets[:, None]).sum())


tokens = st.integers(3, 96)
lengths = st.lists(st.integers(1, BORDER - 2), min_size=1, max_size=4)


@settings(max_examples=8, deadline=None)
@given(prompt=st.lists(tokens, min_size=2, max_size=2), ends=lengths, beyond=st.booleans(), seed=st.integers(0, 99))
def test_a_row_is_the_same_beside_any_other_up_to_the_border(
    model: PreTrainedModel, prompt: list[int], ends: Sequence[int], beyond: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = [
        Encoded([*prompt, *torch.randint(3, 97, (count - 1,), generator=generator).tolist(), EOS], len(prompt))
        for count in [*ends, *([BORDER - 1] if beyond else [])]  # the last one passes the border by a token
    ]
    scores = [
        lambda: shared_prompt_logps(GroupedForward([model], [0]), rows)[0],
        lambda: AdapterLogps(LoRAStack(model, []), False)(rows, model.device),
    ]
    for score in scores:
        with torch.inference_mode():
            if beyond:
                with pytest.raises(UserError, match=rf"{BORDER + 1} tokens, and the base model has .* {BORDER}$"):
                    score()
            else:
                expected = torch.tensor([alone(model, row) for row in rows])
                torch.testing.assert_close(score(), expected, rtol=1e-4, atol=1e-4)


def test_texts_are_not_decoded_beyond_the_border(model: PreTrainedModel) -> None:
    stack = LoRAStack(copy.deepcopy(model), ["out_proj" if "OPT" in type(model).__name__ else "o_proj"])
    stack.stack([BASE])
    policies = PolicySet([stack], [GroupPlace(0, 0, 0)])
    short, long = Request("short", (5, 6, 7), (1.0,)), Request("long", tuple(range(5, 15)), (1.0,))
    within, over = Decoding(max_length=BORDER), Decoding(max_length=BORDER + 1)
    both = generate(policies, [short, long], within, ReverseKL(), EOS, 0)
    assert [one.token_ids for one in both] == [
        generate(policies, [one], within, ReverseKL(), EOS, 0)[0].token_ids for one in (short, long)
    ]
    with pytest.raises(UserError, match=rf"\(decoding\.max_length\): {BORDER + 1} tokens, and the base model has"):
        generate(policies, [short, long], over, ReverseKL(), EOS, 0)
    with stream(policies, 1, ReverseKL(), EOS, slots=2, seed=0) as running:
        running.add(short, within)
        with pytest.raises(UserError, match=rf"{BORDER + 1} tokens, and the base model has"):
            running.add(long, over)


def test_most_models_take_texts_of_any_length() -> None:
    for family in ("Llama", "Gemma3Text", "Mistral"):
        assert text_limit(tiny_family(family)) is None
