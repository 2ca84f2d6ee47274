"""Internals of jsonargparse: the options of a parser with their types, and what its messages say, in its English.

Its reader of values is mended here: it reads every text once more as YAML, also one that a config file holds in quotes.
"""

import argparse
import json
import os
import re
from collections.abc import Mapping
from contextvars import ContextVar
from functools import wraps
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from jsonargparse import ArgumentParser, _typehints, set_dumper
from jsonargparse._loaders_dumpers import get_yaml_default_loader

# what a message names: keys, values, types, files, classes
KEY = re.compile(r"[Pp]arser key [\"'](?P<key>[\w.]+)[\"']")
VALUE = re.compile(r"(?:Got value|Given value): (?P<value>.*?)(?:\. Got value: .*)?$", re.MULTILINE)
UNION = re.compile(r"Subtypes: (?P<type>.*)")
TYPE = re.compile(r"Expected a (?P<type>.*?)(?:\. Got value.*)?$", re.MULTILINE)
RESTRICTED = re.compile(r"Not of type [^:]+: (?P<value>.*) does not conform to restriction v(?P<limit>.*)")
NO_CONFIG = re.compile(r"Unable to load config \"(?P<path>[^\"]+)\"")
LITERAL = re.compile(r"typing\.Literal\[([^\]]*)\]")
NO_CLASS = re.compile(r"module '(?P<module>[\w.]+)' has no attribute '(?P<name>\w+)'")
NO_MODULE = re.compile(r"No module named '(?P<name>[\w.]+)'")
NO_ARGUMENT = re.compile(r"Option '(?P<name>[\w.]+)' is not accepted")
NO_FILE = re.compile(r"(?:File|Path) does not exist: (?P<path>\S+)")
MISSING = re.compile(r"the following arguments are required: (?P<keys>.*)")
UNKNOWN = re.compile(r"unrecognized arguments: (?P<option>[^\s=]+)")


def parser_actions(parser: ArgumentParser) -> list[argparse.Action]:
    """Return the actions of a parser, as argparse keeps them."""
    return list(parser._actions)


def parser_options(parser: ArgumentParser) -> Mapping[str, Any]:
    """Return the type of each option of a parser, by its dotted name; groups and what only prints are left out."""
    actions = [action for action in parser_actions(parser) if action.option_strings and not _only_prints(action)]
    return {action.dest: type_of(action) for action in actions}


def type_of(action: argparse.Action) -> Any:
    """Return the type that an option was declared with; None for a flag."""
    return getattr(action, "_typehint", None)


def _only_prints(action: argparse.Action) -> bool:
    return "ConfigLoad" in type(action).__name__ or "Help" in type(action).__name__ or action.dest == "print_config"


_read_value, _adapt, _call = (
    _typehints.ActionTypeHint._check_type,
    _typehints.adapt_typehints,
    _typehints.ActionTypeHint.__call__,
)
_from_option: ContextVar[bool] = ContextVar("_from_option", default=False)
NULL = re.compile(r"(\"*)null\1")  # how an option says null, and the word null


def is_text(kind: Any) -> bool:
    """Return whether any text is a value of a type: of `str`, alone or with None, paths and listed words beside it."""
    kinds = _kinds(kind)
    return str in kinds and all(one in (str, NoneType) or _is_path(one) or get_origin(one) is Literal for one in kinds)


def _kinds(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _is_path(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, os.PathLike)


def as_option(value: str) -> str:
    """Return a text as the value of an option that reads as the text."""
    return f'"{value}"' if NULL.fullmatch(value) else value


def as_yaml(value: Any) -> str:
    """Return a value as YAML in one line; JSON writes a letter beyond 16 bits as two that YAML cannot read."""
    return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in json.dumps(value, ensure_ascii=False))


def as_free_option(value: str) -> str:
    """Return a text as the value of an option whose type is not known."""
    return value if free_value(value) == value else as_yaml(value)


def _option_text(kind: Any, text: str) -> str | None:
    """Return what a text option means: the bare word null is null, and a pair of quotes around it is taken off."""
    if not NULL.fullmatch(text):
        return str(text)
    if text != "null":
        return text[1:-1]
    return None if NoneType in get_args(kind) else text


def _as_read(text: str) -> Any:
    """Return a text as YAML reads it, or itself where it is none."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def free_value(text: str) -> Any:
    """Return what an option means whose type is not known: YAML in one line, or a text where that loses some of it."""
    value = _as_read(text)
    is_whole = isinstance(value, bool | int | float) or text in ("null", "~") or text[:1] in ("{", "[", '"', "'")
    return value if is_whole else text


def _call_option(self: Any, *arguments: Any, **keywords: Any) -> Any:
    """Take the value of an option, which alone may say null or a number in place of a text."""
    if not arguments or not isinstance(arguments[2], str):
        return _call(self, *arguments, **keywords)
    parser, values, value, name = arguments
    own = name in self.option_strings
    if own and is_text(self._typehint):
        return _call(self, parser, values, _option_text(self._typehint, value), name)
    option, _, argument = name.partition(".init_args.")
    if argument and _is_mapping(self._typehint):  # a component; the parser would put the argument beside init_args
        component = values.get(self.dest) or {}
        known = {**(component.get("init_args") or {}), argument: free_value(value)}
        return _call(self, parser, values, {**component, "init_args": known}, option)
    if argument:
        return _call(self, parser, values, _Argument(value), name)
    if not own or (str in _kinds(self._typehint) and not _takes_mapping(self._typehint)):
        value = _kept(value)
    is_single = not value.lstrip().startswith(("{", "["))  # else what is inside has quotes of its own
    before = _from_option.set(is_single)
    try:
        return _call(self, parser, values, value, name)
    finally:
        _from_option.reset(before)


class _AsWritten(str):
    """A text that the parser's reading leaves alone: it takes nothing but `str` itself for YAML."""


class _Argument(_AsWritten):
    """The value of an argument of a class, which is read where the type of the argument is known."""


def _kept(value: str) -> str:
    """Return an option's value so that its reading as YAML does not lose some of it."""
    return _AsWritten(value) if free_value(value) == value and _as_read(value) != value else value


def _is_mapping(kind: Any) -> bool:
    return all(one is NoneType or get_origin(one) is dict for one in _kinds(kind))


def _takes_mapping(kind: Any) -> bool:
    return any(one is dict or get_origin(one) is dict for one in _kinds(kind))


@wraps(_read_value)
def _check_type(self: Any, value: Any, *arguments: Any, **keywords: Any) -> Any:
    """Leave a text as it is, where any text will do."""
    if isinstance(value, _Argument):
        value = _option_text(self._typehint, value) if is_text(self._typehint) else str(value)
    if isinstance(value, str) and (is_text(self._typehint) or _is_free(self._typehint)):
        return value
    return _read_value(self, value, *arguments, **keywords)


def _adapt_value(value: Any, kind: Any, *arguments: Any, **keywords: Any) -> Any:
    """Leave a text as it is, where any text will do: also within lists and mappings, and as it is written."""
    if isinstance(value, str) and (is_text(kind) or _is_free(kind)):
        return str(value)
    return _adapt(value, kind, *arguments, **keywords)


def _is_free(kind: Any) -> bool:
    """Return whether a value of any type will do, and it is not an option's, which cannot say its type."""
    return not _from_option.get() and _typehints.accepts_any_value(kind)


class _Dumper(yaml.SafeDumper):
    """Puts a text in quotes that the parser would read as a number, such as 1e-4."""


_Dumper.yaml_implicit_resolvers = {
    letter: [*yaml.SafeDumper.yaml_implicit_resolvers.get(letter, []), *found]
    for letter, found in {
        **yaml.SafeDumper.yaml_implicit_resolvers,
        **get_yaml_default_loader().yaml_implicit_resolvers,
    }.items()
}


def dump_yaml(values: Any) -> str:
    """Return values as YAML that the parser reads as the same values."""
    return str(yaml.dump(values, Dumper=_Dumper, allow_unicode=True, sort_keys=False, default_flow_style=False))


def _mend() -> None:
    set_dumper("yaml", dump_yaml)
    module: Any = _typehints
    module.ActionTypeHint._check_type, module.ActionTypeHint.__call__ = _check_type, _call_option
    module.adapt_typehints = _adapt_value


_mend()
