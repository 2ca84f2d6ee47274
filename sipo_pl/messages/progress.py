"""Progress of long work: live bars in a terminal, a plain line every few seconds elsewhere."""

import logging
import sys
import time
from types import TracebackType
from typing import Any, ClassVar

from sipo_pl.messages import logs, ranks

log = logging.getLogger("sipo_pl")

LINE_SECONDS = 10.0


class Progress:
    """Counts units of work, and tokens where told, against a total. In a terminal, all that are under way show at once.

    Args:
        label: the stage.
        total: units in all.
        unit: what is counted, such as "rows".
        done: units that an earlier start of the stage did.
    """

    _shown: ClassVar[Any] = None  # the live display, which a terminal has one of

    def __init__(self, label: str, total: int, unit: str, done: int = 0) -> None:
        self.label, self.total, self.unit, self.done = label, total, unit, done
        self.first, self.tokens, self.note = done, 0, ""
        self.started = self.last_line = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty() and self.total and ranks.is_first() and not logs.is_beside():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            if Progress._shown is None:
                columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[status]}"))
                Progress._shown = Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
                Progress._shown.start()
            self._bar = Progress._shown
            self._task = self._bar.add_task(self.label, total=self.total, completed=self.done, status="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.remove_task(self._task)
            if not self._bar.tasks:
                self._bar.stop()
                Progress._shown = None
        if kind is None and self.total:
            log.info("%s done in %.0f s", self.status(), time.monotonic() - self.started)

    def advance(self, count: int, tokens: int = 0, note: str = "") -> None:
        """Count `count` units and `tokens` as done; show `note`, such as a loss."""
        self.done += count
        self.tokens += tokens
        self.note = note or self.note
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, status=self.status(short=True))
        if now - self.last_line >= LINE_SECONDS:
            self.last_line = now
            level = logging.DEBUG if self._bar is not None else logging.INFO
            log.log(level, "%s  ETA %s", self.status(), self._eta(now))

    def status(self, short: bool = False) -> str:
        """Return what is done and how fast."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        parts = [f"{self.done}/{self.total} {self.unit}"]
        if self.tokens:
            parts.append(f"{self.tokens / seconds:.0f} tokens/s")
        if self.note:
            parts.append(self.note)
        return "  ".join(parts if short else [self.label, *parts])

    def _eta(self, now: float) -> str:
        made = self.done - self.first
        if made <= 0:
            return "?"
        seconds = round((now - self.started) / made * max(0, self.total - self.done))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
