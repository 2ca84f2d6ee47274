"""The checkpoint that a fit resumes from."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint


class ResumeCheckpoint(Checkpoint):
    """Saves the fit every few optimizer steps, always over the same file.

    A step that is validated is not saved: a restart from it would go on without its validation. The next one is.

    Args:
        path: the file
        every: optimizer steps between two savings, at least
    """

    def __init__(self, path: Path, every: int) -> None:
        if every < 1:
            raise ValueError(f"every: {every} is less than one")
        self.path, self.every = path, every
        self._seen = self._saved = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seen = self._saved = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        stepped, self._seen = step > self._seen, step
        validates = trainer.val_check_batch == 1
        if stepped and not validates and step - self._saved >= self.every:
            trainer.save_checkpoint(self.path)
            self._saved = step
