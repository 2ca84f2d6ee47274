"""Stage folders of JSONL units: `unit-00000.jsonl`, one a unit of rows, written whole or not at all."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sipo_pl.storage.artifacts import read_jsonl


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
