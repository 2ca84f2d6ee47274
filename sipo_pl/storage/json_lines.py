"""JSON and JSON lines: written whole, read with file, line and key of what is wrong."""

import codecs
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sipo_pl.messages.errors import UserError, nearest
from sipo_pl.storage.files import atomic_path, write_text
from sipo_pl.storage.unicode_names import same_name


def canonical_json(value: Any) -> str:
    """Return JSON text that is equal for equal values: sorted keys, no blanks."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; UserError names the file and line where it is malformed."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write one JSON object a line, atomically; return the number of rows."""
    count = 0
    with atomic_path(path) as aside, aside.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
        file.flush()
    return count


def read_jsonl(path: Path, required: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Read rows written by `write_jsonl` or by hand.

    Args:
        path: file of one JSON object a line; empty lines are skipped.
        required: keys that every row must hold.

    Raises:
        UserError: naming file, line and key of what is malformed or missing.
    """
    required = tuple(required)
    rows = []
    try:
        with path.open("rb") as file:
            for location, row in parse_lines(file, path):
                for key in required:
                    require_key(row, key, location)
                rows.append(row)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    return rows


def parse_lines(lines: Iterable[bytes], path: Path, *, twice: bool = True) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ``(file:line, object)`` for each line that is not blank.

    Args:
        lines: one JSON object each, in UTF-8, with or without a byte order mark.
        path: the file they come from, for messages.
        twice: whether a key may stand twice in an object, of which JSON takes the last; files of this program are not
            looked at for it.

    Raises:
        UserError: naming file and line of what is not UTF-8, not JSON or not an object.
    """
    for number, line in enumerate(lines, start=1):
        location = f"{path}:{number}"
        text = utf8_text(line, location).rstrip()
        if text:
            yield location, require_object(parse_json(text, location, twice=twice, one_line=True), location)


def utf8_text(data: bytes, location: str) -> str:
    """Return UTF-8 text without its byte order mark.

    Raises:
        UserError: naming the encoding that it seems to have.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise UserError(f"{location}: not UTF-8 text but UTF-16, by its byte order mark") from None
        raise UserError(f"{location}: not UTF-8 text: {error}") from None
    if "\0" in text:  # JSON escapes it
        raise UserError(f"{location}: not UTF-8 text: a NUL at character {text.index(chr(0)) + 1}, as UTF-16 has many")
    return text


def parse_json(text: str, location: str, *, twice: bool = True, one_line: bool = False) -> Any:
    """Return what a JSON text holds.

    Args:
        text: the text.
        location: the file, and the line where it is one.
        twice: whether a key may stand twice in an object.
        one_line: whether the location says the line.

    Raises:
        UserError: naming the place of what is not JSON, of a key that stands there twice, of what is nested too deeply
            or is half a character.
    """
    try:
        found = json.loads(text, object_pairs_hook=None if twice else _distinct)
        if "\\ud" in text.lower():  # perhaps half of an escaped pair, which no file and no tokenizer can hold
            canonical_json(found).encode()
        return found
    except UnicodeEncodeError:
        raise UserError(f"{location}: not Unicode text: a lone surrogate such as \\ud83d") from None
    except json.JSONDecodeError as error:
        line = "" if one_line else f":{error.lineno}"
        hint = "" if one_line or error.msg != "Extra data" else "; one object a line is .jsonl"
        raise UserError(f"{location}{line}: not JSON: {error.msg} at column {error.colno}{hint}") from None
    except RecursionError:
        raise UserError(f"{location}: nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits, or `_distinct`
        raise UserError(f"{location}: {str(error).partition(';')[0]}") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise ValueError(f"key {twice!r} stands in an object twice")
    return found


def require_object(row: Any, location: str) -> dict[str, Any]:
    """Return `row`; UserError unless it is a JSON object."""
    if not isinstance(row, dict):
        raise UserError(f"{location}: expected an object, found {type(row).__name__}")
    return row


def require_key(row: Mapping[str, Any], key: str, location: str) -> Any:
    """Return the value of `key`, in any normal form of Unicode; UserError with the nearest key where there is none."""
    if key not in row:
        if (same := same_name(key, row)) is not None:
            return row[same]
        raise UserError(f"{location}: no key {key!r}{nearest(key, row)}")
    return row[key]
