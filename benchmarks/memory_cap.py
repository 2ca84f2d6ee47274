"""A callback of a fit, for any config: caps what the fit may allocate on its GPU, and writes down its steps."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class MemoryCap(Callback):
    """Caps the GPU memory of this process, and adds a line to a file for each optimizer step.

    Args:
        record: JSONL file; a line has the step, its loss, the time in seconds, and the peak of allocated bytes so far.
        gib: what may be allocated at once, in GiB; all that the GPU has where not given.
    """

    def __init__(self, record: str, gib: float | None = None) -> None:
        self.record, self.gib = Path(record), gib
        self._seen = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Set the cap, before the model is loaded."""
        if self.gib is not None:
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, self.gib * 2**30 / total))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave out the steps of an earlier start."""
        self._seen = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write down a step that has ended."""
        if trainer.global_step == self._seen:
            return
        self._seen = trainer.global_step
        loss = float(outputs["loss"])  # waits for the device
        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        with self.record.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self._seen, "loss": loss, "at": time.time(), "peak": peak}) + "\n")
