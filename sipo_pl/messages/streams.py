"""The standard streams, such as callers leave them: closed, without the letters of most languages, or unread."""

import codecs
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

READABLE = "sipo_pl.readable"  # what is done with characters that a stream has no bytes for
# what the commands draw with, and how it looks in ASCII
_LOOKS = {
    "│": "|", "┃": "|", "─": "-", "━": "-", "·": ".", "•": "*", "●": "*", "⏎": "\\n", "…": "...", "→": "->",
    "−": "-", "–": "-", "—": "-", "×": "x", "‖": "||", "≤": "<=", "≥": ">=", "±": "+-", "\u00a0": " ",
}  # fmt: skip


def settle() -> None:
    """Let what is written to the standard streams, and read from them, not fail for reasons of theirs.

    Closed ones are opened to nowhere: else the next file that is opened takes the number of one, and what is printed
    goes into it. What cannot be encoded is written as it looks in ASCII, or as a number.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, encoding="utf-8")
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8")
    codecs.register_error(READABLE, _readable)
    for stream, errors in ((sys.stdin, "replace"), (sys.stdout, READABLE), (sys.stderr, READABLE)):
        if getattr(stream, "errors", None) != READABLE and hasattr(stream, "reconfigure"):
            with suppress(ValueError):  # closed by whoever owns it
                stream.reconfigure(errors=errors)


def _readable(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return what is written in the place of a character, and where to go on."""
    assert isinstance(error, UnicodeEncodeError)
    one, after = error.object[error.start], error.start + 1
    if "\udc80" <= one <= "\udcff":  # a byte of a file's name that is no text
        return bytes([ord(one) - 0xDC00]), after
    return _LOOKS.get(one) or one.encode("ascii", "backslashreplace").decode("ascii"), after


@contextmanager
def quiet_end() -> Iterator[None]:
    """Within the block, end without a word when nobody reads the output any more, as under `| head`."""
    try:
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
    except BrokenPipeError:
        if not forget():
            raise
    except SystemExit as end:
        # rich makes of a broken pipe an exit with 1
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        forget()


def forget() -> bool:
    """Send what is still to be said nowhere; return whether a standard stream has no reader."""
    found = False
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # no stream of the system's
            number = stream.fileno()
            if _has_reader(number):
                continue
            found = True
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
    return found


def _has_reader(number: int) -> bool:
    looking = select.poll()
    looking.register(number, 0)  # what is wrong with it is told without being asked for
    return not any(state & (select.POLLERR | select.POLLHUP) for _, state in looking.poll(0))
