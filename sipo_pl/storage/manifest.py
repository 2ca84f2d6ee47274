"""What made a stage folder and what it holds: its manifest, which alone says whether the stage is complete."""

import importlib.metadata
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sipo_pl import __version__
from sipo_pl.messages.errors import UserError
from sipo_pl.storage.files import remove
from sipo_pl.storage.hash_memory import file_hash, known_hash
from sipo_pl.storage.hashes import content_hash, same_hash
from sipo_pl.storage.json_lines import canonical_json, read_json, write_json
from sipo_pl.storage.moved_modules import with_current_names

log = logging.getLogger("sipo_pl")

MANIFEST = "manifest.json"
CONFIG = "config.yaml"  # resolved config of a trainer stage
VERSIONS = ", "  # between the versions of one package in a manifest
VERSIONED = ("torch", "transformers", "peft", "lightning")
LARGE = 2**30  # bytes; a check that has to be quick reads no file above it


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
