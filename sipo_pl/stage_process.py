"""A stage of a run as a process of its own: forked from one that has imported the libraries, or started afresh."""

import itertools
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from sipo_pl import cli
from sipo_pl.config_files import find_config, load_yaml
from sipo_pl.lifetime import die_with, die_with_parent
from sipo_pl.stopping import SIGNALS

log = logging.getLogger("sipo_pl")


def run_stage(words: Sequence[str]) -> int:
    """Run a stage's command in a process of its own and wait for it; return its exit code.

    The process dies with this one. A signal to stop is handed on to it.
    """
    if sys.platform == "linux" and _single_device(words):
        return _forked(_child, list(words))
    command = [sys.executable, "-m", "sipo_pl", *words]
    process = subprocess.Popen(command, start_new_session=True, preexec_fn=die_with_parent)
    with _handing_on(lambda number: os.killpg(process.pid, number)) as handed:
        code = process.wait()
    return _exit_code(code, handed)


def check_stages(commands: Sequence[Sequence[str]]) -> int:
    """Check stages' commands, options and configs, in a process of its own; return its exit code, 0 if all are right.

    So a misspelt key of the last stage is found before the first one runs.
    """
    return _forked(_check_child, [list(words) for words in commands]) if sys.platform == "linux" else cli.DONE


def _single_device(words: Sequence[str]) -> bool:
    """Return whether a stage surely runs in one process; with several devices it must be able to start itself."""
    if words[0] not in cli.TRAINER_COMMANDS:
        return True
    trainer = load_yaml(find_config(words[words.index("--config") + 1])).get("trainer") or {}
    devices, strategy = trainer.get("devices"), trainer.get("strategy", "auto")
    options = dict(itertools.pairwise(words))
    devices, strategy = options.get("--trainer.devices", devices), options.get("--trainer.strategy", strategy)
    return str(devices) == "1" and strategy == "auto"


def _forked(target: Callable[[Any, dict[str, str]], None], words: list[Any]) -> int:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sipo_pl.preload"])
    process: Any = context.Process(target=target, args=(words, dict(os.environ)))
    process.start()
    with _handing_on(lambda number: os.kill(process.pid, number)) as handed:
        process.join()
    return _exit_code(process.exitcode, handed)


def _child(words: list[str], environment: dict[str, str]) -> None:
    _settle(environment)
    sys.argv = ["sipo_pl", *words]
    sys.exit(cli.main())


def _check_child(commands: list[list[str]], environment: dict[str, str]) -> None:
    _settle(environment)
    for words in commands:
        sys.argv = ["sipo_pl", *words]
        if code := cli.check():
            sys.exit(code)


def _settle(environment: dict[str, str]) -> None:
    """Take over the environment of the run, and die when it dies."""
    die_with_parent()
    run = multiprocessing.parent_process()
    assert run is not None
    die_with(run)  # the parent, which lives as long as this process does, is not the run but what it forks from
    os.environ.clear()
    os.environ.update(environment)


@contextmanager
def _handing_on(send: Callable[[int], None]) -> Iterator[list[int]]:
    """Within the block, hand SIGTERM, SIGINT and SIGUSR1 on to the stage instead of dying of them; list them."""
    handed: list[int] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        handed.append(number)
        with suppress(ProcessLookupError):  # it ended by itself
            send(number)

    before = {number: signal.signal(number, hand_on) for number in SIGNALS}
    try:
        yield handed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_code(code: int | None, handed: Sequence[int]) -> int:
    if handed:  # even where it met a process that had not yet learnt what to do with it, or one that had just ended
        return cli.RESUMABLE
    if code is None:
        return cli.FAILED
    return code if code >= 0 else 128 - code
