"""Commands on several devices: as a launcher starts their processes, and as the first process starts the others."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

PATIENCE = 240.0  # seconds
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
_method = "forkserver"  # how processes begin: forked with the libraries imported


class Ranks:
    """A command as several processes, each with a rank; what they say goes to files.

    Args:
        count: processes
        words: of the command, without those that give the devices
        folder: takes a file of each process, `rank-0.txt` and so on
        strategy: of the trainer
        settings: options of the strategy
        environment: variables beside those of this process
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
        port = str(free_port())
        devices = ["--trainer.devices", str(count), "--trainer.strategy", strategy]
        options = [*map(str, words), *devices, *settings]
        self.processes: list[Any] = []
        for rank, file in enumerate(self.files):
            variables = {**os.environ, **_launched(rank, count, port), **environment}
            self.processes.append(_context().Process(target=_run, args=(options, variables, str(file))))
            self.processes[-1].start()

    def wait(self, seconds: float = PATIENCE) -> list[int]:
        """Return the exit codes.

        Raises:
            AssertionError: some still run after so long; they are killed.
        """
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


class SelfStarted:
    """A command on two devices, of which the first process starts the second one; Linux only.

    Args:
        words: of the command, without those that give the devices
        file: takes what they say
        environment: variables beside those of this process
    """

    def __init__(self, words: Sequence[object], file: Path, **environment: str) -> None:
        self.file = file
        command = [sys.executable, "-m", "sipo_pl", *map(str, words), "--trainer.devices", "2"]
        variables = {**os.environ, **_ENVIRONMENT, **environment}
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w") as said:
            self.process = subprocess.Popen(command, env=variables, stdout=said, stderr=said)

    @property
    def second(self) -> int | None:
        """Return the process of the second device, once there is one."""
        first = self.process.pid
        with suppress(OSError):  # some process is gone already
            for child in Path(f"/proc/{first}/task/{first}/children").read_text().split():
                if b"LOCAL_RANK=1" in Path(f"/proc/{child}/environ").read_bytes():
                    return int(child)
        return None

    def wait_until(self, reached: Callable[[], bool], seconds: float = 120.0) -> None:
        """Wait for a state of what the command makes.

        Raises:
            AssertionError: the command ended before, or it took too long.
        """
        end = time.monotonic() + seconds
        while not reached():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < end, self.said
            time.sleep(0.01)

    def wait(self, seconds: float) -> int:
        """Return the exit code; subprocess.TimeoutExpired after so many seconds."""
        return self.process.wait(seconds)

    def close(self) -> None:
        """Kill what still runs."""
        for process in filter(None, [self.second if self.process.poll() is None else None, self.process.pid]):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()

    @property
    def said(self) -> str:
        """Return what they said."""
        return self.file.read_text()


def is_gone(process: int, seconds: float = 10.0) -> bool:
    """Return whether a process has ended within so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def fork_where_possible() -> str:
    """Find out whether forked processes can use the GPU, and let all begin anew otherwise; return how they begin."""
    global _method
    # a library that asks for GPUs as it is imported leaves them alone
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    process = _context().Process(target=_use_gpu)
    process.start()
    process.join()
    if process.exitcode != 0:
        _method = "spawn"
    return _method


def free_port() -> int:
    """Return a port that nothing listens at."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return int(found.getsockname()[1])


def _context() -> Any:
    context = multiprocessing.get_context(_method)
    context.set_forkserver_preload(["sipo_pl.run.preload", "deepspeed"])
    return context


def _use_gpu() -> None:
    import torch

    torch.zeros(1, device="cuda")


def _launched(rank: int, count: int, port: str) -> dict[str, str]:
    """Return the environment that torchrun gives a process on one machine."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "GROUP_RANK": 0}
    where = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "sipo_pl"}
    return {**{name: str(value) for name, value in names.items()}, **where, **_ENVIRONMENT}


def _run(words: list[str], environment: dict[str, str], said: str) -> None:
    """Run a command in this process, which ends with its exit code."""
    from sipo_pl.cli import main as cli
    from sipo_pl.run.devices import settle_threads

    os.environ.clear()
    os.environ.update(environment)
    settle_threads()
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(file, stream.fileno())
    sys.argv = ["sipo_pl", *words]
    sys.exit(cli.main())
