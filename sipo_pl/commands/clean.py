"""Command clean: what a run folder no longer needs."""

import logging
from collections.abc import Iterator
from pathlib import Path

from sipo_pl.messages.errors import UserError
from sipo_pl.storage.files import remove
from sipo_pl.storage.lock import lock
from sipo_pl.storage.manifest import Manifest
from sipo_pl.use.run_folder import read_recipe

log = logging.getLogger("sipo_pl")

CHECKPOINTS, CACHE = "checkpoints", "cache"
_LEFT = (".*.tmp", ".*.old")  # of writers that were killed


def clean(run: str, yes: bool = False) -> None:
    """List what a run folder no longer needs, and its size; remove it where that is asked for.

    Checkpoints of fits that are complete, reference log-probabilities once every fit is, and what killed writers left.
    Adapters, rows, reports and manifests stay. `validate` and `test` of a fit need its checkpoint.

    Args:
        run: run folder
        yes: remove what is listed
    """
    folder = Path(run)
    read_recipe(folder)
    total = 0
    with lock(folder):
        for path, why in _removable(folder):
            size = _size(path)
            total += size
            print(f"{size / 2**20:10.1f} MiB  {path.relative_to(folder)}  ({why})")
            if yes:
                remove(path)
    print(f"{total / 2**20:10.1f} MiB  {'removed' if yes else 'in all; --yes removes them'}")


def _removable(folder: Path) -> Iterator[tuple[Path, str]]:
    checkpoints = sorted(folder.rglob(CHECKPOINTS))
    complete = {path: _is_complete(path.parent) for path in checkpoints}
    for path, done in complete.items():
        if done:
            yield path, "checkpoints of a complete fit"
    if (folder / CACHE).is_dir() and all(complete.values()):
        yield folder / CACHE, "reference log-probabilities, computed anew where a fit needs them"
    for pattern in _LEFT:
        for path in sorted(folder.rglob(pattern)):
            yield path, "left by a writer that was killed"


def _is_complete(stage: Path) -> bool:
    try:
        manifest = Manifest.read(stage)
    except UserError:
        return False
    return manifest is not None and manifest.complete


def _size(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())
