"""Several pieces of work that take turns: each runs in a thread of its own until it asks for something and waits.

Only one thread runs at a time, in a fixed order, so that what happens is the same every time and no two of them ever
touch the same thing at once. What they ask for is answered in the main thread, which also receives the signals.
"""

import ctypes
import threading
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar

from sipo_pl.messages.errors import Stopped

Request = TypeVar("Request")
Work = Callable[["Turn"], None]


class Cancelled(BaseException):
    """The work is not wanted any more: another piece failed, or the command was interrupted."""


class Turn:
    """One piece of work.

    Args:
        work: gets this object, to ask by.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._answers: SimpleQueue[Any] = SimpleQueue()
        self._requests: SimpleQueue[Any] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.error: BaseException | None = None
        self.waits = self.ended = False

    def ask(self, request: Any) -> Any:
        """Hand the turn back with a request, from within the work; return the answer."""
        self.waits = True
        self._requests.put(request)
        answer = self._answers.get()
        self.waits = False
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def go_on(self, answer: Any = None) -> Any:
        """Let the work run until it asks again or ends; return what it asks for, None where it ended."""
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._answers.put(answer)
        return self._requests.get()

    def cancel(self) -> None:
        """End the work wherever it is, and wait until it has put its things in order."""
        if not self._thread.is_alive():
            return
        if not self.waits:  # the command was interrupted while it ran
            thread = ctypes.c_ulong(self._thread.ident or 0)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(Cancelled))
        self._answers.put(Cancelled())
        self._thread.join()

    def _run(self) -> None:
        try:
            self._work(self)
        except BaseException as error:
            self.error = error
        finally:
            self.ended = True
            self._requests.put(None)


def take_turns(
    works: Sequence[Work],
    answer: Callable[[Mapping[int, Any]], Mapping[int, Any]],
    all_began: Callable[[], None] = lambda: None,
) -> None:
    """Let pieces of work take turns until all have ended.

    Args:
        works: run in this order.
        answer: gets what those that go on ask for, by their number; returns answers for some of them, at least one.
            The others wait.
        all_began: called when each has asked for the first time, or ended.

    Raises:
        Stopped: pieces were asked to stop, and did; the others went on until they stopped too, or ended.
        BaseException: what a piece raised, at which the others are cancelled.
    """
    turns = [Turn(work) for work in works]
    stopped: list[Stopped] = []
    try:
        asked: dict[int, Any] = {}
        for number, turn in enumerate(turns):
            _note(asked, stopped, number, turn, turn.go_on())
        all_began()
        while asked:
            for number, found in answer(asked).items():
                _note(asked, stopped, number, turns[number], turns[number].go_on(found))
    finally:
        for turn in turns:
            turn.cancel()
    if stopped:
        raise Stopped("; ".join(dict.fromkeys(map(str, stopped))))


def _note(asked: dict[int, Any], stopped: list[Stopped], number: int, turn: Turn, request: Any) -> None:
    if not turn.ended:
        asked[number] = request
        return
    asked.pop(number, None)
    if isinstance(turn.error, Stopped):
        stopped.append(turn.error)
    elif turn.error is not None:
        raise turn.error
