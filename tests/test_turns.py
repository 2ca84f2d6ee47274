"""Pieces of work that take turns: their order, their errors, and how they are ended."""

import os
import signal
import threading
import time
from collections.abc import Mapping

import pytest

from sipo_pl.messages.errors import Stopped, UserError
from sipo_pl.run.turns import Cancelled, Turn, take_turns


class Counting:
    """Asks as often as told, and notes what it is at.

    Args:
        name: of the notes
        times: how often it asks
        notes: of all pieces, in order
        error: raised at the end
    """

    def __init__(self, name: str, times: int, notes: list[str], error: BaseException | None = None) -> None:
        self.name, self.times, self.notes, self.error = name, times, notes, error

    def __call__(self, turn: Turn) -> None:
        try:
            for number in range(self.times):
                self.notes.append(f"{self.name}{number}")
                assert turn.ask(self.name) == f"to {self.name}"
        except Cancelled:
            self.notes.append(f"{self.name} cancelled")
            raise
        if self.error:
            raise self.error


def answer(asked: Mapping[int, str]) -> dict[int, str]:
    return {number: f"to {request}" for number, request in asked.items()}


def test_each_goes_on_in_its_turn_until_it_ends() -> None:
    notes: list[str] = []
    take_turns([Counting("a", 3, notes), Counting("b", 1, notes)], answer, lambda: notes.append("begun"))
    assert notes == ["a0", "b0", "begun", "a1", "a2"]


def test_who_is_not_answered_waits() -> None:
    notes: list[str] = []

    def first_alone(asked: Mapping[int, str]) -> dict[int, str]:
        return answer({min(asked): asked[min(asked)]})

    take_turns([Counting("a", 2, notes), Counting("b", 2, notes)], first_alone)
    assert notes == ["a0", "b0", "a1", "b1"]


def test_an_error_of_one_ends_the_others() -> None:
    notes: list[str] = []
    before = threading.active_count()
    with pytest.raises(UserError, match="nan"):
        take_turns([Counting("a", 1, notes, UserError("nan")), Counting("b", 3, notes)], answer)
    assert notes == ["a0", "b0", "b cancelled"]
    assert threading.active_count() == before


def test_one_that_was_stopped_lets_the_others_reach_their_borders() -> None:
    notes: list[str] = []
    works = [Counting("a", 1, notes, Stopped("at step 1")), Counting("b", 2, notes, Stopped("at step 2"))]
    with pytest.raises(Stopped, match=r"^at step 1; at step 2$"):
        take_turns([*works, Counting("c", 3, notes)], answer)
    assert notes == ["a0", "b0", "c0", "b1", "c1", "c2"]


def test_an_interruption_while_one_works_ends_it_there() -> None:
    notes: list[str] = []
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in a shell's background it would be ignored

    def long(turn: Turn) -> None:
        os.kill(os.getpid(), signal.SIGINT)  # goes to the main thread, which waits
        try:
            for _ in range(1000):
                time.sleep(0.01)
            notes.append("ran to its end")
        except Cancelled:
            notes.append("cancelled at work")

    with pytest.raises(KeyboardInterrupt):
        take_turns([Counting("a", 2, notes), long], answer)
    assert notes == ["a0", "a cancelled", "cancelled at work"]
