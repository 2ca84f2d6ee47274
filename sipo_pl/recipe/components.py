"""Makes an object from a class path and arguments, with errors that say which key is wrong."""

import importlib
import inspect
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sipo_pl.interop.numbers import problem_of
from sipo_pl.messages.errors import SettingError, Stopped, UsageError, UserError, nearest
from sipo_pl.recipe.data import Component

T = TypeVar("T")

KEYS = ("class_path", "init_args")


def import_class(path: str) -> Any:
    """Import what a dotted path names."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def instantiate(component: Component, base: type[T], key: str) -> T:
    """Import the class that a component names, check that it is a `base`, and call it with its arguments.

    Args:
        component: class_path, and init_args where there are any.
        base: the class that it must derive from.
        key: config key of the component, for errors.

    Raises:
        UsageError: another key, no such module or class, another kind of class, or arguments that it does not take.
    """
    for name in component:
        if name not in KEYS:
            raise UsageError(f"{key}: no key {name!r}{nearest(name, KEYS)}")
    class_path = component.get("class_path")
    if not isinstance(class_path, str):
        raise UsageError(f"{key}.class_path: expected the import path of a class, found {class_path!r}")
    module_name, _, name = class_path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        is_foreign = isinstance(error, ModuleNotFoundError) and error.name == module_name.partition(".")[0]
        hint = "; PYTHONPATH names the folders of modules of your own" if is_foreign else ""
        raise UsageError(f"{key}.class_path {class_path!r}: {error}{hint}") from None
    found = getattr(module, name, None)
    if found is None:
        classes = [n for n, value in vars(module).items() if isinstance(value, type) and issubclass(value, base)]
        raise UsageError(f"{key}.class_path: {module_name} has no {name!r}{nearest(name, classes)}")
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UsageError(f"{key}.class_path {class_path!r}: not a {base.__name__}")
    arguments = component.get("init_args") or {}
    _check_numbers(found, arguments, key)
    try:
        return found(**arguments)
    except SettingError as error:  # the class knows its argument only
        raise SettingError(f"{key}.init_args.{error.key}", error.problem) from None
    except TypeError as error:
        raise UsageError(f"{key}.init_args: {error}") from None


def _check_numbers(kind: type, arguments: dict[str, Any], key: str) -> None:
    """Raise UsageError where a number among a class's arguments is out of the bounds of its type."""
    try:
        declared = inspect.signature(kind, eval_str=True).parameters
    except (NameError, TypeError, ValueError):  # a class of the user's, whose annotations are their own affair
        return
    for name, value in arguments.items():
        if name in declared and (problem := problem_of(declared[name].annotation, value)):
            raise UsageError(f"{key}.init_args.{name}: {problem}")


@contextmanager
def own_code(key: str, component: object, method: str) -> Iterator[None]:
    """Within the block, which calls a method of a component, an error of a user's own class is one line with its place.

    Args:
        key: config key of the component.
        component: the object.
        method: what is called.

    Raises:
        UserError: what the class raised, where it is not one of this package.
    """
    try:
        yield
    except (UserError, Stopped):
        raise
    except Exception as error:
        kind = type(component)
        if kind.__module__.startswith("sipo_pl."):
            raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"{key}: {kind.__name__}.{method}: {said} ({place})") from error
