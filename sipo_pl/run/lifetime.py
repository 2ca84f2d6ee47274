"""How long processes live: one that is started here dies with the one that started it."""

import ctypes
import os
import signal
import sys
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from threading import Thread

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Let the system kill this process when the one that started it ends, however that happens; on Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def die_with(process: BaseProcess) -> None:
    """Kill this process when another ends, however that happens.

    Args:
        process: of `multiprocessing`, such as `parent_process()`.
    """

    def watch() -> None:
        wait([process.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    Thread(target=watch, name="die with another process", daemon=True).start()
