"""The checkpoint that a fit resumes from."""

import os
import random
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from sipo_pl.interop.lightning import batch_counts, epoch_counts, validates_after_batch, validation_counts
from sipo_pl.messages.errors import Stopped
from sipo_pl.storage.files import atomic_path, remove
from sipo_pl.storage.stopping import Stopping
from sipo_pl.training.fit import Fit


class ResumeCheckpoint(Checkpoint):
    """Saves the fit every few optimizer steps, and where it is asked to stop; the saving before is kept beside it.

    A step that is validated is saved after its validation: a restart from before would go on without it. The state of
    the random generators is saved too, for losses and layers that draw.

    Args:
        path: the file
        before: where the file of the saving before goes
        every: optimizer steps between two savings, at least
        stopping: what may ask the fit to stop
    """

    def __init__(self, path: Path, before: Path, every: int, stopping: Stopping) -> None:
        if every < 1:
            raise ValueError(f"every: {every} is less than one")
        self.path, self.before, self.every, self.stopping = path, before, every, stopping
        self._seen = self._saved = 0
        self._random: dict[str, Any] = {}
        self._micro_batches = 1  # of a step, on each device

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        assert isinstance(pl_module, Fit)
        self._micro_batches = pl_module.micro_batches

    def state_dict(self) -> dict[str, Any]:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        state = {"python": random.getstate(), "torch": torch.get_rng_state(), "cuda": cuda}
        return {**state, "micro_batches": self._micro_batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._random = state_dict

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Count epochs and batches as a fit does that was never restarted.

        Restarts leave the trainer's own counts uneven, above all at the end of an epoch; it then takes a later
        checkpoint for one of another moment, and begins an epoch again.
        """
        epoch = trainer.current_epoch
        for counts in epoch_counts(checkpoint):
            counts.update(ready=epoch + 1, started=epoch + 1, processed=epoch, completed=epoch)
        for counts in batch_counts(checkpoint):
            done = counts["ready"]
            counts.update(started=done, processed=done, completed=done if trainer.validating else done - 1)
        for counts in validation_counts(checkpoint):
            counts.update(ready=0, started=0, processed=0, completed=0)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Count the batches of an epoch as they are shared out to the devices that there are now."""
        assert isinstance(pl_module, Fit)
        before = checkpoint["callbacks"][self.state_key]["micro_batches"]
        if before == self._micro_batches:
            return
        epoch_batches = pl_module.batches_per_epoch
        total, current = batch_counts(checkpoint)
        steps = -(-current["ready"] // before)
        done = min(steps * self._micro_batches, epoch_batches)
        for counts, batches in ((current, done), (total, checkpoint["epoch"] * epoch_batches + done)):
            counts.update({name: batches - (counts["ready"] - count) for name, count in counts.items()})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seen = self._saved = trainer.global_step
        if self._random:
            random.setstate(self._random["python"])
            torch.set_rng_state(self._random["torch"])
            if len(self._random["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(self._random["cuda"])
        # after the trainer, which would end in the middle of a step; it restores the handlers
        self.stopping.listen("step")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped, self._seen = trainer.global_step > self._seen, trainer.global_step
        validates = validates_after_batch(trainer)
        if stepped and not validates:
            self._at_border(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._at_border(trainer, pl_module)

    def _at_border(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save a step, or stop after it, where that is due; the last one is the end of the fit."""
        assert isinstance(pl_module, Fit)  # knows the steps from its batch plan
        step, total = trainer.global_step, pl_module.total_steps
        if step == total:
            return
        reason = self.stopping.reason
        # all devices stop at the same step, whichever of them was asked
        stops = trainer.strategy.reduce_boolean_decision(reason is not None, all=False)
        if stops or step - self._saved >= self.every:
            self._save(trainer)
            self._saved = step
        if stops:
            raise Stopped(f"stopped by {reason or 'another process'} at step {step} of {total}, which is saved")

    def _save(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and self.path.exists():
            self._keep_before()
        for logger in trainer.loggers:
            # the curves up to here, before the checkpoint is there: a fit that goes on from it does not log them again
            logger.save()
        trainer.save_checkpoint(self.path)

    def _keep_before(self) -> None:
        if self.path.is_dir():  # of a sharded trainer
            remove(self.before)
            self.path.replace(self.before)
            return
        with atomic_path(self.before) as aside:
            try:
                os.link(self.path, aside)  # the newest stays in place until the next one takes it
            except OSError:  # a file system without links
                shutil.copyfile(self.path, aside)
