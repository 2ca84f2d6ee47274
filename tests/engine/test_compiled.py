"""Compiled layers take rows of any lengths: one compiled anew for each would cost seconds, and after 64 all speed."""

from collections.abc import Iterator

import pytest
import torch
from families import VOCABULARY, tiny_family
from torch import Tensor
from torch._dynamo.utils import counters

from sipo_pl.engine.logprobs.cuda_graphs import AdapterLogps
from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.engine.models.compilation import compile_layers
from sipo_pl.text.templates import Encoded

LENGTHS = [(20, 31), (40,), (25,), (17, 50, 9), (70, 8), (12, 12)]  # tokens of the rows of each forward


@pytest.fixture
def stack() -> Iterator[LoRAStack]:
    torch._dynamo.reset()
    made = LoRAStack(tiny_family("Llama"), ["q_proj", "o_proj", "down_proj"])
    made.train_ranks(4, 8.0, seed=0)
    for rank in made.trained:
        rank.data += 0.1
    yield made
    torch._dynamo.reset()


def rows(lengths: tuple[int, ...]) -> list[Encoded]:
    generator = torch.Generator().manual_seed(sum(lengths))
    return [Encoded(torch.randint(0, VOCABULARY, (n,), generator=generator).tolist(), n // 2) for n in lengths]


def total_and_slopes(stack: LoRAStack, lengths: tuple[int, ...]) -> list[Tensor]:
    total = AdapterLogps(stack, False)(rows(lengths), torch.device("cpu")).sum()
    return [total, *torch.autograd.grad(total, stack.trained)]


def test_compiled_layers_give_the_same_and_are_compiled_once_for_all_lengths(stack: LoRAStack) -> None:
    expected = [total_and_slopes(stack, lengths) for lengths in LENGTHS]
    compile_layers(stack.model, backend="eager")
    counters.clear()
    graphs = []
    for lengths, values in zip(LENGTHS, expected, strict=True):
        for found, value in zip(total_and_slopes(stack, lengths), values, strict=True):
            torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-4)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0
    assert graphs == graphs[:1] * len(LENGTHS)
