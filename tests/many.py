"""Commands on several devices, as a launcher starts them: processes that are forked with the libraries imported."""

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PATIENCE = 240.0  # seconds


class Ranks:
    """A command as several processes, each with a rank; what they say goes to files.

    Args:
        count: processes
        words: of the command, without those that give the devices
        folder: takes a file of each process, `rank-0.txt` and so on
        strategy: of the trainer
        settings: options of the strategy
        environment: variables beside those of the tests
    """

    def __init__(
        self,
        count: int,
        words: Sequence[object],
        folder: Path,
        strategy: str = "ddp",
        settings: Sequence[str] = (),
        **environment: str,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.files = [folder / f"rank-{rank}.txt" for rank in range(count)]
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["sipo_pl.preload", "deepspeed"])
        port = str(free_port())
        devices = ["--trainer.devices", str(count), "--trainer.strategy", strategy]
        options = [*map(str, words), *devices, *settings]
        self.processes: list[Any] = []
        for rank, file in enumerate(self.files):
            variables = {**os.environ, **environment, **_launched(rank, count, port)}
            self.processes.append(context.Process(target=_run, args=(options, variables, str(file))))
            self.processes[-1].start()

    def wait(self, seconds: float = PATIENCE) -> list[int]:
        """Return the exit codes."""
        end = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
            if process.is_alive():
                self.kill()
                raise AssertionError(f"still running after {seconds:g} s\n{self.said}")
        return [process.exitcode for process in self.processes]

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()

    @property
    def said(self) -> str:
        """Return what all of them said."""
        return "\n".join(file.read_text() for file in self.files if file.exists())


def free_port() -> int:
    """Return a port that nothing listens at."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return int(found.getsockname()[1])


def _launched(rank: int, count: int, port: str) -> dict[str, str]:
    """Return the environment that torchrun gives a process on one machine."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "GROUP_RANK": 0}
    where = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "tests"}
    quick = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return {**{name: str(value) for name, value in names.items()}, **where, **quick}


def _run(words: list[str], environment: dict[str, str], said: str) -> None:
    """Run a command in this process, which ends with its exit code."""
    from sipo_pl import cli

    os.environ.clear()
    os.environ.update(environment)
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(file, stream.fileno())
    sys.argv = ["sipo_pl", *words]
    sys.exit(cli.main())
