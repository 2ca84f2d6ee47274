"""Validates a fit a number of times, evenly over its optimizer steps and at the end."""

import sys

from lightning.pytorch import Callback, LightningModule, Trainer


class EvenValidation(Callback):
    """Validates every ceil(total / times) optimizer steps and at the last one.

    Args:
        times: validations of a fit
    """

    def __init__(self, times: int) -> None:
        if times < 1:
            raise ValueError(f"times: {times} is less than one")
        self.times = times
        self._validated = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        total = pl_module.total_steps
        step, every = trainer.global_step, -(-total // self.times)
        due = step > self._validated and (step % every == 0 or step == total)
        # the loop validates where its batch count divides by this number: by one, always; by the largest, never
        trainer.val_check_batch = 1 if due else sys.maxsize
        if due:
            self._validated = step
