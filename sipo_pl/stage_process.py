"""A stage of a run as a process of its own: forked from one that has imported the libraries, or started afresh."""

import ctypes
import itertools
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sipo_pl import cli
from sipo_pl.config_files import find_config, load_yaml

log = logging.getLogger("sipo_pl")

_PR_SET_PDEATHSIG = 1


def run_stage(words: Sequence[str]) -> int:
    """Run a stage's command in a process of its own and wait for it; return its exit code.

    The process dies with this one. A signal to stop is handed on to it.
    """
    if sys.platform == "linux" and _single_device(words):
        return _forked(list(words))
    process = subprocess.Popen([sys.executable, "-m", "sipo_pl", *words], start_new_session=True)
    with _handing_on(lambda number: os.killpg(process.pid, number)):
        return _exit_code(process.wait())


def _single_device(words: Sequence[str]) -> bool:
    """Return whether a stage surely runs in one process; with several devices it must be able to start itself."""
    if words[0] not in cli.TRAINER_COMMANDS:
        return True
    trainer = load_yaml(find_config(words[words.index("--config") + 1])).get("trainer") or {}
    devices, strategy = trainer.get("devices"), trainer.get("strategy", "auto")
    options = dict(itertools.pairwise(words))
    devices, strategy = options.get("--trainer.devices", devices), options.get("--trainer.strategy", strategy)
    return str(devices) == "1" and strategy == "auto"


def _forked(words: list[str]) -> int:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sipo_pl.preload"])
    process: Any = context.Process(target=_child, args=(words, dict(os.environ)))
    process.start()
    with _handing_on(lambda number: os.kill(process.pid, number)):
        process.join()
    return _exit_code(process.exitcode)


def _child(words: list[str], environment: dict[str, str]) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["sipo_pl", *words]
    sys.exit(cli.main())


@contextmanager
def _handing_on(send: Any) -> Iterator[None]:
    """Within the block, hand SIGTERM, SIGINT and SIGUSR1 on to the stage instead of dying of them."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {number: signal.signal(number, lambda got, frame: send(got)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_code(code: int | None) -> int:
    if code is None:
        return cli.FAILED
    return code if code >= 0 else 128 - code
