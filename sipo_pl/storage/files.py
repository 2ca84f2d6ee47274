"""Files and folders that appear whole or not at all."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from sipo_pl.messages.errors import UserError

UNWRITABLE = {"ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "ENOTDIR", "EEXIST", "EIO"}  # names of errors
ASIDE = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)\.(?P<kind>tmp|old)")  # what `atomic_path` leaves if it is killed


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside `path`; when the block ends well, flush it to disk and rename it into place.

    Works for a file and for a folder. A reader never sees a half-written `path`.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(aside)
        yield from _renamed(path, aside)


def _renamed(path: Path, aside: Path) -> Iterator[Path]:
    try:
        yield aside
        for written in [aside, *(aside.rglob("*") if aside.is_dir() else [])]:
            _fsync(written)
        old = path.with_name(f".{path.name}.{os.getpid()}.old")
        if path.is_dir():
            path.replace(old)  # a folder cannot be renamed over another; a crash in between leaves both whole
        aside.replace(path)
        remove(old)
        _fsync(path.parent)
    finally:
        remove(aside)


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Within the block, a full disk or a folder that cannot be written is a UserError that names `path`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if match := re.search(r"\(os error (\d+)\)", str(error)):  # as libraries that are not Python's say it
            number = int(match[1])
        if number is None or errno.errorcode.get(number) not in UNWRITABLE:
            raise
        raise UserError(f"{path}: cannot be written: {os.strerror(number)}; what was there is as it was") from None


def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder; a folder that was just being replaced comes back."""
    for path in folder.rglob(".*"):
        match = ASIDE.fullmatch(path.name)
        if match and not _lives(int(match["process"])):
            place = path.with_name(match["name"])
            if match["kind"] == "old" and not place.exists():
                path.replace(place)
            else:
                remove(path)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def remove(path: Path) -> None:
    """Remove a file or a folder, where there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text, atomically."""
    with atomic_path(path) as aside:
        aside.write_text(text, encoding="utf-8")
