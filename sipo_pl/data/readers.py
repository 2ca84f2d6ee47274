"""Raw rows from local files, each with the place it comes from, so that a later error can name it."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from sipo_pl.artifacts import parse_lines, require_object
from sipo_pl.errors import UserError

Located = tuple[str, dict[str, Any]]  # where a row lies, such as "train.jsonl:17", and the row


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


def read_all(paths: Iterable[Path]) -> Iterator[Located]:
    """Yield the rows of several files, one file after the other."""
    for path in paths:
        yield from read_rows(path)


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


FORMATS: dict[str, Callable[[Path], Iterator[Located]]] = {
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl_gz,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
