"""The processes of a command on several devices, one for each: which one this is, and how all end when one does."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from threading import Thread

log = logging.getLogger("sipo_pl")

LOOK = 0.5  # seconds between two looks at the other processes
GRACE = 15.0  # seconds that the first process has to notice that another one failed
_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # set by torchrun, by the trainer, by srun


def rank() -> int:
    """Return the index of this process among those of its command, over all nodes."""
    found = next((os.environ[name] for name in _RANK_VARIABLES if name in os.environ), "0")
    return int(found)


def is_first() -> bool:
    """Return whether this process is the one that opens folders, writes what all made, and speaks."""
    return rank() == 0


def is_child() -> bool:
    """Return whether the first process of this command started this one; a launcher sees to its own.

    To be asked at the start: later, libraries set what launchers set.
    """
    return int(os.environ.get("LOCAL_RANK", "0")) > 0 and "RANK" not in os.environ


def is_loss(error: RuntimeError) -> bool:
    """Return whether an error of what the devices share says that another one is gone, or silent."""
    return type(error).__name__.startswith("Dist") or "gloo" in str(error) or "NCCL" in str(error)


def watch(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """End this process, the first one, as soon as another of its command fails; it may wait for that one for ever.

    Args:
        processes: those that this one started, in order of their rank, which begins at 1.
    """

    def look() -> None:
        while any(process.poll() is None for process in processes) or any(one.returncode for one in processes):
            for number, process in enumerate(processes, start=1):
                if process.returncode:
                    _end(number, process.returncode, processes)
            time.sleep(LOOK)

    Thread(target=look, name="watch the other devices", daemon=True).start()


def kill(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Kill the processes of other devices, also those that are frozen and would outlive this one."""
    for process in processes:
        process.kill()


def _end(number: int, code: int, processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
    log.error("device %d of %d %s; the command ends, and goes on when it is started again", number, len(processes), how)
    kill(processes)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(1)  # the main thread may hang in what it shares with the one that failed


def end_first() -> None:
    """After a failure, make sure that the first process, which started this one, ends too, though it may be frozen."""
    first = os.getppid()
    time.sleep(GRACE)  # it kills this one, where it sees the failure
    if os.getppid() == first:
        os.kill(first, signal.SIGKILL)
