"""Fields of raw rows, checked: every error names the place, the key, what was found and what was expected."""

import json
import math
from typing import Any

from sipo_pl.data.readers import CsvCell, Located
from sipo_pl.messages.errors import UserError, nearest
from sipo_pl.storage.json_lines import require_key
from sipo_pl.text.prompt import Prompt

ROLES = ("system", "user", "assistant")
MESSAGE_KEYS = ("role", "content")
_SHOWN = 40
_NAMES = {str: "string", CsvCell: "text", bool: "boolean", int: "number", float: "number", list: "list", dict: "object"}


def text_field(located: Located, key: str) -> str:
    """Return the text under `key`."""
    location, row = located
    value = require_key(row, key, location)
    if not isinstance(value, str):
        raise wrong(location, key, "a string", value)
    return str(value)


def number_field(located: Located, key: str, within: tuple[float, float] | None = None) -> float:
    """Return the finite number under `key`; a boolean or a number in quotes is none, but the text of a CSV cell is.

    Args:
        located: the row.
        key: its key.
        within: least and largest number that is expected.
    """
    location, row = located
    value = require_key(row, key, location)
    is_number = isinstance(value, int | float | CsvCell) and not isinstance(value, bool)
    try:
        number = float(value) if is_number else math.nan
    except OverflowError:
        number = math.inf
    except ValueError:
        is_number = False
    if not is_number:
        raise wrong(location, key, "a number", value)
    if not math.isfinite(number):
        raise wrong(location, key, "a finite number", value)
    if within and not within[0] <= number <= within[1]:
        raise wrong(location, key, f"a number from {within[0]:g} to {within[1]:g}", value)
    return number


def prompt_field(located: Located, key: str) -> Prompt:
    """Return the prompt under `key`: text, or chat messages of which the user wrote the last."""
    location, row = located
    value = require_key(row, key, location)
    if isinstance(value, str):
        return str(value)
    if not isinstance(value, list) or not value:
        raise wrong(location, key, "text or a list of chat messages", value)
    messages = conversation(value, location, key)
    if (last := messages[-1]["role"]) != "user":
        raise UserError(f"{location}: key {key!r}: the last message must be the user's, found role {last!r}")
    return messages


def response_field(located: Located, key: str, prompt: Prompt) -> str:
    """Return the response under `key`: text, or after chat messages also a list of one message of the assistant."""
    location, row = located
    value = require_key(row, key, location)
    if not isinstance(value, list):
        return text_field(located, key)
    if isinstance(prompt, str):
        raise wrong(location, key, "text, as the prompt is text", value)
    messages = conversation(value, location, key)
    if [message["role"] for message in messages] != ["assistant"]:
        raise wrong(location, key, "text or one message of the assistant", value)
    return messages[0]["content"]


def conversation(value: list[Any], location: str, key: str) -> list[dict[str, str]]:
    """Return chat messages: at most a system message, then user and assistant in turns."""
    messages = [_message(message, location, f"{key}[{index}]") for index, message in enumerate(value)]
    for index, message in enumerate(messages[1:], start=1):
        place, role = f"{location}: key '{key}[{index}]'", message["role"]
        if role == "system":
            raise UserError(f"{place}: a system message can only be the first")
        if role == messages[index - 1]["role"]:
            raise UserError(f"{place}: expected user and assistant in turns, found two messages of role {role!r}")
    return messages


def is_empty(prompt: Prompt) -> bool:
    """Return whether a text, or the last of the chat messages, holds nothing but blanks."""
    text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    return not text.strip()


def _message(message: Any, location: str, key: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise wrong(location, key, "an object with role and content", message)
    for name in message:
        if name not in MESSAGE_KEYS and message[name] is not None:  # tables fill what other messages have
            raise UserError(f"{location}: key {key!r}: unknown key {name!r}{nearest(name, MESSAGE_KEYS)}")
    role, content = (require_key(message, name, f"{location}: key {key!r}") for name in MESSAGE_KEYS)
    if isinstance(content, list):
        content = _text_of_parts(content, location, f"{key}.content")
    for name, value in zip(MESSAGE_KEYS, (role, content), strict=True):
        if not isinstance(value, str):
            raise wrong(location, f"{key}.{name}", "a string", value)
    if role not in ROLES:
        raise UserError(f"{location}: key {key!r}: unknown role {role!r}{nearest(role, ROLES)}")
    return {"role": str(role), "content": str(content)}


def _text_of_parts(parts: list[Any], location: str, key: str) -> str:
    """Return the text of a message's content that is a list of parts, each with a type and a text."""
    for index, part in enumerate(parts):
        # tables fill what other parts have
        is_text = isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str)
        if not is_text or any(part[name] is not None for name in part if name not in ("type", "text")):
            raise wrong(location, f"{key}[{index}]", "a part of type text with its text", part)
    return "".join(part["text"] for part in parts)


def wrong(location: str, key: str, expected: str, value: Any) -> UserError:
    """Return the error of a value that is not what was expected."""
    try:
        shown = json.dumps(value, ensure_ascii=False, default=str)
    except (RecursionError, ValueError):  # nested deeply, or a number of thousands of digits
        shown = "…"
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
    kind = "" if value is None else f"the {_NAMES.get(type(value), type(value).__name__)} "
    return UserError(f"{location}: key {key!r}: expected {expected}, found {kind}{shown}")
