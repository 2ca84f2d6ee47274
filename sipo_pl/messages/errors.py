"""Errors that a user can mend: one line that names what was found, what was expected, and the way out."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something in the user's input is wrong; the message says what and where. Exit code 1."""


class UsageError(UserError):
    """A command, option or config key is wrong. Exit code 2."""


class SettingError(UsageError):
    """The value of a setting is wrong.

    Args:
        key: dotted key of the setting in the recipe, by which whoever read the files can say the line
        problem: what is wrong
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key, self.problem = key, problem


class Stopped(Exception):
    """A command was asked to stop and did, at a border; the message says where and why. Exit code 75."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest of `known`, or the list of them where none is close."""
    known = sorted(set(known))
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(known)}" if known else ""
