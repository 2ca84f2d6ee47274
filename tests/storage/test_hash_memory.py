"""Hashes of large files, which are remembered in the user's cache folder."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sipo_pl.storage.hash_memory import LEAST, MEMORY, SETTLED

ASKED = """
import sys
from pathlib import Path
from sipo_pl.storage import hash_memory
print(getattr(hash_memory, sys.argv[1])(Path(sys.argv[2])))
"""


def asked(function: str, path: Path, cache: Path) -> str:
    """Return what a process of its own answers."""
    words, environment = [sys.executable, "-c", ASKED, function, str(path)], {**os.environ, "SIPO_PL_CACHE": str(cache)}
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that is worth remembering, and has been left alone for long enough."""
    path = tmp_path_factory.mktemp("large") / "weights"
    with path.open("wb") as file:
        file.truncate(LEAST)
        file.write(b"end")
    time.sleep(SETTLED + 0.1)
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_large_file_is_read_once(large: Path, tmp_path: Path) -> None:
    assert asked("known_hash", large, tmp_path) == "None"
    assert asked("file_hash", large, tmp_path) == digest(large)
    assert asked("known_hash", large, tmp_path) == digest(large)


@pytest.mark.parametrize("harm", ["cut", "digit", "empty", "list", "folder", "none"])
def test_a_damaged_memory_is_none(large: Path, tmp_path: Path, harm: str) -> None:
    memory = tmp_path / MEMORY
    asked("file_hash", large, tmp_path)
    text = memory.read_text()
    if harm == "folder":
        memory.unlink()
        memory.mkdir()
    elif harm == "none":
        memory.unlink()
    else:
        first = digest(large)[0]
        other = digest(large).replace(first, "0" if first != "0" else "1", 1)
        changed = {"cut": text[:-9], "digit": text.replace(digest(large), other), "empty": "", "list": "[1]"}
        memory.write_text(changed[harm])
    assert asked("known_hash", large, tmp_path) == "None"
    assert asked("file_hash", large, tmp_path) == digest(large)


def test_a_cache_that_cannot_be_written_costs_a_reading_and_no_more(large: Path) -> None:
    for cache in (Path("/proc/none"), large / "below a file"):
        assert asked("file_hash", large, cache) == digest(large)
        assert asked("known_hash", large, cache) == "None"


def test_a_file_that_was_changed_is_read_again(large: Path, tmp_path: Path) -> None:
    asked("file_hash", large, tmp_path)
    before, state = digest(large), large.stat()
    with large.open("r+b") as file:
        file.write(b"x")
    os.utime(large, ns=(state.st_atime_ns, state.st_mtime_ns))  # as tools do that keep the times of what they copy
    assert asked("file_hash", large, tmp_path) == digest(large) != before
    assert asked("known_hash", large, tmp_path) == "None"  # it may be changed again at once
