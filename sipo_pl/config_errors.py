"""Turns a parser's error into one line that names the file, the line and the key, with the nearest right name."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from sipo_pl.config_files import find_config, key_line
from sipo_pl.errors import UsageError, nearest

_KEY = re.compile(
    r"does not accept (?:option|nested key) '(?P<option>[\w.]+)'|[Kk]ey \"(?P<key>[\w.]+)\"|[Kk]ey '(?P<key2>[\w.]+)'"
    r"|unrecognized arguments: --(?P<argument>[\w.]+)"
)


def explain(error: argparse.ArgumentError | str, arguments: Sequence[str], known: Sequence[str] = ()) -> UsageError:
    """Return the error as one line.

    Args:
        error: what the parser said.
        arguments: the command line, whose config files are searched for the key.
        known: the keys that the parser knows.
    """
    message = str(error.message if isinstance(error, argparse.ArgumentError) else error).strip()
    first = next(line for line in message.splitlines() if line.strip())
    match = _KEY.search(message)
    key = next((group for group in match.groups() if group), None) if match else None
    if key is None:
        return UsageError(first)
    where = _where(key, arguments)
    details = [line.strip(" -") for line in message.splitlines()[1:4] if line.strip()]
    text = f"{where}{first}" + (f" {' '.join(details)}" if details else "")
    if "not accept" in message or "unrecognized" in message or "not expected" in message:
        text = f"{where}no key {key!r}" + (nearest(key, known) if known else "")
    return UsageError(text)


def _where(key: str, arguments: Sequence[str]) -> str:
    files = [arguments[i + 1] for i, word in enumerate(arguments[:-1]) if word in ("-c", "--config")]
    files += [word.partition("=")[2] for word in arguments if word.startswith("--config=")]
    for name in reversed(files):
        path = Path(find_config(name))
        for candidate in (key, *(key.partition(".")[2:])):
            line = key_line(path, candidate) if candidate else None
            if line is not None:
                return f"{path}:{line}: "
    return ""
