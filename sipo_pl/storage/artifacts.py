"""Files that appear whole or not at all: JSONL, manifests, content hashes, locks.

A stage folder is complete when its `manifest.json` says so. The manifest tells what made the folder: the keys that
change results, the hashes of its inputs, package versions and the content hash of every file it lists.
"""

import codecs
import contextlib
import errno
import fcntl
import hashlib
import importlib.metadata
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sipo_pl import __version__
from sipo_pl.messages.errors import UserError, nearest
from sipo_pl.storage.hash_memory import file_hash, known_hash
from sipo_pl.storage.moved_modules import with_current_names
from sipo_pl.storage.unicode_names import same_name

log = logging.getLogger("sipo_pl")

MANIFEST = "manifest.json"
CONFIG = "config.yaml"  # resolved config of a trainer stage
VERSIONS = ", "  # between the versions of one package in a manifest
VERSIONED = ("torch", "transformers", "peft", "lightning")
UNWRITABLE = {"ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "ENOTDIR", "EEXIST", "EIO"}  # names of errors
LARGE = 2**30  # bytes; a check that has to be quick reads no file above it
HASH_PARTS = "+"  # between the parts of a hash, see `same_hash`
_HASH = re.compile(r"[0-9a-f]{64}(\+[0-9a-f]{64})*")
ASIDE = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)\.(?P<kind>tmp|old)")  # what `atomic_path` leaves if it is killed


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside `path`; when the block ends well, flush it to disk and rename it into place.

    Works for a file and for a folder. A reader never sees a half-written `path`.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(aside)
        yield from _renamed(path, aside)


def _renamed(path: Path, aside: Path) -> Iterator[Path]:
    try:
        yield aside
        for written in [aside, *(aside.rglob("*") if aside.is_dir() else [])]:
            _fsync(written)
        old = path.with_name(f".{path.name}.{os.getpid()}.old")
        if path.is_dir():
            path.replace(old)  # a folder cannot be renamed over another; a crash in between leaves both whole
        aside.replace(path)
        remove(old)
        _fsync(path.parent)
    finally:
        remove(aside)


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Within the block, a full disk or a folder that cannot be written is a UserError that names `path`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if match := re.search(r"\(os error (\d+)\)", str(error)):  # as libraries that are not Python's say it
            number = int(match[1])
        if number is None or errno.errorcode.get(number) not in UNWRITABLE:
            raise
        raise UserError(f"{path}: cannot be written: {os.strerror(number)}; what was there is as it was") from None


def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder; a folder that was just being replaced comes back."""
    for path in folder.rglob(".*"):
        match = ASIDE.fullmatch(path.name)
        if match and not _lives(int(match["process"])):
            place = path.with_name(match["name"])
            if match["kind"] == "old" and not place.exists():
                path.replace(place)
            else:
                remove(path)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def remove(path: Path) -> None:
    """Remove a file or a folder, where there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def canonical_json(value: Any) -> str:
    """Return JSON text that is equal for equal values: sorted keys, no blanks."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def content_hash(value: Any) -> str:
    """Return the SHA-256 of a JSON-like value, as 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def same_hash(one: object, other: object) -> bool:
    """Return whether two hashes agree in all parts that both have; an older version knew the first part alone."""
    if not (isinstance(one, str) and isinstance(other, str) and _HASH.fullmatch(one) and _HASH.fullmatch(other)):
        return False
    parts = zip(one.split(HASH_PARTS), other.split(HASH_PARTS), strict=False)
    return all(first == second for first, second in parts)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text, atomically."""
    with atomic_path(path) as aside:
        aside.write_text(text, encoding="utf-8")


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


@dataclass
class Manifest:
    """What made a stage folder, and what it holds.

    Args:
        stage: name of the stage
        keys: the settings that change results
        inputs: name of an input to its content hash
        files: path relative to the folder to content hash
        rows: number of rows, where the stage makes rows
        complete: whether the stage ended well
        seed: the seed of the run
        versions: packages that made it; of one that was another in between, all its versions in their order
        notes: anything a reader should know, such as figures of the stage
    """

    stage: str
    keys: dict[str, Any]
    inputs: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    rows: int | None = None
    complete: bool = False
    seed: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def result_hash(self) -> str:
        """Return the hash that a later stage records for this folder as its input."""
        return content_hash(self.files)

    @classmethod
    def read(cls, folder: Path) -> "Manifest | None":
        """Return the folder's manifest, or None where there is none."""
        path = folder / MANIFEST
        if not path.exists():
            return None
        try:
            value = read_json(path)
        except UserError as error:
            raise UserError(f"{error}; remove the folder, or --overwrite, to make the stage anew") from None
        try:
            manifest = cls(**value)
            manifest.keys = with_current_names(manifest.keys)
            groups = (manifest.keys, manifest.inputs, manifest.files, manifest.versions, manifest.notes)
            if not all(isinstance(group, dict) for group in groups) or not isinstance(manifest.complete, bool):
                raise TypeError
            return manifest
        except TypeError:
            raise UserError(f"{path}: not a manifest of this program; remove it or choose another run_dir") from None

    def write(self, folder: Path) -> None:
        """Write the manifest into `folder`, atomically."""
        write_json(folder / MANIFEST, asdict(self))

    def check(self, folder: Path, remedy: str, prefix: str = "", *, quick: bool = False) -> None:
        """Check that the listed files are as they were written.

        Args:
            folder: the stage's folder.
            remedy: the command or option that makes it anew, for the error.
            prefix: check only files whose path within the folder begins so.
            quick: read no file above `LARGE`; one whose hash is not remembered only has to be there.

        Raises:
            UserError: a file is missing or has changed.
        """
        for name, expected in self.files.items():
            path = folder / name
            if not name.startswith(prefix):
                continue
            if not path.is_file():
                raise UserError(f"{path}: missing; {remedy} makes it anew")
            found = known_hash(path) if quick and path.stat().st_size > LARGE else file_hash(path)
            if found not in (None, expected):
                raise UserError(f"{path}: damaged or edited since it was written; {remedy} makes it anew")

    def go_on_with(self, versions: Mapping[str, str]) -> None:
        """Add the versions of packages that a stage goes on with to those that it was begun with, and say so."""
        for package, version in versions.items():
            before = self.versions.get(package, version)
            if before.split(VERSIONS)[-1] != version:
                log.warning("%s: begun with %s %s, goes on with %s", self.stage, package, before, version)
                before = f"{before}{VERSIONS}{version}"
            self.versions[package] = before

    def finish(self, folder: Path, files: Iterable[Path], rows: int | None = None, **notes: Any) -> None:
        """Record the files, mark the folder complete and write the manifest."""
        self.files = {str(path.relative_to(folder)): file_hash(path) for path in sorted(files)}
        self.rows, self.complete, self.notes = rows, True, {**self.notes, **notes}
        self.write(folder)


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that results depend on."""
    return {"sipo_pl": __version__, **{name: importlib.metadata.version(name) for name in VERSIONED}}


def open_stage(
    folder: Path, stage: str, keys: dict[str, Any], inputs: dict[str, str], *, seed: int, overwrite: bool = False
) -> Manifest:
    """Open a stage folder to begin it, to go on with it, or to find it complete.

    Returns:
        The folder's manifest; `complete` is true if there is nothing left to do.

    Raises:
        UserError: if the folder holds something else, or was made by other settings or inputs; the message says which.
    """
    keys = _as_read(keys)
    if overwrite and folder.exists():
        if not _is_stage(folder) and _visible(folder):
            raise UserError(
                f"{folder}: not a stage folder, so it is not overwritten; remove it or choose another run_dir"
            )
        remove(folder)
    found = Manifest.read(folder)
    if found is not None:
        others = [*differences(found.keys, keys), *differences(found.inputs, inputs, "input ")]
        if found.stage != stage:
            others = [f"stage: {found.stage!r} there, {stage!r} asked"]
        made = [path for path in _visible(folder) if path.name not in (MANIFEST, CONFIG)]
        if found.complete and not others:
            found.check(folder, "--overwrite")
            return found
        if made and not others:
            found.keys, found.inputs = keys, inputs  # hashes of an older version may be the first part alone
            found.go_on_with(package_versions())
            found.write(folder)
            return found
        if found.complete or made:  # else nothing is lost
            raise UserError(
                f"{folder} was made by other settings: {'; '.join(others[:5])}"
                f"{'; …' if len(others) > 5 else ''} (--overwrite makes it anew)"
            )
    elif folder.is_dir() and _visible(folder):
        raise UserError(f"{folder}: holds files but no {MANIFEST}; remove it or choose another run_dir")
    manifest = Manifest(stage, keys, inputs, seed=seed, versions=package_versions())
    manifest.write(folder)
    return manifest


def _is_stage(folder: Path) -> bool:
    """Return whether a folder has a manifest of this program, also a damaged one that nobody can read."""
    path = folder / MANIFEST
    try:
        read_json(path)
    except UserError:
        return path.is_file()
    return Manifest.read(folder) is not None


def is_made_by(found: Manifest, stage: str, keys: dict[str, Any], inputs: dict[str, str]) -> bool:
    """Return whether a folder with this manifest was made by just these settings and inputs."""
    return found.stage == stage and not (differences(found.keys, _as_read(keys)) or differences(found.inputs, inputs))


def _as_read(keys: dict[str, Any]) -> dict[str, Any]:
    """Return keys as a manifest that holds them is read back, with the present names of modules."""
    found: dict[str, Any] = with_current_names(json.loads(canonical_json(keys)))
    return found


def follow_stage(
    folder: Path, stage: str, keys: dict[str, Any], inputs: dict[str, str], *, seed: int, overwrite: bool = False
) -> Manifest:
    """Return what `open_stage` makes of a folder on the first of several devices, and touch nothing.

    The first device opens it before or while others ask; where it raises an error, they end with it.
    """
    found = Manifest.read(folder)
    if found is not None and found.complete and not overwrite:
        return found
    return Manifest(stage, keys, inputs, seed=seed, versions=package_versions())


def _visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def differences(found: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return how settings that a manifest holds differ from others, a text for each key; see `same_hash` for hashes."""
    lines = []
    for key in sorted({*found, *asked}):
        there, here = found.get(key), asked.get(key)
        if there == here or same_hash(there, here):
            continue
        if isinstance(there, dict) and isinstance(here, dict):
            lines += differences(there, here, f"{prefix}{key}.")
        else:
            lines.append(f"{prefix}{key}: {_short(there)} there, {_short(here)} asked")
    return lines


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


def input_hash(path: Path, made_by: str) -> str:
    """Return the content hash of an input: a complete stage folder, another folder, or a file.

    What a stage wrote is read in full, and has to be what the stage's manifest says.

    Args:
        path: the folder or file.
        made_by: the command that makes it, for the error where it is missing.

    Raises:
        UserError: it is missing, not complete, or has changed since its stage wrote it.
    """
    if path.is_file():
        return file_hash(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such input; `{made_by}` makes it")
    manifest = Manifest.read(path)
    if manifest is None:
        if maker := Manifest.read(path.parent):
            maker.check(path.parent, f"`{made_by} --overwrite`", f"{path.name}/")
        return content_hash(
            {str(file.relative_to(path)): file_hash(file) for file in path.rglob("*") if file.is_file()}
        )
    if not manifest.complete:
        raise UserError(f"{path}: not complete; `{made_by}` goes on with it")
    manifest.check(path, f"`{made_by} --overwrite`")
    return manifest.result_hash


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, a file beside it, and sweep the folder; the system frees the lock of a dead process.

    Raises:
        UserError: another process holds it, or the folder cannot be written.
    """
    with writable(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        path = folder.with_name(f".{folder.name}.lock")
        if path.is_dir():
            raise UserError(f"{path}: a folder where a lock file is to be; remove it")
        opened = path.open("a+", encoding="utf-8", errors="replace")
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(f"{folder}: in use by process {file.read().strip() or '?'}") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        sweep(folder)
        yield
