"""Progress of fits, by optimizer step, and of predictions, by row."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from sipo_pl.data.datamodules.unit_data import UnitLoader
from sipo_pl.messages.progress import Progress
from sipo_pl.prediction.base import PredictionModule
from sipo_pl.training.fit import Fit


class FitProgress(Callback):
    """Shows optimizer steps, tokens per second, loss and time to go.

    Args:
        label: the stage
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.progress: Progress | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and isinstance(pl_module, Fit):
            self.progress = Progress(self.label, pl_module.total_steps, "steps", done=trainer.global_step).__enter__()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.progress is not None:
            shown = {name: trainer.callback_metrics.get(name) for name in ("loss", "rewards/accuracies", "val/loss")}
            note = " ".join(f"{name} {value:.3f}" for name, value in shown.items() if value is not None)
            tokens = batch.token_count * trainer.world_size
            self.progress.advance(trainer.global_step - self.progress.done, tokens, note)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.progress is not None:
            self.progress.__exit__(None, None, None)


class PredictProgress(Callback):
    """Shows rows, tokens per second and time to go; the module counts from inside its step.

    Args:
        label: the stage
        rows: of each unit of the stage
        done: rows that are already written
    """

    def __init__(self, label: str, rows: Sequence[int], done: int) -> None:
        self.label, self.rows, self.done = label, rows, done
        self.progress: Progress | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and isinstance(pl_module, PredictionModule):
            label, total, done = self.label, sum(self.rows), self.done
            if trainer.world_size > 1:  # only its own rows can be counted
                loader = trainer.predict_dataloaders
                assert isinstance(loader, UnitLoader)
                label = f"{label} (device 1 of {trainer.world_size})"
                total, done = sum(self.rows[index] for index in loader.indices), 0
            self.progress = Progress(label, total, "rows", done).__enter__()
            pl_module.progress = self.progress

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.progress is not None:
            self.progress.__exit__(None, None, None)
