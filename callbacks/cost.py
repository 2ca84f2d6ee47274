"""Counts what a fit costs whatever the machine: tokens and backward passes."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from sipo_pl.training.fit import Fit, FitBatch

TRAINED_TOKENS, BACKWARD_PASSES = "trained tokens", "backward passes"


class FitCost(Callback):
    """Counts, over all devices and starts of a fit, the tokens of its training rows and its backward passes."""

    def __init__(self) -> None:
        self.counts = {TRAINED_TOKENS: 0, BACKWARD_PASSES: 0}  # of the last saving, over all devices
        self._since = {TRAINED_TOKENS: 0, BACKWARD_PASSES: 0}  # of this device
        self._trainer: Trainer | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._trainer = trainer

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: FitBatch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Fit)
        if not batch.spare:
            self._since[TRAINED_TOKENS] += batch.token_count
            self._since[BACKWARD_PASSES] += pl_module.backwards_per_batch

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._gather()

    def state_dict(self) -> dict[str, Any]:
        """Return the counts of all devices, each of which calls this when a checkpoint is saved."""
        self._gather()
        return dict(self.counts)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.counts.update(state_dict)

    def _gather(self) -> None:
        if self._trainer is None:
            return
        strategy = self._trainer.strategy
        found = strategy.reduce(torch.tensor(list(self._since.values()), device=strategy.root_device), reduce_op="sum")
        for name, count in zip(self._since, found.tolist(), strict=True):
            self.counts[name] += count
            self._since[name] = 0
