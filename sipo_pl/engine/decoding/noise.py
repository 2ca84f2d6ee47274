"""The noise of a row: each row has its own, so that its text depends neither on other rows nor on the device."""

from typing import NamedTuple

import torch
from torch import Tensor

from sipo_pl.method.seeds import seed_of


class Noise(NamedTuple):
    """Which noise a row has.

    Args:
        seed: of the run, or of a request
        key: of the row
    """

    seed: int
    key: str


def row_uniforms(seed: int, key: str, steps: int) -> Tensor:
    """Return one uniform number in [0, 1) for each step of the row called `key`, (steps,), float32, on the CPU.

    Fewer steps are the first of more.
    """
    return torch.rand(steps, generator=torch.Generator().manual_seed(seed_of(seed, key)))
