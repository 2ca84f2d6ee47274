"""Errors that a user can mend: one line that names what was found, what was expected, and the way out."""

import difflib
from collections.abc import Iterable

_ALIKE = 0.75  # last parts of keys that one slip of the hand tells apart


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


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the one of `known` that is close to a name; None where none is."""
    return next(iter(difflib.get_close_matches(name, sorted(set(known)), n=1)), None)


def did_you_mean(name: str | None) -> str:
    """Return the end of a message that proposes a name; nothing where there is none."""
    return f"; did you mean {name!r}?" if name else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest of `known`, or the list of them where none is close."""
    return did_you_mean(closest(name, known)) or _list(known)


def nearest_key(key: str, known: Iterable[str]) -> str:
    """Return `nearest` of dotted keys, where one of the same last part, or nearly the same, comes before all others.

    Who writes ``model.lr`` means ``model.optimizer.init_args.lr``, however close ``model.lora.r`` looks.
    """
    known = sorted(set(known))
    last = difflib.get_close_matches(_last(key), {_last(name) for name in known}, n=1, cutoff=_ALIKE)
    if not last:
        return nearest(key, known)
    found = difflib.get_close_matches(key, [name for name in known if _last(name) == last[0]], n=1, cutoff=0)
    return did_you_mean(found[0])


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _list(known: Iterable[str]) -> str:
    return f"; known: {', '.join(sorted(set(known)))}" if known else ""
