"""Internals of Lightning: when its loops validate, what they count, and the processes that its launcher starts."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI

LoopCounts = dict[str, int]  # ready, started, processed, completed


class PlainCLI(LightningCLI):
    """A LightningCLI that neither draws a seed nor lets a checkpoint's hyper-parameters override what the user asks."""

    def _set_seed(self) -> None:
        """Leave the seed to the recipe."""

    def _parse_ckpt_path(self) -> None:
        """Leave the config alone."""


def validate_after_batch(trainer: Trainer, due: bool) -> None:
    """Let a fit validate after the present batch, or not.

    The loop validates where its batch count divides by this number: by one always, by the largest never.
    """
    trainer.val_check_batch = 1 if due else sys.maxsize


def validates_after_batch(trainer: Trainer) -> bool:
    """Return what `validate_after_batch` was told last."""
    return bool(trainer.val_check_batch == 1)


def accumulate(trainer: Trainer, micro_batches: int) -> None:
    """Let an optimizer step take so many micro-batches on each device, whatever the trainer was made with."""
    trainer.accumulate_grad_batches = micro_batches


def started_processes(trainer: Trainer) -> Sequence["subprocess.Popen[bytes]"]:
    """Return the processes that the trainer started for its other devices, in order of their rank from 1 on."""
    found: Sequence[subprocess.Popen[bytes]] = getattr(trainer.strategy.launcher, "procs", ())
    return found


def epoch_counts(checkpoint: Mapping[str, Any]) -> tuple[LoopCounts, LoopCounts]:
    """Return a checkpoint's counts of epochs, in all and since the start; what is written into them counts."""
    return _counts(checkpoint, "epoch_progress")


def batch_counts(checkpoint: Mapping[str, Any]) -> tuple[LoopCounts, LoopCounts]:
    """Return a checkpoint's counts of training batches, in all and of its epoch."""
    return _counts(checkpoint, "epoch_loop.batch_progress")


def validation_counts(checkpoint: Mapping[str, Any]) -> tuple[LoopCounts, LoopCounts]:
    """Return a checkpoint's counts of validation batches, in all and of its validation."""
    return _counts(checkpoint, "epoch_loop.val_loop.batch_progress")


def _counts(checkpoint: Mapping[str, Any], name: str) -> tuple[LoopCounts, LoopCounts]:
    progress = checkpoint["loops"]["fit_loop"][name]
    return progress["total"], progress["current"]
