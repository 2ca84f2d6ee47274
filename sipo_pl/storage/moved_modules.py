"""Modules that moved: their earlier names, in configs, manifests and other people's code, mean the new ones.

A class path such as ``sipo_pl.losses.DPO`` stands in recipes, in recorded configs and in manifests that were written
before the move, and custom losses import from ``sipo_pl.losses``. All of them go on.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

PACKAGE = "sipo_pl"
MOVED = {  # earlier name -> present name, below the package; those that documents named, with all that is below them
    "api": "use.api",
    "artifacts": "storage",
    "components": "recipe.components",
    "divergences": "method.divergences",
    "errors": "messages.errors",
    "functions": "use.functions",
    "fusion": "method.fusion",
    "losses": "method.losses",
    "selection": "method.selection",
    "weights": "method.weights",
    "zero": "training.zero",
}


def current_name(name: str) -> str:
    """Return the present name of a module, or of what is in one, whose earlier name this may be."""
    package, _, inside = name.partition(".")
    first, dot, rest = inside.partition(".")
    return f"{package}.{MOVED[first]}{dot}{rest}" if package == PACKAGE and first in MOVED else name


def with_current_names(value: Any) -> Any:
    """Return a JSON-like value in which each `class_path`, at any depth, has its present name."""
    if isinstance(value, dict):
        return {
            key: current_name(one) if key == "class_path" and isinstance(one, str) else with_current_names(one)
            for key, one in value.items()
        }
    return [with_current_names(one) for one in value] if isinstance(value, list) else value


class MovedModules(MetaPathFinder, Loader):
    """Finds a module under its earlier name: it is the very module of the present name, not a copy."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module that moved, None for all others."""
        return spec_from_loader(fullname, self) if current_name(fullname) != fullname else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module of the present name."""
        module = importlib.import_module(current_name(spec.name))
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module back its own spec, which the import under another name replaced."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def install() -> None:
    """Let imports find modules under their earlier names. Call once."""
    if not any(isinstance(one, MovedModules) for one in sys.meta_path):
        sys.meta_path.insert(0, MovedModules())
