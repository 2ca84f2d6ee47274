"""Servers as users start them, and small policies to be served."""

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tiny import make_tiny_adapter
from tiny_run import environment

from sipo_pl.engine.decoding.options import Decoding
from sipo_pl.method.divergences import ReverseKL
from sipo_pl.recipe.recipe import Template
from sipo_pl.serve.answering import Defaults
from sipo_pl.serve.limits import Limits
from sipo_pl.serve.server import address, make_server, open_socket
from sipo_pl.use.api import load
from sipo_pl.use.fusion_file import FORMAT, FusionFile, component_of

STARTED = re.compile(r"serving (?P<name>\S+) at (?P<url>http://\S+?),")
PATIENCE = 180  # seconds, until a model is loaded on a busy machine


class Server(NamedTuple):
    """A server that runs.

    Args:
        process: of the command
        url: where it listens
        log: file of what it says
    """

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    @property
    def api(self) -> str:
        """Return the base address of OpenAI's interface."""
        return f"{self.url}/v1"

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask the server to stop; return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=60)

    @property
    def resident(self) -> int:
        """Return the bytes of memory that the process holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) << 10  # type: ignore[index]


@contextmanager
def serve(model: Path, log: Path, *options: object, **variables: str) -> Iterator[Server]:
    """Start a server on a free port and wait until it listens; kill it in the end."""
    command = [sys.executable, "-m", "sipo_pl", "serve", "--model", str(model), "--port", "0", *map(str, options)]
    with log.open("wb") as said:
        process = subprocess.Popen(command, env=environment(**variables), stdout=said, stderr=said)
    try:
        end = time.monotonic() + PATIENCE
        while not (found := STARTED.search(log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, "the server does not start"
            time.sleep(0.05)
        yield Server(process, found["url"], log)
    finally:
        process.kill()
        process.wait()


def write_policies(
    folder: Path, base_model: str | Path, names: Sequence[str], template: Template, spread: float
) -> Path:
    """Write policies of random weights into a folder like those that `sipo_pl export --kinds policies` makes.

    Args:
        folder: where.
        base_model: of all.
        names: of the objectives.
        template: how prompts are put to them.
        spread: standard deviation of the adapters' weights.
    """
    told = {name: {"adapter": f"policies/{name}", "base_model": str(base_model)} for name in names}
    for seed, name in enumerate(names):
        make_tiny_adapter(folder / told[name]["adapter"], Path(base_model), seed, spread=spread)
    weights = [1 / len(names)] * len(names)
    rule = component_of(ReverseKL())
    FusionFile(FORMAT, list(names), told, {}, weights, rule, template, 0.1, "float32", Decoding()).write(folder)
    return folder


@contextmanager
def serve_here(model: Path, limits: Limits, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve in a thread of this process, with limits that are no options; yield the address."""
    with open_socket(host, 0) as bound:
        url = address(bound)
        server = make_server(load(model), bound, host, limits, Defaults(), [], None, "1,0")
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield url
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
