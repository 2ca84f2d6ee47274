"""When a command is asked to stop at its next border: by a signal, by the time, or by a file in the run folder."""

import logging
import os
import re
import signal
import time
from pathlib import Path
from types import FrameType

from sipo_pl.messages.errors import UsageError

log = logging.getLogger("sipo_pl")

STOP_FILE = "stop"  # `touch` it in the run folder
STOP_VARIABLE = "SIPO_PL_STOP_AT"  # seconds since 1970; a run's stages, and a stage's other devices, take it over
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
ECHO = 1.0  # seconds within which one request may come twice: from a terminal or scheduler, and handed on by the run
SECONDS = {"h": 3600, "m": 60, "s": 1}


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
        for number in SIGNALS:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            if time.monotonic() - self._since > ECHO:
                raise KeyboardInterrupt
            return
        self._signal, self._since = number, time.monotonic()
        name = signal.Signals(number).name
        log.info("%s: stopping at the end of this %s; a second one stops at once", name, self._border)

    @property
    def reason(self) -> str | None:
        """Return what asks to stop, in words, or None."""
        if self._signal is not None:
            return signal.Signals(self._signal).name
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
