"""A stage of a run as a process of its own: forked from one that has imported the libraries, or started afresh."""

import itertools
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from sipo_pl.cli import main as cli
from sipo_pl.recipe.config.files import find_config, load_yaml
from sipo_pl.run.devices import settle_threads
from sipo_pl.run.lifetime import die_with, die_with_parent
from sipo_pl.run.socket_paths import settle_sockets
from sipo_pl.storage.stopping import SIGNALS

log = logging.getLogger("sipo_pl")

# in an allocation of SLURM the trainer would wait for processes that srun starts; those of a run it starts itself
_STARTS_ITS_OWN = {"SLURM_JOB_NAME": "bash"}


class StageProcess:
    """A stage's command in a process of its own, which dies with this one.

    Args:
        words: of the command, after the program's name.
        environment: variables beside those of this process.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        variables = {**os.environ, **(_STARTS_ITS_OWN if "SLURM_JOB_ID" in os.environ else {}), **(environment or {})}
        self._forked: Any = None
        self._asked = False
        if sys.platform == "linux" and _single_device(words):
            self._forked = _fork(_child, list(words), variables)
            return
        self._started = subprocess.Popen(
            _command(words), env=variables, start_new_session=True, preexec_fn=die_with_parent
        )

    def send(self, number: int) -> None:
        """Send a signal that asks it to stop."""
        self._asked = True
        with suppress(ProcessLookupError):  # it ended by itself
            if self._forked is not None:
                os.kill(self._forked.pid, number)
            else:
                os.killpg(self._started.pid, number)

    @property
    def code(self) -> int | None:
        """Return its exit code; None while it runs."""
        code = self._forked.exitcode if self._forked is not None else self._started.poll()
        return None if code is None else _exit_code(code, self._asked)


def check_stages(commands: Sequence[Sequence[str]]) -> int:
    """Check stages' commands, options and configs, in a process of its own; return its exit code, 0 if all are right.

    So a misspelt key of the last stage is found before the first one runs.
    """
    if sys.platform != "linux":
        return cli.DONE
    process = _fork(_check_child, [list(words) for words in commands], dict(os.environ))
    with handing_on(lambda number: os.kill(process.pid, number)) as handed:
        process.join()
    return _exit_code(process.exitcode, bool(handed))


def setting_of(words: Sequence[str], key: str) -> Any:
    """Return what a stage's command sets the trainer's `key` to, in its config or as an option; None where nothing."""
    trainer = load_yaml(find_config(words[words.index("--config") + 1])).get("trainer") or {}
    return dict(itertools.pairwise(words)).get(f"--trainer.{key}", trainer.get(key))


def _command(words: Sequence[str]) -> list[str]:
    """Return what starts a stage's command afresh."""
    return [sys.executable, "-m", "sipo_pl", *words]


def _single_device(words: Sequence[str]) -> bool:
    """Return whether a stage surely runs in one process; with several devices it must be able to start itself."""
    if words[0] not in cli.TRAINER_COMMANDS:
        return True
    return str(setting_of(words, "devices")) == "1" and (setting_of(words, "strategy") or "auto") == "auto"


def _fork(target: Callable[[Any, dict[str, str]], None], words: list[Any], environment: dict[str, str]) -> Any:
    # what starts afresh imports the libraries again, and needs no socket
    context: Any = multiprocessing.get_context("forkserver" if settle_sockets() else "spawn")
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(["sipo_pl.run.preload"])
    process: Any = context.Process(target=target, args=(words, environment))
    process.start()
    return process


def _child(words: list[str], environment: dict[str, str]) -> None:
    _settle(environment)
    from sipo_pl.interop.torch import lost_cuda_by_fork

    if lost_cuda_by_fork():
        # a library asked for the GPU as it was imported, which no process that is forked afterwards can then use
        os.execv(sys.executable, _command(words))
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
    settle_threads()


@contextmanager
def handing_on(send: Callable[[int], None]) -> Iterator[list[int]]:
    """Within the block, hand SIGTERM, SIGINT and SIGUSR1 on to stages instead of dying of them; list them."""
    handed: list[int] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        handed.append(number)
        with suppress(ProcessLookupError):
            send(number)

    before = {number: signal.signal(number, hand_on) for number in SIGNALS}
    try:
        yield handed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_code(code: int | None, asked: bool) -> int:
    if asked:  # even where it met a process that had not yet learnt what to do with it, or one that had just ended
        return cli.RESUMABLE
    if code is None:
        return cli.FAILED
    return code if code >= 0 else 128 - code
