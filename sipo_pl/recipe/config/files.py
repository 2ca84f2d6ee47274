"""Config files by path, or by the bare name of a shipped one, such as `quickstart/align.yaml`; their keys by line."""

import itertools
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sipo_pl.messages.errors import UsageError, nearest


class Entry(NamedTuple):
    """A key of a config file.

    Args:
        key: dotted, as the parser knows it: ``recipe.seed`` also where a file that ``recipe:`` names says ``seed``
        shown: dotted, as it stands in its own file
        place: file and line
        path: the file
        value: the node under the key
    """

    key: str
    shown: str
    place: str
    path: Path
    value: yaml.Node


def find_config(name: str) -> Path:
    """Return the path of a config file: as given, or below the shipped configs.

    Raises:
        UsageError: no such file, with the nearest name: beside it, else a shipped one.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = Path(str(resources.files("sipo_pl.configs")))
    if (shipped / name).is_file():
        return shipped / name
    beside = [str(file) for file in path.parent.glob("*.yaml")]
    known = beside or [str(file.relative_to(shipped)) for file in shipped.rglob("*.yaml")]
    raise UsageError(f"--config {name}: no such file{nearest(name, known)}")


def config_names(arguments: Sequence[str]) -> list[str]:
    """Return the names that a command line gives with ``--config`` or ``-c``, in order."""
    names = []
    for word, following in itertools.pairwise([*arguments, ""]):
        if word in ("-c", "--config") and following:
            names.append(following)
        elif word.startswith("--config="):
            names.append(word.partition("=")[2])
    return names


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; UsageError names file, line and column of a fault."""
    _compose(path)
    value = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {} if value is None else value


def entries(path: Path, group: str = "") -> Iterator[Entry]:
    """Yield the keys of a YAML file and, as they come, of the mappings under them and of the files that those name.

    Args:
        path: the file.
        group: dotted key under which another file names this one; empty where none does.

    Raises:
        UsageError: not YAML, not a mapping, or a group's file that is missing.
    """
    root = _compose(path)
    if root is not None:
        yield from _below(root, path, "", f"{group}." if group else "")


def _below(node: yaml.MappingNode, path: Path, shown: str, group: str) -> Iterator[Entry]:
    lines: dict[str, int] = {}
    for key_node, value in node.value:
        if key_node.value == "<<" and isinstance(value, yaml.MappingNode):  # YAML's merge: its keys stand here
            yield from _below(value, path, shown, group)
            continue
        name, line = f"{shown}{key_node.value}", key_node.start_mark.line + 1
        if name in lines:
            raise UsageError(f"{path}:{line}: key {name!r} stands in line {lines[name]} already")
        lines[name] = line
        entry = Entry(f"{group}{name}", name, f"{path}:{line}", path, value)
        yield entry
        if isinstance(value, yaml.MappingNode):
            yield from _below(value, path, f"{name}.", group)
        elif file := included(entry):
            yield from entries(file, entry.key)


def included(entry: Entry) -> Path | None:
    """Return the file that an entry names to be read in its place, relative to its own; None where it names none."""
    value = entry.value
    if not isinstance(value, yaml.ScalarNode) or not value.value.endswith((".yaml", ".yml")):
        return None
    file = entry.path.parent / value.value
    if not file.is_file():
        known = [beside.name for beside in file.parent.glob("*.yaml")]
        raise UsageError(f"{entry.place}: {entry.shown}: no such file {str(file)!r}{nearest(file.name, known)}")
    return file


def _compose(path: Path) -> yaml.MappingNode | None:
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise UsageError(f"{path}{where}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if node is not None and not isinstance(node, yaml.MappingNode):
        kind = "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
        raise UsageError(f"{path}: expected keys and values, found {kind}")
    return node
