"""Stops a fit that trains nothing, before it costs its whole time."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from sipo_pl.messages.errors import UserError
from sipo_pl.training.lora_fit import LoRAFit
from sipo_pl.training.zero import gathered


class StillGuard(Callback):
    """Raises UserError where the first optimizer step leaves the adapter at zero, for want of a learning rate.

    A single step may have no gradient, such as one of pairs that no objective decides; a whole epoch may not.
    """

    def __init__(self) -> None:
        self._moved = False
        self._lr = 0.0
        self._steps = 0

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self._lr = max(float(group["lr"]) for group in optimizer.param_groups)
        self._steps += 1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, LoRAFit)
        if self._moved or not self._steps:
            return
        with gathered(pl_module.stack.trained):  # not of the base, whose weights may fit no device
            self._moved = pl_module.stack.moved
        if not self._moved and self._lr == 0 and self._had_a_rate(pl_module):
            raise UserError(
                f"step {trainer.global_step} left the adapter as it was: the learning rate is 0 "
                "(model.optimizer.init_args.lr, model.warmup)"
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, LoRAFit)
        if self._had_a_rate(pl_module) and not self._moved:
            raise UserError(
                f"{self._steps} steps left the adapter as it was: the gradient is 0 at a learning rate of "
                f"{self._lr:g}; do chosen and rejected responses differ, and has the loss a weight above 0?"
            )

    def _had_a_rate(self, module: LoRAFit) -> bool:
        # with the released schedule the first step has a rate of zero, whatever the optimizer's
        return self._steps > module.recipe.compat.step_count_warmup
