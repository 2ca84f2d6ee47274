"""Which class fuses the policies of a folder, and whether its code may be imported."""

import re
from typing import Any

from sipo_pl.messages.errors import UsageError, UserError
from sipo_pl.method.divergences import Divergence
from sipo_pl.recipe.components import instantiate
from sipo_pl.recipe.recipe import Component
from sipo_pl.storage.moved_modules import current_name

PACKAGE = "sipo_pl.method.divergences."
_CLASS_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def class_path_of(divergence: Divergence) -> str:
    """Return the import path of a divergence's class."""
    return f"{type(divergence).__module__}.{type(divergence).__name__}"


def is_shipped(class_path: str) -> bool:
    """Return whether a class is one of this package's divergences, also under an earlier name."""
    return current_name(class_path).startswith(PACKAGE)


def named_by_user(component: Component, class_path: str | None, where: str) -> Component:
    """Return a folder's divergence with the import path that the user gives for its class, if any.

    The class keeps its name, since policies are fused by the divergence that they were trained with. Its module may be
    another one, because modules are moved and renamed.

    Args:
        component: what the folder names.
        class_path: what the user names.
        where: the folder or its file, for errors.

    Raises:
        UsageError: a class of another name.
    """
    if class_path is None:
        return component
    found = str(component.get("class_path"))
    if class_path.rpartition(".")[2] != found.rpartition(".")[2]:
        raise UsageError(f"--divergence {class_path}: {where} names the divergence {found!r}, and no class replaces it")
    return {**component, "class_path": class_path}


def exported_divergence(component: Component, class_path: str | None, where: str) -> Divergence:
    """Return the divergence of exported policies, whose file may come from anywhere and must not choose code.

    Args:
        component: what the file names: a class of this package, or one that the user names as well.
        class_path: what the user names.
        where: the file, for errors.

    Raises:
        UserError: a class from elsewhere that the user has not named.
        UsageError: the user named another class, or there is no such class.
    """
    found: Any = component.get("class_path")
    if not isinstance(found, str) or not _CLASS_PATH.fullmatch(found):
        raise UserError(f"{where}: divergence.class_path: expected the import path of a class, found {found!r}")
    if class_path is None and not is_shipped(found):
        raise UserError(
            f"{where}: the divergence {found} is not part of sipo_pl, so its code is not run unless you name it: "
            f'--divergence {found}, or load(..., divergence="{found}") in Python'
        )
    chosen = named_by_user(component, class_path, where)
    return instantiate(chosen, Divergence, f"{where}: divergence")  # type: ignore[type-abstract]
