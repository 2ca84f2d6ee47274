"""Checkpoints that appear whole or not at all."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from sipo_pl.artifacts import atomic_path


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint aside, flushes it to disk and renames it into place."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        with atomic_path(Path(path)) as aside:
            torch.save(checkpoint, aside)
