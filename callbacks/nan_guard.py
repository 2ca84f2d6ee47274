"""Stops a fit whose loss is no number, before the optimizer spreads it."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from sipo_pl.messages.errors import UserError


class NaNGuard(Callback):
    """Raises UserError that names step and rows where a loss is nan or infinite."""

    def __init__(self) -> None:
        self._rows: list[str] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        self._rows = list(getattr(batch, "row_ids", []))

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise UserError(f"loss is {loss.item()} at step {trainer.global_step}, rows {', '.join(self._rows)}")
