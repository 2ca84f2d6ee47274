"""A thread that does the shortest job first, so that a few long ones do not hold up all others."""

import itertools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class ShortestFirst:
    """Does jobs one by one in a thread of its own; of those that wait, the shortest is next.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.PriorityQueue[tuple[float, int, Callable[[], Any] | None, Future[Any]]]
        self._jobs = queue.PriorityQueue()
        self._numbers = itertools.count()  # equally short ones are done in their order
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, length: float, job: Callable[[], T]) -> Future[T]:
        """Let a job wait for its turn; one whose future is cancelled before is not done.

        Args:
            length: how long it takes beside others.
            job: what is to be done.
        """
        future: Future[T] = Future()
        self._jobs.put((length, next(self._numbers), job, future))
        return future

    def close(self) -> None:
        """End the thread after its present job."""
        self._jobs.put((-1, next(self._numbers), None, Future()))

    def _run(self) -> None:
        while True:
            _, _, job, future = self._jobs.get()
            if job is None:
                return
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(job())
            except BaseException as error:
                future.set_exception(error)
