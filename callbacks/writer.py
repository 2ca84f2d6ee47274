"""Writes each predicted unit of rows as a file of its own, whole or not at all."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from sipo_pl.data.datamodules.unit_data import Unit
from sipo_pl.data.units import unit_path
from sipo_pl.storage.json_lines import write_jsonl
from sipo_pl.storage.stopping import Stopping


class UnitWriter(Callback):
    """Writes what `predict_step` returns for a unit; the file's existence is what a restart goes by.

    Args:
        stopping: what may ask the prediction to stop
    """

    def __init__(self, stopping: Stopping) -> None:
        self.stopping = stopping

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stopping.listen("unit")  # after the trainer, which restores the handlers

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Unit,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        write_jsonl(unit_path(batch.folder, batch.index), outputs)
