"""A stage of a run as a process of its own: forked from one that has imported the libraries, or started afresh."""

import importlib
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from sipo_pl.messages import streams
from sipo_pl.messages.exit_codes import DONE, FAILED, RESUMABLE
from sipo_pl.run.devices import settle_threads
from sipo_pl.run.lifetime import die_with, die_with_parent
from sipo_pl.run.socket_paths import settle_sockets
from sipo_pl.run.stage_check import Outlook, check_command, look_at
from sipo_pl.storage.stopping import SIGNALS

log = logging.getLogger("sipo_pl")

# in an allocation of SLURM the trainer would wait for processes that srun starts; those of a run it starts itself
_STARTS_ITS_OWN = {"SLURM_JOB_NAME": "bash"}


class StageProcess:
    """A stage's command in a process of its own, which dies with this one.

    Args:
        words: of the command, after the program's name.
        forks: it may be forked, see `Outlook`.
        environment: variables beside those of this process.
    """

    def __init__(self, words: Sequence[str], *, forks: bool, environment: Mapping[str, str] | None = None) -> None:
        variables = {**os.environ, **(_STARTS_ITS_OWN if "SLURM_JOB_ID" in os.environ else {}), **(environment or {})}
        self._forked: Any = None
        self._asked = False
        if sys.platform == "linux" and forks:
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


@dataclass(frozen=True)
class Question:
    """A stage's command that is to be checked.

    Args:
        words: of the command, after the program's name
        kind: one command of a kind is enough, where none of them may be complete
        made: its folder says that it is complete, so that it is to be seen whether it holds what the command would make
    """

    words: Sequence[str]
    kind: Hashable
    made: bool


def look_ahead(questions: Sequence[Question]) -> tuple[int, list[Outlook]]:
    """Check stages' commands, options and configs, in a process of its own that loads no model.

    So a misspelt key of the last stage is found before the first one runs.

    Returns:
        The exit code, 0 if all are right, and then what each is about to be.
    """
    if sys.platform != "linux":
        return _outlooks(questions)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = _fork(_look_child, list(questions), dict(os.environ), sender)
    sender.close()
    with handing_on(lambda number: os.kill(process.pid, number)) as handed:
        with suppress(EOFError):  # it ended without an answer
            return receiver.recv()
        process.join()
    return _exit_code(process.exitcode, bool(handed)) or FAILED, []


def _outlooks(questions: Sequence[Question]) -> tuple[int, list[Outlook]]:
    found: list[Outlook] = []
    seen: dict[Hashable, Outlook] = {}

    def ask(question: Question, verb: str, options: Sequence[str]) -> int:
        if question.made:
            found.append(look_at(verb, options))
        else:
            if question.kind not in seen:
                seen[question.kind] = check_command(verb, options)
            found.append(seen[question.kind])
        return DONE

    for question in questions:
        if code := _program().guarded(partial(ask, question), list(question.words)):
            return code, []
    return DONE, found


def _program() -> Any:
    """Return the module of the command table, which stands over this one."""
    return importlib.import_module("sipo_pl.cli.main")


def _command(words: Sequence[str]) -> list[str]:
    """Return what starts a stage's command afresh."""
    return [sys.executable, "-m", "sipo_pl", *words]


def _fork(target: Callable[..., None], work: list[Any], environment: dict[str, str], *more: Any) -> Any:
    # what starts afresh imports the libraries again, and needs no socket
    context: Any = multiprocessing.get_context("forkserver" if settle_sockets() else "spawn")
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(["sipo_pl.run.preload"])
    process: Any = context.Process(target=target, args=(work, environment, *more))
    process.start()
    return process


def _child(words: list[str], environment: dict[str, str]) -> None:
    _settle(environment)
    from sipo_pl.interop.torch import lost_cuda_by_fork

    if lost_cuda_by_fork():
        # a library asked for the GPU as it was imported, which no process that is forked afterwards can then use
        os.execv(sys.executable, _command(words))
    sys.argv = ["sipo_pl", *words]
    sys.exit(_program().main())


def _look_child(questions: list[Question], environment: dict[str, str], sender: Connection) -> None:
    _settle(environment)
    streams.settle()
    sender.send(_outlooks(questions))


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
        return RESUMABLE
    if code is None:
        return FAILED
    return code if code >= 0 else 128 - code
