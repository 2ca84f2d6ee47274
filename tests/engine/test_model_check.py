"""Models are compared with their own forward when they are loaded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, VOCABULARY, own_states, tiny_family
from tiny import make_tiny_model
from transformers import PhiConfig, PhiForCausalLM

from sipo_pl.engine.logprobs.response_logprobs import response_logps
from sipo_pl.engine.models.loading import load_base
from sipo_pl.engine.models.model_check import check_model
from sipo_pl.messages.errors import UserError
from sipo_pl.text.templates import Encoded
from sipo_pl.text.token_batch import collate

EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


@pytest.mark.parametrize(
    ("family", "settings", "reason"),
    [
        ("FalconH1", {}, "carries a state from token to token"),
        ("BertGeneration", {}, "gives other states to a row beside another one"),  # it looks ahead
        ("DiffLlama", {}, "gives other states to a row beside another one"),
        (
            "Phimoe",
            {**EXPERTS, "sliding_window": 400},
            "or see a window that is not told there",
        ),  # wider than the probe
        ("Llama4Text", {**EXPERTS}, r"has layers that are not supported \(chunked_attention\)"),
        ("ModernBertDecoder", {}, "does not run as a causal language model"),
    ],
)
def test_a_family_whose_rows_would_change_each_other_is_refused(
    family: str, settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UserError, match=rf"^base_model: {family.removesuffix('Text')}.*{reason}"):
        check_model(tiny_family(family, **settings))


@pytest.mark.parametrize("family", FAMILIES)
def test_supported_families_are_taken(family: str) -> None:
    check_model(tiny_family(family))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_family_is_taken_in_either_precision_and_left_as_it_was(dtype: torch.dtype) -> None:
    model = tiny_family("Mistral", sliding_window=400).to(dtype)
    before = own_states(model, range(3, 20))
    check_model(model)
    assert model.config.sliding_window == 400
    assert torch.equal(own_states(model, range(3, 20)), before)


def phi(masked: float) -> PhiForCausalLM:
    """Return a model whose last tokens only pad the vocabulary, and have this logit."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = PhiForCausalLM(PhiConfig(vocab_size=VOCABULARY, **sizes, initializer_range=0.3)).eval()
    model.lm_head.bias.data[-4:] = masked
    return model.requires_grad_(False)


@pytest.mark.parametrize("masked", [-torch.inf, -1e30])
def test_tokens_that_are_never_said_are_no_fault_and_hide_none(masked: float) -> None:
    model = phi(masked)
    check_model(model)
    found = response_logps(model, collate([Encoded([5, 6, 7, 8], 2)]))
    assert found.isfinite().all()
    model.config.logit_scale = 2.0  # which the family itself does not know
    with pytest.raises(UserError, match=r"changes its logits behind the head .* by [\d.]+ of the largest"):
        check_model(model)


def test_numbers_that_are_none_are_called_so(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    model = load_base(str(folder), "float32")
    model.model.norm.weight.data[3] = torch.nan
    model.save_pretrained(folder)
    with pytest.raises(UserError, match=r"gives logits that are no numbers \(nan or inf\), 2600 of 2600"):
        load_base(str(folder), "float32")
