"""Fields of raw rows, checked: every error names the place, the key, what was found and what was expected."""

import json
import math
from typing import Any

from sipo_pl.artifacts import require_key
from sipo_pl.data.readers import Located
from sipo_pl.data.rows import Prompt
from sipo_pl.errors import UserError, nearest

ROLES = ("system", "user", "assistant")
MESSAGE_KEYS = ("role", "content")
_SHOWN = 40
_NAMES = {str: "string", bool: "boolean", int: "number", float: "number", list: "list", dict: "object"}


def text_field(located: Located, key: str) -> str:
    """Return the text under `key`."""
    location, row = located
    value = require_key(row, key, location)
    if not isinstance(value, str):
        raise _wrong(location, key, "a string", value)
    return value


def number_field(located: Located, key: str) -> float:
    """Return the finite number under `key`; a boolean or a number in quotes is none."""
    location, row = located
    value = require_key(row, key, location)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(location, key, "a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _wrong(location, key, "a finite number", value)
    return number


def prompt_field(located: Located, key: str) -> Prompt:
    """Return the prompt under `key`: text, or chat messages of which the user wrote the last."""
    location, row = located
    value = require_key(row, key, location)
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise _wrong(location, key, "text or a list of chat messages", value)
    messages = [_message(message, location, f"{key}[{index}]") for index, message in enumerate(value)]
    if (last := messages[-1]["role"]) != "user":
        raise UserError(f"{location}: key {key!r}: the last message must be the user's, found role {last!r}")
    return messages


def is_empty(prompt: Prompt) -> bool:
    """Return whether a text, or the last of the chat messages, holds nothing but blanks."""
    text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    return not text.strip()


def _message(message: Any, location: str, key: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise _wrong(location, key, "an object with role and content", message)
    for name in message:
        if name not in MESSAGE_KEYS:
            raise UserError(f"{location}: key {key!r}: unknown key {name!r}{nearest(name, MESSAGE_KEYS)}")
    for name in MESSAGE_KEYS:
        if not isinstance(require_key(message, name, f"{location}: key {key!r}"), str):
            raise _wrong(location, f"{key}.{name}", "a string", message[name])
    if message["role"] not in ROLES:
        raise UserError(f"{location}: key {key!r}: unknown role {message['role']!r}{nearest(message['role'], ROLES)}")
    return {name: message[name] for name in MESSAGE_KEYS}


def _wrong(location: str, key: str, expected: str, value: Any) -> UserError:
    shown = json.dumps(value, ensure_ascii=False, default=str)
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
    kind = "" if value is None else f"the {_NAMES.get(type(value), type(value).__name__)} "
    return UserError(f"{location}: key {key!r}: expected {expected}, found {kind}{shown}")
