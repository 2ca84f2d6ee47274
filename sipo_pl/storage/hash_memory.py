"""SHA-256 of files. That of a large one is remembered in the user's cache folder, so that it is read once.

A file is known by its path, size, inode and the times of its last changes. An entry that is damaged, or of a file that
has changed, counts as none, and where the cache folder is missing or cannot be written, the file is read again.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

CACHE_VARIABLE = "SIPO_PL_CACHE"
MEMORY = "hashes.json"
LEAST = 2**24  # bytes; a smaller file is read sooner than it is looked up
SETTLED = 2.0  # seconds; a file that was changed since may be changed again without another time to show it
MOST = 2000  # entries, of which the oldest are forgotten first

_Key = tuple[str, int, int, int, int]  # path, size, inode, nanoseconds of the last change of content, and of any change
_read: dict[_Key, str] = {}  # by this process


def cache_folder() -> Path:
    """Return the folder of what is kept for all runs of a user."""
    return Path(os.path.expanduser(os.environ.get(CACHE_VARIABLE) or "~/.cache/sipo_pl"))  # noqa: PTH111 (never raises)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hex digits."""
    key, began = _key(path), time.time_ns()
    known = _known(key)
    if known is not None:
        return known
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    settled = began - max(key[3:]) > SETTLED * 1e9
    if key[1] >= LEAST and settled and _key(path) == key:
        _read[key] = found
        _remember(key, found)
    return found


def known_hash(path: Path) -> str | None:
    """Return the SHA-256 of a file where that takes no long reading: it is small, or remembered. None elsewhere."""
    key = _key(path)
    return file_hash(path) if key[1] < LEAST else _known(key)


def _key(path: Path) -> _Key:
    state = path.stat()
    return str(path.resolve()), state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns


def _known(key: _Key) -> str | None:
    if key[1] < LEAST:
        return None
    if key not in _read:
        path, *state = key
        match _entries().get(path):
            case [*there, str(found), str(check)] if there == state and check == _check(key, found):
                _read[key] = found
    return _read.get(key)


def _check(key: _Key, found: str) -> str:
    """Return what tells a whole entry from a damaged one."""
    return hashlib.sha256(json.dumps([key, found]).encode()).hexdigest()[:16]


def _entries() -> dict[str, Any]:
    """Return what is remembered, path -> the rest of an entry; nothing where the file is missing or damaged."""
    try:
        value = json.loads((cache_folder() / MEMORY).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _remember(key: _Key, found: str) -> None:
    path, *state = key
    entries: Mapping[str, Any] = {**_entries()}
    kept = [(name, entry) for name, entry in entries.items() if name != path][-MOST + 1 :]
    text = json.dumps(dict([*kept, (path, [*state, found, _check(key, found)])]), indent=0)
    file = cache_folder() / MEMORY
    aside = file.with_name(f".{MEMORY}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        aside.replace(file)
    except OSError:  # a cache that cannot be written costs another reading
        with suppress(OSError):
            aside.unlink(missing_ok=True)
