"""The lock of a folder: one process at a time works in it."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from sipo_pl.messages.errors import UserError
from sipo_pl.storage.files import sweep, writable


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, a file beside it, and sweep the folder; the system frees the lock of a dead process.

    Raises:
        UserError: another process holds it, or the folder cannot be written.
    """
    with writable(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        path = folder.with_name(f".{folder.name}.lock")
        if path.is_dir():
            raise UserError(f"{path}: a folder where a lock file is to be; remove it")
        opened = path.open("a+", encoding="utf-8", errors="replace")
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(f"{folder}: in use by process {file.read().strip() or '?'}") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        sweep(folder)
        yield
