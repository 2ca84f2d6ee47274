from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from sipo_pl.engine.logprobs import response_logprobs as logprobs
from sipo_pl.engine.logprobs.response_logprobs import decoder, logits_of, positions, response_logps
from sipo_pl.engine.models.model_check import check_model
from sipo_pl.messages.errors import UserError
from sipo_pl.text.templates import Encoded
from sipo_pl.text.token_batch import collate

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Mistral": {"sliding_window": 4},
    "Qwen2": {"tie_word_embeddings": True},
    "Qwen3": {},
    "Gemma": {},
    "Gemma2": {"final_logit_softcapping": 3.0, "sliding_window": 4},
    "Gemma3": {"final_logit_softcapping": 3.0, "sliding_window": 4},
    "Phi3": {},
    "Olmo2": {},
    "Cohere": {"logit_scale": 0.25},
    "Granite": {"logits_scaling": 4.0},
}


def make(family: str = "Llama", **changed: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    text = f"{family}Text" if family == "Gemma3" else family
    config = getattr(transformers, f"{text}Config")(**SIZES, **FAMILIES.get(family, {}), **changed)
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


def encoded(length: int, prompt_length: int, seed: int) -> Encoded:
    generator = torch.Generator().manual_seed(seed)
    return Encoded(torch.randint(0, 97, (length,), generator=generator).tolist(), prompt_length)


ROWS = [encoded(12, 5, 0), encoded(7, 6, 1), encoded(20, 3, 2), encoded(9, 1, 3)]


def expected(model: PreTrainedModel, row: Encoded) -> float:
    """Sum the whole log-softmax in float64, of the row alone, from the model's own logits."""
    ids = torch.tensor([row.input_ids])
    with torch.no_grad():
        logps = model(input_ids=ids).logits.double().log_softmax(dim=-1)[0]
    return sum(
        float(logps[position - 1, row.input_ids[position]]) for position in range(row.prompt_length, len(row.input_ids))
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_padded_rows_equal_the_full_log_softmax_of_each_alone(family: str) -> None:
    model = make(family)
    with torch.no_grad():
        found = response_logps(model, collate(ROWS))
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([expected(model, row) for row in ROWS], rel=1e-5)


@pytest.mark.parametrize("chunk", [1, 3, 8, 1000])
def test_chunks_change_neither_values_nor_gradients(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    gradients, values = [], []
    for size in (10_000, chunk):
        monkeypatch.setattr(logprobs, "CHUNK", {False: size})
        model = make()
        logps = response_logps(model, collate(ROWS))
        (logps * torch.tensor([1.0, -2.0, 0.5, 3.0])).sum().backward()
        values.append(logps.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(values[1], values[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-4)


def test_what_the_padding_holds_does_not_matter() -> None:
    model = make()
    with torch.no_grad():
        zeros, twos = (response_logps(model, collate(ROWS, pad_id=pad)) for pad in (0, 2))
    torch.testing.assert_close(zeros, twos, rtol=0, atol=1e-5)


def test_masks_come_from_lengths_and_not_from_token_ids() -> None:
    batch = collate([Encoded([1, 2, 2, 2], 2), Encoded([2, 0], 1)], pad_id=2)
    assert batch.input_ids.tolist() == [[1, 2, 2, 2], [2, 0, 2, 2]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.response_mask.tolist() == [[False, False, True, True], [False, True, False, False]]


def test_positions_count_real_tokens_on_either_side() -> None:
    assert positions(torch.tensor([[1, 1, 1, 0], [0, 0, 1, 1]])).tolist() == [[0, 1, 2, 2], [0, 0, 0, 1]]


def test_a_bfloat16_model_is_summed_in_float32() -> None:
    model = make().to(torch.bfloat16)
    with torch.no_grad():
        found = response_logps(model, collate(ROWS))
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([expected(model, row) for row in ROWS], rel=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_models_own_forward(family: str) -> None:
    model, ids = make(family), torch.tensor([ROWS[0].input_ids])
    with torch.no_grad():
        hidden: Tensor = decoder(model)(input_ids=ids).last_hidden_state
        torch.testing.assert_close(logits_of(model, hidden), model(input_ids=ids).logits)
    check_model(model)


def test_a_family_of_another_scaling_is_refused() -> None:
    """This family multiplies by the key by which Granite divides."""
    with pytest.raises(UserError, match="HyperCLOVAXForCausalLM changes its logits behind the head"):
        check_model(make("HyperCLOVAX", logits_scaling=4.0))


@pytest.mark.parametrize("family", ["Llama", "Gemma2", "Cohere", "Granite"])
def test_slopes_pass_through_what_a_family_does_behind_its_head(family: str) -> None:
    model = make(family).requires_grad_(False)
    hidden, tokens = torch.randn(7, 32, requires_grad=True), torch.arange(7)
    plain = logits_of(model, hidden).log_softmax(dim=-1).gather(1, tokens[:, None])[:, 0]
    factors = torch.linspace(-1, 2, 7)
    (theirs,) = torch.autograd.grad((plain * factors).sum(), hidden)
    found = logprobs.token_logps(model, hidden, tokens)
    (ours,) = torch.autograd.grad((found * factors).sum(), hidden)
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(logprobs.token_logps(model, hidden, tokens), plain, rtol=1e-5, atol=1e-6)


def test_tokens_that_are_next_to_impossible_keep_their_log_probability() -> None:
    model = make().requires_grad_(False)
    hidden, tokens = (1e4 * torch.randn(7, 32)).requires_grad_(), torch.arange(7)
    plain = logits_of(model, hidden).log_softmax(dim=-1).gather(1, tokens[:, None])[:, 0]
    assert plain.min() < -1000
    (theirs,) = torch.autograd.grad(plain.sum(), hidden)
    found = logprobs.token_logps(model, hidden, tokens)
    (ours,) = torch.autograd.grad(found.sum(), hidden)
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
