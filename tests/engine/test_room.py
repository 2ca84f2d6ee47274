"""Memory that runs out: less at once, or an error where results must not depend on it."""

import pytest
import torch

from sipo_pl.engine.memory_budget import MemoryBudget
from sipo_pl.messages.errors import UserError

MESSAGE = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB."


class Device:
    """Takes so many rows at once and no more.

    Args:
        rows: how many
    """

    def __init__(self, rows: int) -> None:
        self.rows, self.asked = rows, list[int]()

    def forward(self, rows: int) -> int:
        self.asked.append(rows)
        if rows > self.rows:
            raise torch.OutOfMemoryError(MESSAGE)
        return rows


def test_the_size_is_halved_until_it_fits_and_stays_so() -> None:
    budget, device = MemoryBudget(fixed=False), Device(20)
    assert budget.run("decoding.batch_rows", 64, device.forward) == 16
    assert device.asked == [64, 32, 16]
    assert budget.run("decoding.batch_rows", 64, device.forward) == 16
    assert device.asked == [64, 32, 16, 16]
    assert budget.run("model.batch_tokens", 18, device.forward) == 18
    assert budget.halved == {"decoding.batch_rows": 16}


def test_a_fixed_size_is_an_error_that_says_how_to_go_on() -> None:
    device = Device(20)
    with pytest.raises(UserError) as caught:
        MemoryBudget(fixed=True).run("decoding.batch_rows", 64, device.forward)
    assert str(caught.value) == (
        "decoding.batch_rows: 64 is too much for the GPU's memory (Tried to allocate 2.00 GiB); a smaller one needs "
        "less; or let it shrink by itself with recipe.reproducible: false"
    )
    assert device.asked == [64]


def test_what_does_not_fit_at_all_is_an_error() -> None:
    device = Device(0)
    with pytest.raises(UserError, match=r"model.batch_tokens: 1 is too much"):
        MemoryBudget(fixed=False).run("model.batch_tokens", 4, device.forward)
    assert device.asked == [4, 2, 1]
