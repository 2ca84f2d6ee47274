"""Validates a fit a number of times, evenly over its optimizer steps."""

from lightning.pytorch import Callback, LightningModule, Trainer

from sipo_pl.interop.lightning import validate_after_batch
from sipo_pl.training.fit import Fit


class EvenValidation(Callback):
    """Validates every ceil(total / times) optimizer steps and at the last one.

    Args:
        times: validations of a fit
        at_end: validate at the last step even where it is no multiple of those
    """

    def __init__(self, times: int, at_end: bool = True) -> None:
        if times < 1:
            raise ValueError(f"times: {times} is less than one")
        self.times, self.at_end = times, at_end
        self._validated = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Fit)  # knows the steps from its batch plan
        total, step = pl_module.total_steps, trainer.global_step
        every = -(-total // self.times)
        due = step > self._validated and (step % every == 0 or (self.at_end and step == total))
        validate_after_batch(trainer, due)  # ResumeCheckpoint asks for it
        if due:
            self._validated = step
