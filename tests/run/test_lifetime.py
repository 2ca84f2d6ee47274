"""Processes that must not outlive the one that started them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sipo_pl.run.lifetime import die_with

CHILD = """
import time
from sipo_pl.run.lifetime import die_with_parent
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


FORKING = """
import multiprocessing, test_lifetime
child = multiprocessing.get_context("forkserver").Process(target=test_lifetime.linger)
child.start()
print(child.pid, flush=True)
child.join()
"""


def linger() -> None:
    """Live for a minute, or as long as the process that started this one."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    die_with(parent)
    print("ready", flush=True)
    time.sleep(60)


@pytest.mark.skipif(sys.platform != "linux", reason="the system call is Linux's")
@pytest.mark.parametrize("words", [[PARENT, CHILD], [FORKING]], ids=["started", "forked"])
def test_a_child_dies_with_its_parent(words: list[str]) -> None:
    here = Path(__file__)
    paths = os.pathsep.join([str(here.parent), str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
    command, environment = [sys.executable, "-c", *words], {**os.environ, "PYTHONPATH": paths}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        said = {parent.stdout.readline().strip() for _ in range(2)}
        assert "ready" in said
        child = int((said - {"ready"}).pop())
        parent.kill()
    end = time.monotonic() + 10
    while time.monotonic() < end and lives(child):
        time.sleep(0.01)
    alive = lives(child)
    if alive:
        os.kill(child, signal.SIGKILL)
    assert not alive


def lives(process: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
