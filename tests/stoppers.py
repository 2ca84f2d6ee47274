"""Callbacks that ask a fit or a prediction to stop, as a user or a scheduler does."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class AskAt(Callback):
    """Asks the fit to stop, at a micro-batch of the second epoch: by a signal, or by touching a file."""

    def __init__(self, batch: int, by: str, after: float = 0.0) -> None:
        self.batch, self.by, self.after = batch, by, after

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch != 1 or batch_idx != self.batch:
            return
        time.sleep(self.after)
        ask_by(self.by)


class AskAtUnit(Callback):
    """Asks the prediction to stop when a unit is begun."""

    def __init__(self, by: str) -> None:
        self.by = by

    def on_predict_batch_start(self, trainer: Trainer, *arguments: Any) -> None:
        ask_by(self.by)


def ask_by(by: str) -> None:
    """Send this process a signal, or touch a file."""
    if by.startswith("SIG"):
        os.kill(os.getpid(), signal.Signals[by])
    else:
        Path(by).touch()
