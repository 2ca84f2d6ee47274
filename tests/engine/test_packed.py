from collections.abc import Sequence

import pytest
import torch
from families import FAMILIES, VOCABULARY, tiny_family
from torch import Tensor
from transformers import PreTrainedModel

from sipo_pl.engine.decoding.attention import attend_along
from sipo_pl.engine.logprobs import response_logprobs as logprobs
from sipo_pl.engine.logprobs.chunked_backward import summed_over
from sipo_pl.engine.logprobs.packed_attention import NAME, _SharedKeys, span_lengths
from sipo_pl.engine.logprobs.packed_sequences import PackedLayout, Span, pack, packed_length, packed_logps
from sipo_pl.engine.logprobs.response_logprobs import response_logps
from sipo_pl.engine.logprobs.token_budget import forwards_of
from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.engine.models.activation_checkpointing import checkpoint_layers
from sipo_pl.text.templates import Encoded
from sipo_pl.text.token_batch import collate

ADAPTED = {"Phi3": ["qkv_proj"], "DeepseekV3": ["q_b_proj", "o_proj"], "OPT": ["q_proj", "out_proj"]}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
WEIGHTS = (1.0, -2.0, 0.5, 3.0, -1.0, 0.7)  # of the rows, in a sum whose gradient is looked at


def draw(length: int, seed: int) -> list[int]:
    return torch.randint(0, VOCABULARY, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


LONG, SHORT = draw(11, 0), draw(2, 1)
CHOSEN = Encoded([*LONG, *draw(9, 2)], 11)
ROWS = [
    CHOSEN,
    Encoded([*LONG, *draw(14, 3)], 11),
    Encoded([*SHORT, 2], 2),  # EOS alone
    Encoded([*SHORT, *draw(5, 4)], 2),
    CHOSEN,  # stands in two pairs
    Encoded(draw(8, 5), 0),  # without a prompt, where nothing predicts the first token
]


def stack_of(family: str = "Llama", rank: int = 4, model: PreTrainedModel | None = None) -> LoRAStack:
    model = model or tiny_family(family)
    model.set_attn_implementation("eager")  # which caps scores in every version, where Gemma 2 does
    stack = LoRAStack(model, ADAPTED.get(family, ["q_proj", "o_proj"]))
    stack.train_ranks(rank, 2.0 * rank, seed=0)
    generator = torch.Generator().manual_seed(rank)
    for layer in stack.layers.values():
        layer.lora_B.data.normal_(std=0.2, generator=generator)
    return stack


def packed(stack: LoRAStack, rows: Sequence[Encoded]) -> Tensor:
    with attend_along(stack.model, NAME):
        return packed_logps(stack.model, pack(rows))


def assert_same(found: Tensor, expected: Tensor) -> None:
    """Compare to a hundred-thousandth of the largest number: where terms cancel, float32 holds no more."""
    assert float((found - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))


def weighted(logps: Tensor) -> Tensor:
    return (logps * torch.tensor(WEIGHTS[: len(logps)])).sum()


def test_prompts_and_equal_rows_are_packed_once() -> None:
    found = pack(ROWS)
    assert found.input_ids.shape == (1, 11 + 8 + 13 + 2 + 0 + 4 + 8 - 1)
    assert packed_length(ROWS) == 45
    assert found.distinct == 5
    assert found.places.tolist() == [0, 1, 2, 3, 0, 4]
    spans = [Span(0, 19, 0, 0), Span(19, 32, 0, 11), Span(32, 34, 32, 0), Span(34, 38, 32, 2), Span(38, 45, 38, 0)]
    assert found.layout.spans == (tuple(spans),)
    assert found.positions[0, 19:32].tolist() == list(range(11, 24))


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_have_the_values_and_gradients_of_padded_ones(family: str) -> None:
    stack = stack_of(family)
    plain = response_logps(stack.model, collate(ROWS))
    found = packed(stack, ROWS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, plain, **CLOSE)
    expected = torch.autograd.grad(weighted(plain), stack.trained)
    assert max(float(one.abs().max()) for one in expected) > 0.1
    for ours, theirs in zip(torch.autograd.grad(weighted(found), stack.trained), expected, strict=True):
        assert_same(ours, theirs)


def test_computing_layers_again_changes_no_gradient() -> None:
    stack, gradients, kept = stack_of(), [], []
    for again in (False, True):
        if again:
            checkpoint_layers(stack.model)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda one, sizes=sizes: sizes.append(one.numel()) or one, lambda one: one
        ):
            loss = weighted(packed(stack, ROWS))
        gradients.append(torch.autograd.grad(loss, stack.trained))
        kept.append(sum(sizes))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert kept[1] < kept[0] / 3


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_no_logits_are_kept_for_the_gradient(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "CHUNK", {False: chunk})
    model = tiny_family("Llama", vocab_size=4001)
    hidden = torch.randn(7, 64, requires_grad=True)
    tokens, weights = torch.arange(7), torch.linspace(-1, 2, 7)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one.numel()) or one, lambda one: one):
        found = logprobs.token_logps(model, hidden, tokens)
    (ours,) = torch.autograd.grad((found * weights).sum(), hidden)
    plain = model.lm_head(hidden).log_softmax(dim=-1).gather(1, tokens[:, None])[:, 0]
    (theirs,) = torch.autograd.grad((plain * weights).sum(), hidden)
    torch.testing.assert_close(found, plain, **CLOSE)
    torch.testing.assert_close(ours, theirs, **CLOSE)
    outside = [size for size in kept if size < 4001]
    assert max(outside, default=0) <= hidden.numel()


def test_forwards_keep_prompts_together_and_the_budget() -> None:
    def row(prompt: int, response: int) -> Encoded:
        return Encoded([prompt] * 10 + [response] * 6, 10)

    pairs = [(row(1, 1), row(1, 2)), (row(2, 1), row(2, 2)), (row(1, 1), row(1, 3)), (row(3, 1), row(3, 2))]
    assert forwards_of(pairs, None) == [[0, 1, 2, 3]]
    assert forwards_of(pairs, 25) == [[0, 2], [1], [3]]  # 10 + 3 * 5 with the response that both share
    assert forwards_of(pairs, 45) == [[0, 2, 1], [3]]
    assert forwards_of(pairs, 1) == [[0], [2], [1], [3]]


@pytest.mark.parametrize("budget", [1, 30, None])
def test_several_forwards_have_the_gradient_of_one(budget: int | None) -> None:
    stack = stack_of()
    trained = stack.trained

    def loss(indices: Sequence[int]) -> Tensor:
        logps = packed(stack, [ROWS[index] for index in indices])
        return (logps * torch.tensor([WEIGHTS[index] for index in indices])).sum()

    forwards = forwards_of([[one] for one in ROWS], budget)
    total = summed_over([lambda indices=indices: loss(indices) for indices in forwards], trained)
    (3 * total).backward()
    whole = loss(range(len(ROWS)))
    torch.testing.assert_close(total, whole, **CLOSE)
    for one, expected in zip(trained, torch.autograd.grad(3 * whole, trained), strict=True):
        assert_same(one.grad, expected)


def test_what_flash_attention_is_told_is_the_attention_of_the_spans() -> None:
    """The sequences of a layout, attended to one by one as its kernel defines them: causal from the lower right."""
    layout: PackedLayout = pack(ROWS).layout
    tokens = layout.length
    found = span_lengths(layout, torch.device("cpu"))
    k, v = torch.randn(2, tokens, 1, 8, dtype=torch.double).unbind()
    keys, values = (_SharedKeys.apply(one, *found[4:]) for one in (k, v))
    for index, span in enumerate(layout.flat):
        here = slice(int(found.queries[index]), int(found.queries[index + 1]))
        there = slice(int(found.keys[index]), int(found.keys[index + 1]))
        assert (here.start, here.stop) == (span.start, span.stop)
        seen = [*range(span.above, span.above + span.depth), *range(span.start, span.stop)]
        torch.testing.assert_close(keys[there], k[seen])
        torch.testing.assert_close(values[there], v[seen])
    assert found.most_queries == max(span.length for span in layout.flat)
    assert found.most_keys == max(span.length + span.depth for span in layout.flat)
    own = k.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda one: _SharedKeys.apply(one, *found[4:]), own)
