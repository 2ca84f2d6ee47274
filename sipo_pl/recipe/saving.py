"""How a fit is validated and saved. Plain data, quick to import."""

from dataclasses import dataclass
from typing import Literal

from sipo_pl.interop.numbers import PositiveInt


@dataclass(frozen=True)
class Saving:
    """How a fit is validated and saved.

    Args:
        validations: validations of a fit, evenly over its optimizer steps, the last at its end
        keep: the adapter that is written, best in validation or last
        monitor: what the best is the lowest of; val/dpo_loss leaves out what a loss adds to DPO, such as the NLL term
        save_every: optimizer steps between checkpoints to resume from
    """

    validations: PositiveInt = 4
    keep: Literal["best", "last"] = "best"
    monitor: Literal["val/loss", "val/dpo_loss"] = "val/loss"
    save_every: PositiveInt = 20
