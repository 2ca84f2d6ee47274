"""Rows padded for CUDA graphs, with flash attention as its definition has it, on a CPU."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from families import tiny_family
from test_packed import ROWS, draw, stack_of, weighted
from torch import Tensor

from sipo_pl.engine.decoding.attention import attend_along
from sipo_pl.engine.logprobs import packed_attention
from sipo_pl.engine.logprobs.cuda_graphs import _distinct_logps, _numbers_of
from sipo_pl.engine.logprobs.packed_attention import NAME
from sipo_pl.engine.logprobs.packed_sequences import Packed, pack, packed_logps
from sipo_pl.engine.logprobs.padding import padded, size_of
from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.text.templates import Encoded

HEADER = draw(70, 6)
SETS = {
    "shared prompts": ROWS,
    "none shared": ROWS[:1],
    "one token": [Encoded([5, 2], 1)],
    "one token left to pad": [Encoded(draw(128, 7), 11)],
    "many short ones": [Encoded([*HEADER, index, *draw(index % 4, index)], 70) for index in range(40)],
    "long": [Encoded([*HEADER, *draw(600, 8)], 70), Encoded([*HEADER, *draw(900, 9)], 70)],
}


def varlen_attn(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    queries: Tensor,
    keys: Tensor,
    most_queries: int,
    most_keys: int,
    *,
    scale: float,
    window_size: tuple[int, int],
) -> Tensor:
    """What torch's function computes, sequence by sequence: causal from the lower right."""
    assert window_size[1] == 0
    outputs = []
    for index in range(len(queries) - 1):
        own, others = (slice(int(one[index]), int(one[index + 1])) for one in (queries, keys))
        count, depth = own.stop - own.start, others.stop - others.start
        assert count <= most_queries
        assert depth <= most_keys
        assert count > 0 or depth == 0  # else the kernel would leave the gradient of these keys unwritten
        seen = torch.ones(count, depth, dtype=torch.bool).tril(depth - count)
        if window_size[0] >= 0:
            seen = seen.triu(depth - count - window_size[0])
        scores = torch.einsum("qhd,khd->hqk", q[own], k[others]) * scale
        outputs.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v[others]))
    assert sum(map(len, outputs)) == len(q)
    return torch.cat(outputs)


@pytest.fixture
def _flash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let packed rows go the way that they go on a GPU."""

    def at_once(module: Any, *args: Any) -> Tensor:
        return packed_attention._all_at_once(*args[:6])

    monkeypatch.setattr(packed_attention, "_span_by_span", at_once)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)


def logps_padded(stack: LoRAStack, rows: Sequence[Encoded]) -> Tensor:
    plain = pack(rows)
    inputs = padded(plain)
    with attend_along(stack.model, NAME):
        return _distinct_logps(stack.model, _numbers_of(inputs), size_of(inputs))[plain.places]


@pytest.mark.usefixtures("_flash")
@pytest.mark.parametrize("family", ["Llama", "Mistral"])
@pytest.mark.parametrize("rows", SETS.values(), ids=SETS)
def test_padding_changes_no_value_and_no_gradient(rows: list[Encoded], family: str) -> None:
    stack = stack_of(model=tiny_family(family, max_position_embeddings=1024))
    slopes = torch.linspace(-1, 2, len(rows))
    found = logps_padded(stack, rows)
    with attend_along(stack.model, NAME):
        expected = packed_logps(stack.model, pack(rows))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-4)
    both = [torch.autograd.grad((one * slopes).sum(), stack.trained) for one in (found, expected)]
    assert max(float(one.abs().max()) for one in both[1]) > 0
    for ours, theirs in zip(*both, strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * max(1.0, float(theirs.abs().max()))


@pytest.mark.usefixtures("_flash")
def test_the_emulated_attention_is_that_of_the_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = stack_of()
    found = weighted(logps_padded(stack, ROWS))
    monkeypatch.undo()
    with attend_along(stack.model, NAME):
        expected = weighted(packed_logps(stack.model, pack(ROWS)))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("rows", SETS.values(), ids=SETS)
def test_sizes_are_rounded_up_and_few(rows: list[Encoded]) -> None:
    plain = pack(rows)
    inputs = padded(plain)
    size = size_of(inputs)
    length = plain.layout.length
    assert length < size.tokens == inputs.input_ids.shape[1] == inputs.positions.shape[1]
    assert size.tokens % 128 == 0
    assert size.tokens <= max(length + 128, length * 9 / 8)
    assert size.targets % (size.tokens // 4) == 0
    assert size.copies % (size.tokens // 2) == 0
    assert size.copies == 0 or sum(span.depth for span in plain.layout.flat) > 0
    assert size.spans == inputs.distinct > plain.distinct
    assert size.spans.bit_count() == size.longest.bit_count() == 1
    real, idle = inputs.owners.split([len(plain.targets), len(inputs.targets) - len(plain.targets)])
    assert torch.equal(real, plain.owners)
    assert set(idle.tolist()) <= {size.spans - 1}
    assert (inputs.sources[len(real) :] >= length).all()
    assert inputs.layout.flat[: len(plain.layout.flat)] == plain.layout.flat
    stops = [0] + [span.stop for span in inputs.layout.flat]
    assert [span.start for span in inputs.layout.flat] == stops[:-1]  # without a gap
    assert stops[-1] == size.tokens


def test_lengths_of_an_octave_have_eight_sizes() -> None:
    found = {padded(_one(length)).layout.length for length in (*range(2048, 4096, 31), 4095)}
    assert sorted(found) == list(range(2304, 4097, 256))


def _one(length: int) -> Packed:
    return pack([Encoded([*range(length), 0], 1)])
