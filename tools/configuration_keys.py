"""The keys of recipes, stages, commands and classes, as the typed fields and the parsers have them, in words."""

import importlib
import inspect
import re
import types
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser

from sipo_pl.commands.merge import merge
from sipo_pl.interop.jsonargparse import parser_actions, type_of
from sipo_pl.recipe.components import import_class
from sipo_pl.recipe.config.command_parser import build_parser
from sipo_pl.recipe.config.trainer_parser import trainer_parser
from sipo_pl.recipe.data import DataFile, Files
from sipo_pl.recipe.recipe import Objective, Recipe
from sipo_pl.registry import STAGES, TRAINER_STAGES
from sipo_pl.registry.stage import Stage
from sipo_pl.run.stage_folder import ENVIRONMENT_KEYS

# what all stages have, of which the page's prose speaks
IN_PROSE = {"help", "config", "print_config", "overwrite", "stage", "stop_after", "restart_optimizer", "ckpt_path"}
FREE_IN_RECIPE = {"compile", "device_map", "reproducible"}  # change speed and place, and are in no stage's keys
PREFIX = {"Compat": "compat."}
_WORDS: dict[Any, str] = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    str: "text",
    Path: "path",
    dict: "mapping",
    Any: "any value",
    DataFile: "file or hub name",
    Files: "list of files or hub names, or a mapping to such lists",
}
_RESTRICTED = re.compile(r"(?P<base>int|float) restricted to be (?P<limits>.+)")


@dataclass(frozen=True)
class Key:
    """A key as a table shows it.

    Args:
        name: dotted
        kind: its type in words
        default: as YAML, or required
        what: what it does, in one line
        is_free: it changes speed or place and never results
    """

    name: str
    kind: str
    default: str
    what: str
    is_free: bool = False


def recipe_keys(part: str) -> list[Key]:
    """Return the keys of the recipe or of one of its parts, by the name of the class."""
    kind = Recipe if part == "Recipe" else _part(part)
    return list(_fields(kind, PREFIX.get(part, "")))


def class_keys(path: str) -> list[Key]:
    """Return the arguments of a class that a recipe names."""
    kind = import_class(path)
    return list(_arguments(kind.__init__, _told(kind), set(getattr(kind, "environment_keys", ()))))


def stage_keys(name: str) -> list[Key]:
    """Return the keys of a stage that runs through the trainer, without those of the recipe and of the trainer."""
    stage = TRAINER_STAGES[name]
    alike = (one for one, known in TRAINER_STAGES.items() if _made_of(known) == _made_of(stage))
    return _stage_keys(stage.verb, next(alike))


@cache
def _stage_keys(verb: str, name: str) -> list[Key]:
    return _parsed(trainer_parser(verb, name))


def _made_of(stage: Stage) -> tuple[Any, ...]:
    """Return what a stage's keys follow from; stages of the same have the same parser, which takes seconds to make."""
    return stage.verb, stage.target, stage.data, stage.options


def command_keys(name: str) -> list[Key]:
    """Return the keys of a small stage, or the options of `merge`."""
    if name == "merge":
        return [replace(key, name=f"--{key.name}") for key in _parsed(build_parser(name, merge), set())]
    module, _, function = STAGES[name].target.partition(":")
    return _parsed(build_parser(name, getattr(importlib.import_module(module), function)))


def _part(name: str) -> Any:
    """Return a dataclass that is a field of the recipe, or the items of one."""
    hints = get_type_hints(Recipe).values()
    parts = {
        getattr(one, "__name__", ""): one for hint in hints for one in (hint, *get_args(hint)) if is_dataclass(one)
    }
    return parts[name]


def _fields(kind: Any, prefix: str) -> list[Key]:
    told, hints, found = _told(kind), get_type_hints(kind), []
    for one in fields(kind):
        hint = hints[one.name]
        name = f"{prefix}{one.name}"
        if is_dataclass(hint) and kind is not Recipe:
            found += _fields(hint, f"{name}.")
            continue
        default = _default_of(kind, one)
        words = "keys below" if is_dataclass(hint) else _with_null(hint, default)
        is_free = kind is Recipe and one.name in FREE_IN_RECIPE
        found.append(Key(name, words, default, cell(told.get(one.name, "")), is_free))
    return found


def _default_of(kind: Any, one: Field[Any]) -> str:
    if one.default is not MISSING:
        return value_words(one.default)
    if one.default_factory is MISSING:
        return "required"
    value = one.default_factory()
    if kind is Recipe and is_dataclass(value):  # what a recipe makes of it
        value = getattr(Recipe("", "", [], None), one.name)  # type: ignore[arg-type]
        usual = asdict(type(value)())
        value = {key: own for key, own in asdict(value).items() if own != usual[key]}
        return value_words(value) if value else "as below"
    return value_words(value)


def _arguments(function: Callable[..., Any], told: dict[str, str], free: set[str]) -> list[Key]:
    hints = get_type_hints(function)
    parameters = [one for one in inspect.signature(function).parameters.values() if one.name != "self"]
    return [
        Key(
            one.name,
            type_words(hints[one.name]),
            "required" if one.default is one.empty else value_words(one.default),
            cell(told.get(one.name, "")),
            one.name in free,
        )
        for one in parameters
    ]


def _told(kind: Any) -> dict[str, str]:
    """Return what the docstring of a class, or of the nearest one above it that has arguments, says of each."""
    for one in kind.__mro__:
        params = docstring_parser.parse(inspect.cleandoc(one.__doc__ or "")).params
        if params:
            return {param.arg_name: param.description or "" for param in params}
    return {}


def _parsed(parser: Any, in_prose: set[str] = IN_PROSE) -> list[Key]:
    """Return the options of a parser: those that a user gives, no links and no groups."""
    keys = []
    for action in parser_actions(parser):
        shared = action.dest in in_prose | {"help"} or action.dest.startswith(("trainer.", "recipe"))
        kind = type_of(action)
        if shared or not action.option_strings or action.dest.endswith(".help"):
            continue
        if kind is None and action.nargs != 0:  # a group, or a key that a link gives
            continue
        group, _, inner = action.dest.partition(".")
        default = "required" if action.required else value_words(action.default)
        is_free = inner.partition(".")[0] in ENVIRONMENT_KEYS.get(group, ())
        words = _with_null(bool if kind is None else kind, default)
        keys.append(Key(action.dest, words, default, cell(str(action.help or "")), is_free))
    return keys


def _with_null(hint: Any, default: str) -> str:
    """Return a type in words, with null where a key may be null and is not so by default."""
    is_told = default != "none" and type(None) in get_args(hint)
    return f"{type_words(hint)} or null" if is_told else type_words(hint)


def type_words(hint: Any) -> str:
    """Return a type in words, without null."""
    if hint in _WORDS:
        return _WORDS[hint]
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_words(one) for one in inner if one is not type(None)))
    if origin is list:
        return f"list, {type_words(inner[0])}" if inner[0] is Objective else f"list of {_plural(type_words(inner[0]))}"
    if origin is dict:
        return "`class_path`, `init_args`" if inner == (str, Any) else f"mapping to {_plural(type_words(inner[1]))}"
    if origin is not None and isinstance(origin, type) and issubclass(origin, Sequence):
        return f"list of {_plural(type_words(inner[0]))}"
    if origin is not None:  # a class that is called later, such as an optimizer
        return "`class_path`, `init_args`"
    if limited := _RESTRICTED.fullmatch(hint.__doc__ or ""):
        limits = re.sub(r"(?<=[<>=])(?=[-\d])", " ", limited["limits"])
        return f"{_WORDS[{'int': int, 'float': float}[limited['base']]]} {limits}"
    return "keys below" if hint is Objective else "`class_path`, `init_args`"


def _plural(words: str) -> str:
    """Return the words of a type as those of a list's items."""
    return {
        "whole number": "whole numbers",
        "number": "numbers",
        "text": "texts",
        "path": "paths",
        "file or hub name": "files or hub names",
    }.get(words, words)


def value_words(value: Any) -> str:
    """Return a default as a config would have it, a class by its name alone."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    path = value.get("class_path") if isinstance(value, dict) else getattr(value, "class_path", None)
    if path:
        return f"`{str(path).rpartition('.')[2]}`"
    if isinstance(value, dict):
        return f"`{{{', '.join(f'{key}: {_bare(one)}' for key, one in value.items())}}}`"
    if isinstance(value, list):
        return ", ".join(map(str, value)) if value else "`[]`"
    return str(value) if value != "" else '`""`'


def _bare(value: Any) -> str:
    return value_words(value).strip("`")


def cell(text: str) -> str:
    """Return a docstring's words as the cell of a table, in one line."""
    return re.sub(r"<(\w+)>", r"&lt;\1&gt;", " ".join(text.split()))
