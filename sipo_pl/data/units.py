"""Stage folders of JSONL units: `unit-00000.jsonl`, one a unit of rows, written whole or not at all."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from sipo_pl.messages.errors import UserError
from sipo_pl.storage.json_lines import read_jsonl, require_key

PLAIN = (str, int, float, list, dict)  # types that a row's values are checked for


def unit_path(folder: Path, index: int) -> Path:
    """Return the file of unit `index`."""
    return folder / f"unit-{index:05d}.jsonl"


def unit_files(folder: Path) -> list[Path]:
    """Return the unit files of a stage folder, in order."""
    return sorted(folder.glob("unit-*.jsonl"))


def read_units(folder: Path, required: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Return the rows of all units of a stage folder, in order of the units."""
    required = tuple(required)
    return [row for file in unit_files(folder) for row in read_jsonl(file, required)]


def check_row(row: Mapping[str, Any], kind: Any, location: str) -> None:
    """Check that a row has the keys of its kind, with values of their types.

    Args:
        row: of a unit.
        kind: a schema of `data.rows`.
        location: where the row stands, for errors.

    Raises:
        UserError: naming the place and the key.
    """
    for key, hint in get_type_hints(kind).items():
        if key not in kind.__required_keys__:
            continue
        value, origin = require_key(row, key, location), get_origin(hint) or hint
        plain = (int, float) if origin is float else (origin,)
        if origin in PLAIN and (not isinstance(value, plain) or isinstance(value, bool)):
            raise UserError(f"{location}: {key}: expected {origin.__name__}, found {value!r}")
