"""Compiled layers take rows of any lengths: one compiled anew for each would cost seconds, and after 64 all speed."""

from collections.abc import Callable, Iterator

import pytest
import torch
from families import VOCABULARY, tiny_family
from torch import Tensor
from torch._dynamo.utils import counters

from sipo_pl.engine.logprobs.cuda_graphs import AdapterLogps
from sipo_pl.engine.logprobs.joined import Forward, joined_sums, twin
from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.engine.models.compilation import compile_layers
from sipo_pl.text.templates import Encoded

# of each adapter, the tokens of the rows of its forward
LENGTHS = [((20, 31), (40,)), ((25,), (17, 50, 9)), ((70, 8), (12, 12))]

Lengths = tuple[tuple[int, ...], ...]


@pytest.fixture
def stacks() -> Iterator[list[LoRAStack]]:
    torch._dynamo.reset()
    base = tiny_family("Llama")
    made = [LoRAStack(twin(base), ["q_proj", "o_proj", "down_proj"]) for _ in range(2)]
    for seed, stack in enumerate(made):
        stack.train_ranks(4, 8.0, seed)
        for rank in stack.trained:
            rank.data += 0.1
    yield made
    torch._dynamo.reset()


def rows(lengths: tuple[int, ...]) -> list[Encoded]:
    generator = torch.Generator().manual_seed(sum(lengths))
    return [Encoded(torch.randint(0, VOCABULARY, (n,), generator=generator).tolist(), n // 2) for n in lengths]


def alone(stacks: list[LoRAStack], lengths: Lengths) -> list[Tensor]:
    cpu = torch.device("cpu")
    sums = [AdapterLogps(one, False)(rows(of), cpu).sum() for one, of in zip(stacks, lengths, strict=True)]
    return [*sums, *(slope for one, total in zip(stacks, sums, strict=True) for slope in slopes(one, total))]


def together(stacks: list[LoRAStack], lengths: Lengths) -> list[Tensor]:
    sums = joined_sums(stacks, [[Forward(rows(of), torch.sum)] for of in lengths])
    return [*sums, *(slope for one, total in zip(stacks, sums, strict=True) for slope in slopes(one, total))]


def slopes(stack: LoRAStack, total: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(total, stack.trained)


@pytest.mark.parametrize("way", [alone, together])
def test_compiled_layers_give_the_same_and_are_compiled_once_for_all_lengths(
    stacks: list[LoRAStack], way: Callable[[list[LoRAStack], Lengths], list[Tensor]]
) -> None:
    expected = [way(stacks, lengths) for lengths in LENGTHS]
    for stack in stacks:
        compile_layers(stack.model, backend="eager")
    counters.clear()
    graphs = []
    for lengths, values in zip(LENGTHS, expected, strict=True):
        for found, value in zip(way(stacks, lengths), values, strict=True):
            torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-4)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0
    assert graphs == graphs[:1] * len(LENGTHS)
