"""Config files by path, or by the bare name of a shipped one, such as `quickstart/align.yaml`; their keys by line.

The file of a stage that is missing beside a recipe stands for the stage's defaults, as one with its name alone would.
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sipo_pl.messages.errors import UsageError, closest, did_you_mean, nearest
from sipo_pl.registry import SMALL_STAGES, TRAINER_STAGES

RECIPE_FILE = "recipe.yaml"
SHIPPED = Path(str(resources.files("sipo_pl.configs")))


_Quick = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
LARGEST = 2**18  # bytes of a config file; a long recipe has a tenth of it
MOST_NODES, DEEPEST = 50_000, 50  # of a config file's values, each alias counted as all that it stands for


class _Loader(yaml.SafeLoader):
    """Reads a date as the text that it is, as the parser of options does."""


_Loader.yaml_implicit_resolvers = {
    letter: [one for one in found if one[0] != "tag:yaml.org,2002:timestamp"]
    for letter, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


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
    """Return the path of a config file: as given, or below the shipped configs; that of a stage need not be there.

    Raises:
        UsageError: no such file, with the nearest name: beside it, else a shipped one.
    """
    path, places = Path(name), _places(name)
    for place in (*filter(Path.is_file, places), *filter(_stands_for_defaults, places)):
        return place
    raise UsageError(f"--config {name}: no such file{_meant(path)}")


def _meant(path: Path) -> str:
    """Say which config file was meant by a path that is none: the recipe of a folder, or the nearest file."""
    beside = [str(file) for file in path.parent.glob("*.yaml")]
    shipped = [str(file.relative_to(SHIPPED)) for file in SHIPPED.rglob("*.yaml")]
    folders = {str(Path(file).parent): file for file in shipped if Path(file).name == RECIPE_FILE}
    found = closest(str(path), beside or shipped)
    if (path / RECIPE_FILE).is_file():
        found = str(path / RECIPE_FILE)
    elif path.suffix != ".yaml" and (folder := closest(str(path), folders)):
        found = folders[folder]
    return did_you_mean(found) or nearest(str(path), [*beside, *shipped])


def has_file(name: str) -> bool:
    """Return whether a config file is there, as given or below the shipped configs."""
    return any(map(Path.is_file, _places(name)))


def _places(name: str) -> tuple[Path, Path]:
    """Return where a config file may lie: as given, or below the shipped configs."""
    return Path(name), SHIPPED / name


def _stands_for_defaults(path: Path) -> bool:
    """Return whether a path is where the config of a stage may lie, beside a recipe."""
    is_stage = path.suffix == ".yaml" and path.stem in (*TRAINER_STAGES, *SMALL_STAGES)
    return is_stage and path.with_name(RECIPE_FILE).is_file()


def read_text(path: Path) -> str:
    """Return the text of a config file that `find_config` found: of a stage's that is missing, its name and recipe."""
    if path.is_file():
        if (size := path.stat().st_size) > LARGEST:
            raise UsageError(f"{path}: {size} bytes; a config file has at most {LARGEST}")
        return path.read_text(encoding="utf-8")
    return yaml.safe_dump({"stage": path.stem, "recipe": RECIPE_FILE})


@dataclass(frozen=True)
class Named:
    """What a command line names.

    Args:
        configs: names of its config files, in order
        stage: its stage; None where the config files say it
    """

    configs: list[str]
    stage: str | None


def named_in(arguments: Sequence[str]) -> Named:
    """Return the config files and the stage that a command line names, which tell by which parser it is to be read."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    parser.add_argument("--stage")
    found = argparse.Namespace(config=[], stage=None)
    with suppress(argparse.ArgumentError):  # an option without a value, of which the stage's own parser speaks
        parser.parse_known_args(list(arguments), found)
    return Named(found.config, found.stage)


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; UsageError names file, line and column of a fault."""
    _compose(path)
    value = yaml.load(read_text(path), _Loader)
    return {} if value is None else value


def entries(path: Path, group: str = "", above: tuple[Path, ...] = ()) -> Iterator[Entry]:
    """Yield the keys of a YAML file and, as they come, of the mappings under them and of the files that those name.

    Args:
        path: the file.
        group: dotted key under which another file names this one; empty where none does.
        above: the files that name this one, from the first on.

    Raises:
        UsageError: not YAML, not a mapping, or a group's file that is missing or that names one above.
    """
    root = _compose(path)
    if root is not None:
        yield from _below(root, path, "", f"{group}." if group else "", (*above, path.resolve()))


def _below(node: yaml.MappingNode, path: Path, shown: str, group: str, above: tuple[Path, ...]) -> Iterator[Entry]:
    lines: dict[str, int] = {}
    for key_node, value in node.value:
        if key_node.value == "<<" and isinstance(value, yaml.MappingNode):  # YAML's merge: its keys stand here
            yield from _below(value, path, shown, group, above)
            continue
        name, line = f"{shown}{key_node.value}", key_node.start_mark.line + 1
        if name in lines:
            raise UsageError(f"{path}:{line}: key {name!r} stands in line {lines[name]} already")
        lines[name] = line
        entry = Entry(f"{group}{name}", name, f"{path}:{line}", path, value)
        yield entry
        if isinstance(value, yaml.MappingNode):
            yield from _below(value, path, f"{name}.", group, above)
        elif file := included(entry):
            if file.resolve() in above:
                raise UsageError(f"{entry.place}: {entry.shown}: {str(file)!r} names itself, or a file that names it")
            yield from entries(file, entry.key, above)


def component_keys(arguments: Sequence[str]) -> list[str]:
    """Return the dotted keys of the arguments of components that a command line's config files give."""
    found = [entry.key for name in named_in(arguments).configs for entry in entries(find_config(name))]
    return [key for key in found if ".init_args." in key]


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
        text = read_text(path)
        _check_depth(text, path)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _check_size(node, path)
    except RecursionError:
        raise _too_deep(path, None) from None
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


def _check_depth(text: str, path: Path) -> None:
    """Raise UsageError for values that stand too deep in one another, before the parser takes minutes over them."""
    depth = 0
    with suppress(yaml.YAMLError):  # of which the parser speaks
        for event in yaml.parse(text, Loader=_Quick):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise _too_deep(path, event.start_mark)


def _check_size(root: yaml.Node | None, path: Path) -> None:
    """Raise UsageError for values that are too many or too deep by aliases, such as one that stands within itself."""
    waiting, count = [(root, 1)] if root is not None else [], 0
    while waiting:
        node, depth = waiting.pop()
        count += 1
        if depth > DEEPEST:
            raise _too_deep(path, node.start_mark)
        if count > MOST_NODES:
            place = f"{path}:{node.start_mark.line + 1}"
            raise UsageError(f"{place}: more than {MOST_NODES} values, where an alias counts as all that it stands for")
        if isinstance(node, yaml.MappingNode):
            waiting += [(one, depth + 1) for pair in node.value for one in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += [(one, depth + 1) for one in node.value]


def _too_deep(path: Path, mark: Any) -> UsageError:
    place = f"{path}:{mark.line + 1}" if mark else f"{path}"  # a `Mark` of YAML, which C has as a type of its own
    return UsageError(f"{place}: values stand more than {DEEPEST} deep in one another")
