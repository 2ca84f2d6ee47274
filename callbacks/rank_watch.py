"""Ends a command on several devices when one of them fails."""

from lightning.pytorch import Callback, LightningModule, Trainer

from sipo_pl.interop.lightning import started_processes
from sipo_pl.messages import ranks


class RankWatch(Callback):
    """Watches the processes that the trainer started for its other devices."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        ranks.watch(started_processes(trainer))
