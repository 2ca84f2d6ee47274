"""Raw rows from files or the hub, each with the place it comes from, so that a later error can name it."""

import csv
import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from sipo_pl.data.hub import hub_hash, read_hub
from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.hub_names import is_hub_name
from sipo_pl.storage.hash_memory import file_hash
from sipo_pl.storage.json_lines import parse_json, parse_lines, require_object, utf8_text

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
    location = ""
    try:
        for location, row in read(path):
            yield location, row
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # of whatever library reads the format, a gzip stream that is damaged among them
        kind = "" if isinstance(error, OSError | EOFError | zlib.error) else f"{type(error).__name__}: "
        said = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read{location and f' behind {location}'}: {kind}{said}") from None
    if not location:
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
        yield from parse_lines(file, path, twice=False)


def _read_jsonl_gz(path: Path) -> Iterator[Located]:
    with gzip.open(path, "rb") as file:
        yield from parse_lines(file, path, twice=False)


def _read_json(path: Path) -> Iterator[Located]:
    data = path.read_bytes()
    rows = parse_json(utf8_text(data, _undecodable(data, str(path))), str(path), twice=False)
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
                for row in _rows(batch, path, number):
                    number += 1
                    yield f"{path}: row {number}", row
    except pyarrow.ArrowException as error:
        behind = f" behind row {number}" if number else ""
        raise UserError(f"{path}: not parquet{behind}: {' '.join(str(error).split())}") from None


def _rows(batch: Any, path: Path, start: int) -> list[dict[str, Any]]:
    """Return the rows of a batch of parquet, which begins behind `start` others."""
    try:
        found: list[dict[str, Any]] = batch.to_pylist()
        return found
    except Exception:  # a text that is not UTF-8, a date beyond Python's: which row is it?
        for index in range(batch.num_rows):
            for name in batch.schema.names:
                try:
                    batch.column(name)[index].as_py()
                except Exception as error:
                    said = " ".join(str(error).split())
                    raise UserError(f"{path}: row {start + index + 1}: key {name!r}: cannot be read: {said}") from None
        raise


def _undecodable(data: bytes, path: str) -> str:
    """Return the place of the first line that is not UTF-8: path and line, or the path alone where all are."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"{path}:{1 + data.count(bytes([10]), 0, error.start)}"
    return path


def _read_csv(path: Path) -> Iterator[Located]:
    csv.field_size_limit(_LONGEST_CELL)
    start = 1
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
        raise UserError(f"{path}:{start}: not CSV: {error}") from None
    except UnicodeDecodeError:
        data = path.read_bytes()
        utf8_text(data, _undecodable(data, str(path)))  # says where and why
        raise


def _check_header(header: list[str], location: str) -> None:
    utf8_text(",".join(header).encode(), location)  # UTF-16 without a mark has NUL beside every letter
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
