"""Turns a parser's error into one line that names the file, the line and the key, with the nearest right name."""

import argparse
import re
import sys
from collections.abc import Collection, Sequence

from sipo_pl.interop.jsonargparse import (
    KEY,
    LITERAL,
    MISSING,
    NO_ARGUMENT,
    NO_CLASS,
    NO_CONFIG,
    NO_FILE,
    NO_MODULE,
    RESTRICTED,
    TYPE,
    UNION,
    UNKNOWN,
    VALUE,
)
from sipo_pl.interop.numbers import in_words
from sipo_pl.messages.errors import UsageError, closest, did_you_mean, nearest, nearest_key
from sipo_pl.recipe.config.files import component_keys, entries, find_config, named_in

_SOURCE = "jsonargparse.typing.HubName | jsonargparse.typing.Path_fr"
_LONGEST = 300


def explain(
    error: argparse.ArgumentError | str, arguments: Sequence[str], known: Collection[str], group: str = ""
) -> UsageError:
    """Return the error as one line.

    Args:
        error: what the parser said.
        arguments: the command line, whose options and config files are searched for the key.
        known: the options that the parser knows, dotted.
        group: what the user wrote before every option of this parser, such as ``recipe.``; empty for options proper.
    """
    text = str(error.message if isinstance(error, argparse.ArgumentError) else error).strip()
    if found := UNKNOWN.search(text):
        return _unknown_option(found["option"], [*known, *component_keys(arguments)], group)
    if found := MISSING.search(text):
        keys = found["keys"].split(", ")
        return _missing([key if key in known else key.partition(".")[2] or key for key in keys], arguments, group)
    if isinstance(error, argparse.ArgumentError) and error.argument_name and not KEY.search(text):
        return UsageError(f"{error.argument_name}: {text}")
    keys = [match["key"] for match in KEY.finditer(text)]
    if not keys:
        return UsageError(_one_line(text))
    key = max((name for name in keys if name in known), key=len, default=keys[-1])
    problem = _problem(text, keys[-1])
    if problem is None:
        return _missing([key], arguments, group)
    return UsageError(f"{find_place(key, arguments, keys[-1], group)}: {problem}")


def _unknown_option(option: str, known: Collection[str], group: str) -> UsageError:
    name = option.lstrip("-")
    if not option.startswith("-"):
        return UsageError(f"{option!r} belongs to no option")
    name, known = f"{group or '--'}{name}", [f"{group or '--'}{one}" for one in known]
    return UsageError(f"no {'setting' if group else 'option'} {name!r}{nearest_key(name, known)}")


def _missing(keys: Sequence[str], arguments: Sequence[str], group: str) -> UsageError:
    names = ", ".join(repr(key) for key in keys)
    given = named_in(arguments).configs
    where = f"{', '.join(given)}: " if given else ""
    if group:
        return UsageError(f"{where}missing: {names}")
    way_out = f"--{keys[0]} gives it" if len(keys) == 1 else f"--config FILE or --{keys[0]} and so on give them"
    return UsageError(f"{where}{names} {'is' if len(keys) == 1 else 'are'} missing; {way_out}")


def _problem(text: str, inner: str) -> str | None:
    """Say what is wrong with the value of a key, whose last part is `inner`; None where it has no value."""
    if found := NO_FILE.search(text):
        return f"no such file {found['path']}"
    if found := NO_CLASS.search(text):
        classes = [name for name, value in vars(sys.modules[found["module"]]).items() if isinstance(value, type)]
        return f"{found['module']} has no {found['name']!r}{nearest(found['name'], classes)}"
    if found := NO_MODULE.search(text):
        return f"no module {found['name']!r}"
    if found := NO_ARGUMENT.search(text):
        return f"no key {found['name']!r}"
    if found := NO_CONFIG.search(text):
        return f"no such file {found['path']!r}"
    if found := RESTRICTED.search(text):
        return f"expected a number {found['limit']}, found {found['value']}"
    values, kinds = VALUE.search(text), UNION.search(text) or TYPE.search(text)
    if not values or not kinds:
        return _one_line(text[text.rindex(inner) + len(inner) :].strip("\"': \n"))
    value = values["value"].strip()
    if value == "None":
        return None
    expected, choices = _readable(kinds["type"])
    return f"expected {expected}, found {value!r}{_close(value, choices)}"


def _readable(kinds: str) -> tuple[str, list[str]]:
    """Return a type of Python in words, and the values that it lists."""
    choices = [word.strip() for group in LITERAL.findall(kinds) for word in group.split(",")]
    kinds = LITERAL.sub("", kinds).replace(_SOURCE, "file")
    names = re.findall(r"<class '(?:[\w.]*\.)?([^']+)'>", kinds)
    names += re.findall(r"(?:list|dict|tuple)\[(?:[^\[\]]|\[[^\]]*\])*\]", kinds)
    words = ["null" if name == "NoneType" else in_words(name) for name in names]
    listed = [f"one of {', '.join(choices)}"] if choices else []
    return " or ".join([*listed, *words]) or kinds.strip("[] "), [choice.strip("'") for choice in choices]


def _close(value: str, choices: Sequence[str]) -> str:
    return did_you_mean(closest(value, choices))


def find_place(key: str, arguments: Sequence[str], inner: str = "", group: str = "") -> str:
    """Return where the value of a key comes from: the last option that gives it, else file, line and key.

    Args:
        key: dotted key of an option.
        arguments: the command line.
        inner: last part of a key inside the option's value, where that is to be found.
        group: see `explain`.
    """
    for word in reversed(arguments):
        name = word.partition("=")[0].removeprefix("--")
        if word.startswith("--") and (name == key or key.startswith(f"{name}.") or name.startswith(f"{key}.")):
            return f"{group or '--'}{name}"
    places: dict[str, str] = {}
    for name in named_in(arguments).configs:
        for entry in entries(find_config(name)):
            places[entry.key] = f"{entry.place}: {entry.shown}"
    within = [name for name in places if name.startswith(f"{key}.") and name.endswith(f".{inner}")]
    return next((places[name] for name in [*within, key] if name in places), key)


def _one_line(text: str) -> str:
    line = "; ".join(part for part in (raw.strip(" -") for raw in text.splitlines()) if part)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
