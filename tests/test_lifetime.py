"""Processes that must not outlive the one that started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHILD = """
import time
from sipo_pl.lifetime import die_with_parent
die_with_parent()
print("ready", flush=True)
time.sleep(60)
"""
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the system call is Linux's")
def test_a_child_dies_with_its_parent() -> None:
    words = [sys.executable, "-c", PARENT, CHILD]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        said = {parent.stdout.readline().strip() for _ in range(2)}
        assert "ready" in said
        child = int((said - {"ready"}).pop())
        parent.kill()
    end = time.monotonic() + 10
    while time.monotonic() < end and _lives(child):
        time.sleep(0.01)
    alive = _lives(child)
    if alive:
        os.kill(child, signal.SIGKILL)
    assert not alive


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
