"""A limit in time for code that comes from elsewhere, such as a model's chat template, in any thread."""

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

TICK = 0.2  # seconds between two looks at what runs


class _Late(BaseException):
    """Raised within what takes too long; no `except Exception` on its way may take it for its own."""


class _Watch:
    """A thread that interrupts other threads which are at work beyond their time; it sleeps while none is."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ends: dict[int, float] = {}  # thread -> when its time is over
        self.busy = threading.Event()
        self.thread: threading.Thread | None = None

    def begin(self, seconds: float) -> None:
        with self.lock:
            me = threading.get_ident()
            self.ends[me] = _time_of(me) + seconds
            if self.thread is None:
                self.thread = threading.Thread(target=self._run, name="time limit", daemon=True)
                self.thread.start()
        self.busy.set()

    def end(self) -> None:
        """Let the calling thread go; an interruption that has not reached it is taken back."""
        me = threading.get_ident()
        with self.lock:
            self.ends.pop(me, None)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(me), None)

    def _run(self) -> None:
        while True:
            self.busy.wait()
            time.sleep(TICK)
            with self.lock:
                for thread, end in self.ends.items():
                    if _time_of(thread) > end:  # again at each look, in case the code swallowed the last one
                        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_Late))
                if not self.ends:
                    self.busy.clear()


def _time_of(thread: int) -> float:
    """Return the seconds that a thread has computed, whatever else runs; the time where the system tells none."""
    if hasattr(time, "pthread_getcpuclockid"):
        return time.clock_gettime(time.pthread_getcpuclockid(thread))
    return time.monotonic()


_watch = _Watch()


def _anew() -> None:
    global _watch
    _watch = _Watch()  # a forked process has none of its parent's threads


os.register_at_fork(after_in_child=_anew)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Interrupt the block, which runs Python code and holds no other such block, once it has computed so long.

    One long call within the interpreter, such as a product of large numbers, ends first.

    Raises:
        TimeoutError: it took longer.
    """
    _watch.begin(seconds)
    try:
        try:
            yield
        finally:
            _watch.end()
    except _Late:
        _watch.end()
        raise TimeoutError(f"more than {seconds:g} s") from None
