"""Counts what a fit costs whatever the machine: tokens and backward passes."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from sipo_pl.modules.fit import Fit, FitBatch

TRAINED_TOKENS, BACKWARD_PASSES = "trained tokens", "backward passes"


class FitCost(Callback):
    """Counts, over all devices and starts of a fit, the tokens of its training rows and its backward passes."""

    def __init__(self) -> None:
        self._tokens = self._passes = 0

    @property
    def counts(self) -> dict[str, int]:
        return {TRAINED_TOKENS: self._tokens, BACKWARD_PASSES: self._passes}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: FitBatch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Fit)
        self._tokens += batch.token_count
        self._passes += pl_module.backwards_per_batch

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size > 1:
            mine = torch.tensor(list(self.counts.values()), device=pl_module.device)
            self._tokens, self._passes = trainer.strategy.reduce(mine, reduce_op="sum").tolist()

    def state_dict(self) -> dict[str, Any]:
        return dict(self.counts)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._tokens, self._passes = state_dict[TRAINED_TOKENS], state_dict[BACKWARD_PASSES]
