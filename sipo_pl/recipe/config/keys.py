"""Checks the keys of config files against a parser before it reads them: file, line, key, nearest right name."""

import dataclasses
import importlib
import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any, get_args

import yaml
from jsonargparse import ArgumentParser

from sipo_pl.interop.jsonargparse import parser_options
from sipo_pl.messages.errors import UsageError, nearest, nearest_key
from sipo_pl.recipe.components import KEYS
from sipo_pl.recipe.config.files import Entry, component_keys, entries, find_config, included, load_yaml, named_in
from sipo_pl.registry import SMALL_STAGES, TRAINER_STAGES, verbs_of


def check_config_files(arguments: Sequence[str], parser: ArgumentParser) -> None:
    """Check every key of the config files that a command line names.

    Args:
        arguments: the command line.
        parser: the parser that will read them.

    Raises:
        UsageError: an unknown key, also inside a list of objects or a component's arguments; or a faulty file.
    """
    options = parser_options(parser)
    for name in named_in(arguments).configs:
        leaves: list[str] = []
        for entry in entries(find_config(name)):
            if not any(entry.key.startswith(f"{leaf}.") for leaf in leaves) and _check_key(entry, options, arguments):
                leaves.append(entry.key)
                _check_value(entry, options[entry.key])


def check_stage(command: str, arguments: Sequence[str]) -> str | None:
    """Return the stage that a command line names, by ``--stage`` or by the last config file with a key `stage`.

    Raises:
        UsageError: no such stage, a stage of another command, or a recipe in the place of a stage's config.
    """
    named = named_in(arguments)
    stage, where = None, ""
    for name in named.configs:
        path = find_config(name)
        values = load_yaml(path)
        if {"base_model", "objectives"} <= values.keys():
            raise UsageError(f"{path}: a recipe, not the config of a stage; `sipo_pl run --config {name}` runs it")
        if "stage" in values:
            stage, where = str(values["stage"]), f"{path}: "
    if named.stage is not None:
        stage, where = named.stage, ""
    if stage is None:
        return None
    known = (*TRAINER_STAGES, *SMALL_STAGES)
    if stage not in known:
        raise UsageError(f"{where}no stage {stage!r}{nearest(stage, known)}")
    verbs = verbs_of(stage)
    if command not in verbs:
        raise UsageError(f"{where}stage {stage!r} runs with `sipo_pl {verbs[0]}`, not with {command}")
    return stage


def refuse_stage_config(name: str) -> None:
    """Raise UsageError where the config of a stage stands in the place of a recipe."""
    stage = load_yaml(find_config(name)).get("stage")
    if stage in (*TRAINER_STAGES, *SMALL_STAGES):
        verb = verbs_of(stage)[0]
        raise UsageError(
            f"{name}: the config of stage {stage!r}, not a recipe; `sipo_pl {verb} --config {name}` runs it"
        )


def _check_key(entry: Entry, options: Mapping[str, Any], arguments: Sequence[str]) -> bool:
    """Raise UsageError where no option has the key; return whether it is an option, not a group of them.

    Args:
        entry: the key.
        options: those that the parser knows.
        arguments: the command line, whose config files name the arguments of components.
    """
    if entry.key in options:
        return True
    if any(name.startswith(f"{entry.key}.") for name in options):
        value = entry.value.value if isinstance(entry.value, yaml.ScalarNode) else ""
        if value not in ("", "null", "~") and included(entry) is None:
            raise UsageError(f"{entry.place}: {entry.shown}: expected keys and values, found {value!r}")
        return False
    group = entry.key.removesuffix(entry.shown)  # that the file is read into
    above = {".".join(parts[:end]) for parts in (name.split(".") for name in options) for end in range(1, len(parts))}
    known = {*options, *above, *component_keys(arguments)}
    within = [name.removeprefix(group) for name in known if name.startswith(group)]
    raise UsageError(f"{entry.place}: no key {entry.shown!r}{nearest_key(entry.shown, within)}")


def _check_value(entry: Entry, kind: Any) -> None:
    """Check the keys inside a value: of objects in a list, and of a component's arguments."""
    item = next((inner for inner in get_args(kind) if dataclasses.is_dataclass(inner)), None)
    if item is not None and isinstance(entry.value, yaml.SequenceNode):
        for index, node in enumerate(entry.value.value):
            _check_item(entry, index, node, item)
    elif isinstance(entry.value, yaml.MappingNode):
        _check_component(entry.value, entry.path, entry.shown)


def _check_item(entry: Entry, index: int, node: yaml.Node, item: Any) -> None:
    fields = dataclasses.fields(item)
    where = f"{entry.path}:{node.start_mark.line + 1}"
    shown = f"{entry.shown}[{index}]"
    if not isinstance(node, yaml.MappingNode):
        raise UsageError(f"{where}: {shown}: expected keys and values, such as {fields[0].name}: …")
    found = _check_names(node, entry.path, shown, [field.name for field in fields])
    for field in fields:
        if field.name not in found and field.default is field.default_factory is dataclasses.MISSING:
            raise UsageError(f"{where}: {shown}: key {field.name!r} is missing")
    for key, value in node.value:
        if isinstance(value, yaml.MappingNode):  # a component; a stage that uses it imports its class, this check not
            _check_names(value, entry.path, f"{shown}.{key.value}", KEYS)


def _check_component(node: yaml.MappingNode, path: Any, shown: str) -> None:
    """Check `{class_path: …, init_args: {…}}`; the class itself is left to the parser, which imports it."""
    values = {key.value: value for key, value in node.value}
    if "class_path" not in values:
        return
    _check_names(node, path, shown, (*KEYS, "dict_kwargs"))
    arguments = values.get("init_args")
    names = _arguments_of(values["class_path"].value)
    if names is not None and isinstance(arguments, yaml.MappingNode):
        _check_names(arguments, path, f"{shown}.init_args", names)


def _check_names(node: yaml.MappingNode, path: Any, shown: str, known: Collection[str]) -> set[str]:
    for key, _ in node.value:
        if key.value not in known:
            raise UsageError(
                f"{path}:{key.start_mark.line + 1}: {shown}: no key {key.value!r}{nearest(key.value, known)}"
            )
    return {key.value for key, _ in node.value}


def _arguments_of(class_path: str) -> list[str] | None:
    """Return the names that a class takes; None where that is not to be seen here."""
    module, _, name = class_path.rpartition(".")
    try:
        parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters.values()
    except (ImportError, AttributeError, ValueError, TypeError):
        return None
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters]
