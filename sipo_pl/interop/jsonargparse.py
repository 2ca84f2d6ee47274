"""Internals of jsonargparse: the options of a parser with their types, and what its messages say, in its English."""

import argparse
import re
from collections.abc import Mapping
from typing import Any

from jsonargparse import ArgumentParser

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
