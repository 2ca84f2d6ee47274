"""Checkpoints that appear whole or not at all, and are read back before they count."""

import logging
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from sipo_pl.messages.errors import UserError
from sipo_pl.storage.files import atomic_path, remove

log = logging.getLogger("sipo_pl")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint aside, reads it back, flushes it to disk and renames it into place."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        with atomic_path(Path(path)) as aside:
            try:
                torch.save(checkpoint, aside)
            except RuntimeError as error:  # what the writer makes of a full disk
                raise UserError(f"{path}: cannot be written; is the disk full? ({_first_line(error)})") from None
            read_checkpoint(aside)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint file onto the CPU.

    Raises:
        UserError: no such file, or it is damaged, or holds more than weights and plain values.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if name := archive.testzip():  # the checksums, which torch leaves unread
                raise UserError(f"checksum of {name}")
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except Exception as error:  # the archive, the pickle and the tensors inside each have errors of their own
        raise UserError(f"{path}: damaged: {_first_line(error)}") from None
    return checkpoint


def newest_readable(paths: Sequence[Path], mend: bool = True) -> Path | None:
    """Return the first of the checkpoints that can be read; remove those before it that are damaged, saying so.

    Args:
        paths: newest first; a folder, which a sharded trainer writes, is taken as it is.
        mend: remove and warn; of several devices, one does.

    Raises:
        UserError: there are some, and all are damaged.
    """
    damaged: list[str] = []
    for path in filter(Path.exists, paths):
        try:
            if path.is_file():
                read_checkpoint(path)
        except UserError as error:
            damaged.append(str(error))
            continue
        if not mend:
            return path
        for problem in damaged:
            log.warning("%s; going on from the checkpoint before it, %s", problem, path.name)
        for other in paths[: paths.index(path)]:
            remove(other)  # else it would take the place of the good one at the next saving
        return path
    if damaged:
        raise UserError(f"{'; '.join(damaged)}; remove them, or --overwrite, to begin anew")
    return None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
