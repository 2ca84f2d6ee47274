"""Raw rows from files or the hub, each with the place it comes from, so that a later error can name it."""

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from sipo_pl.data.hub import hub_hash, read_hub
from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.hub_names import is_hub_name
from sipo_pl.storage.artifacts import file_hash, parse_lines, require_object

Located = tuple[str, dict[str, Any]]  # where a row lies, such as "train.jsonl:17", and the row
_LONGEST_CELL = 2**31 - 1  # characters; the module's own limit is shorter than many a response


class CsvCell(str):
    """Text of a CSV cell, which is read as a number where one is asked for."""


def read_rows(path: Path) -> Iterator[Located]:
    """Yield the rows of a raw data file, in file order.

    Args:
        path: file whose name ends in one of `FORMATS`.

    Raises:
        UserError: no such file, an unknown format, no rows, or a malformed row; the message says where.
    """
    read = _format(path)
    empty = True
    try:
        for location, row in read(path):
            empty = False
            yield location, row
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error) as error:  # the latter two: a gzip stream that ends early or is damaged
        raise UserError(f"{path}: cannot be read: {error}") from None
    if empty:
        raise UserError(f"{path}: holds no rows")


def read_all(sources: Iterable[str | Path]) -> Iterator[Located]:
    """Yield the rows of several files or hub names, one after the other."""
    for source in sources:
        yield from read_hub(str(source)) if is_hub_name(str(source)) else read_rows(Path(source))


def source_hash(source: str) -> str:
    """Return the content hash of a file or of a hub name.

    Raises:
        UserError: where it cannot be read.
    """
    if is_hub_name(source):
        return hub_hash(source)
    try:
        return file_hash(Path(source))
    except OSError as error:
        raise UserError(f"{source}: cannot be read: {error.strerror}") from None


def _format(path: Path) -> Callable[[Path], Iterator[Located]]:
    for suffix, read in FORMATS.items():
        if path.name.lower().endswith(suffix):
            return read
    raise UserError(f"{path}: unknown format; known: {', '.join(FORMATS)}")


def _read_jsonl(path: Path) -> Iterator[Located]:
    with path.open("rb") as file:
        yield from parse_lines(file, path)


def _read_jsonl_gz(path: Path) -> Iterator[Located]:
    with gzip.open(path, "rb") as file:
        yield from parse_lines(file, path)


def _read_json(path: Path) -> Iterator[Located]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        hint = "; one object a line is .jsonl" if error.msg == "Extra data" else ""
        raise UserError(f"{path}:{error.lineno}: not JSON: {error.msg} at column {error.colno}{hint}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text: {error}") from None
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a list of objects, found {type(rows).__name__}")
    for number, row in enumerate(rows, start=1):
        location = f"{path}: row {number}"
        yield location, require_object(row, location)


def _read_parquet(path: Path) -> Iterator[Located]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", row
    except pyarrow.ArrowException as error:
        raise UserError(f"{path}: not parquet: {error}") from None


def _read_csv(path: Path) -> Iterator[Located]:
    csv.field_size_limit(_LONGEST_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            _check_header(header, f"{path}:1")
            start = lines.line_num + 1
            for cells in lines:
                location, start = f"{path}:{start}", lines.line_num + 1
                if cells and len(cells) != len(header):
                    raise UserError(f"{location}: expected {len(header)} cells, as in the header, found {len(cells)}")
                if cells:
                    yield location, {name: CsvCell(cell) for name, cell in zip(header, cells, strict=True)}
    except csv.Error as error:
        raise UserError(f"{path}:{lines.line_num}: not CSV: {error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text: {error}") from None


def _check_header(header: list[str], location: str) -> None:
    for index, name in enumerate(header):
        if not name.strip() or name in header[:index] or _is_number(name):
            raise UserError(f"{location}: expected a header row of distinct column names, found {name!r} among them")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


FORMATS: dict[str, Callable[[Path], Iterator[Located]]] = {
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl_gz,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".csv": _read_csv,
}
