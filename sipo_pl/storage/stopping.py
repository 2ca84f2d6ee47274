"""When a command is asked to stop at its next border: by a signal, by the time, or by a file in the run folder.

Until something listens at borders, a signal interrupts the command wherever it is. Library code may swallow that, above
all while it is imported; so the interruption comes again until it arrives, and what listens later knows of it too.
"""

import _thread
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from sipo_pl.messages.errors import UsageError

log = logging.getLogger("sipo_pl")

STOP_FILE = "stop"  # `touch` it in the run folder
STOP_VARIABLE = "SIPO_PL_STOP_AT"  # seconds since 1970; a run's stages, and a stage's other devices, take it over
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
ECHO = 1.0  # seconds within which one request may come twice: from a terminal or scheduler, and handed on by the run
INSISTS = 2.0  # seconds after which an interruption comes again that has not arrived
SECONDS = {"h": 3600, "m": 60, "s": 1}
_early: list[int] = []  # signals that came before a command was there to be interrupted


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to stop.

    Of a class of its own: after a plain KeyboardInterrupt that leaves a text given to `exec`, which libraries use as
    they are imported, Python ends by SIGINT, whoever catches it and whatever exit code is asked for.

    Args:
        number: the signal
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Interruption:
    """What signals ask of one command."""

    def __init__(self) -> None:
        self.number: int | None = None  # of the last one that was no echo
        self._since = 0.0
        self._comes = self._arrived = 0  # how many came, and which of them arrived
        self._again = self._over = False
        self._sending = threading.Lock()

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        """Interrupt the main thread, as the handler of a signal."""
        if self._over:
            return
        if not self._again:
            if self.number is not None and time.monotonic() - self._since <= ECHO:
                return
            self.number, self._since = number, time.monotonic()
            self._comes += 1
            _thread.start_new_thread(self._insist, (self._comes,))  # takes no lock that the main thread may hold
        self._again = False
        raise Interrupted(number)

    def _insist(self, which: int) -> None:
        while True:
            time.sleep(INSISTS)
            with self._sending:
                if self._over or which <= self._arrived or which != self._comes or self.number is None:
                    return
                self._again = True
                os.kill(os.getpid(), self.number)

    def arrive(self) -> None:
        """Say that what was asked is known, so that it does not come again."""
        with self._sending:
            self._arrived = self._comes

    def end(self) -> None:
        """Let signals go by from now on: the command has ended."""
        self._over = True
        with self._sending:  # until none is under way
            pass


_current: list[Interruption] = []  # of the commands that run, the last one innermost


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Within the block, SIGTERM, SIGINT and SIGUSR1 raise Interrupted in the main thread; nothing written is half."""
    mine = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield mine
        return
    before = {number: signal.signal(number, mine.receive) for number in SIGNALS}
    _current.append(mine)
    try:
        if _early:
            mine.receive(_early.pop())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # a stage of a run is born with them blocked
        yield mine
    finally:
        mine.end()
        for number, handler in before.items():
            signal.signal(number, handler)
        _current.remove(mine)


def note_early() -> None:
    """Keep signals in mind that come before a command begins, and let those go by that come after it."""
    for number in SIGNALS:
        signal.signal(number, lambda number, frame: _early.append(number))


def arrived() -> None:
    """Say that an interruption was caught by what sees to it, so that it does not come again."""
    for one in _current:
        one.arrive()


class Stopping:
    """What may ask a command to stop.

    Args:
        run_dir: the run folder, where the file is looked for
    """

    def __init__(self, run_dir: Path) -> None:
        self.file = run_dir / STOP_FILE
        self._signal: int | None = None
        self._since = 0.0

    def listen(self, border: str) -> None:
        """Take the signals from now on: the first is a reason to stop at the next border, a second stops at once.

        Args:
            border: what ends there, such as step.
        """
        self._border = border
        arrived()
        if self._signal is None and (asked := _asked()) is not None:  # and a library has swallowed it
            self._receive(asked, None)
        for number in SIGNALS:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            if time.monotonic() - self._since > ECHO:
                raise Interrupted(number)
            return
        self._signal, self._since = number, time.monotonic()
        name = signal.Signals(number).name
        log.info("%s: stopping at the end of this %s; a second one stops at once", name, self._border)

    @property
    def reason(self) -> str | None:
        """Return what asks to stop, in words, or None."""
        if (number := _asked() if self._signal is None else self._signal) is not None:
            return signal.Signals(number).name
        if time.time() >= float(os.environ.get(STOP_VARIABLE, "inf")):
            return "--stop_after"
        return str(self.file) if self.file.exists() else None

    def begin(self, after: str | None) -> None:
        """Begin a command: set its time limit, and remove a file that asked an earlier command.

        Stages leave both to the run that starts them.

        Args:
            after: time until it is to stop, such as 3h50m.

        Raises:
            UsageError: `after` is no time.
        """
        if after is not None:
            limit = time.time() + duration(after)
            os.environ[STOP_VARIABLE] = str(min(limit, float(os.environ.get(STOP_VARIABLE, "inf"))))
        if self.file.exists():
            self.file.unlink(missing_ok=True)
            log.info("%s: removed; it asked an earlier command to stop", self.file)


def break_off(error: KeyboardInterrupt) -> None:
    """Let an interruption from the keyboard end what is under way and no more; raise another one again."""
    if isinstance(error, Interrupted) and error.number != signal.SIGINT:
        raise error
    arrived()


def _asked() -> int | None:
    """Return the signal that asked the command that runs to stop; None where none did."""
    return _current[-1].number if _current else None


def duration(text: str) -> int:
    """Return the seconds of a time such as 90s, 20m or 3h50m.

    Raises:
        UsageError: it is none, or zero.
    """
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    seconds = sum(int(n or 0) * size for n, size in zip(match.groups(), SECONDS.values(), strict=True)) if match else 0
    if not seconds:
        raise UsageError(f"--stop_after: {text!r} is no time, such as 90s, 20m or 3h50m")
    return seconds
