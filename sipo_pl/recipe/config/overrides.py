"""Settings given to a run as a whole, handed on to its stages as options of their commands."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

import yaml

from sipo_pl.interop.jsonargparse import as_free_option, as_option, as_yaml, parser_options
from sipo_pl.messages.errors import UsageError, nearest
from sipo_pl.recipe.config.command_parser import make_recipe, recipe_parser
from sipo_pl.recipe.config.errors import explain, find_place
from sipo_pl.recipe.config.files import find_config, load_yaml
from sipo_pl.recipe.config.keys import check_config_files, refuse_stage_config
from sipo_pl.recipe.recipe import Objective, Recipe
from sipo_pl.registry import SMALL_STAGES, TRAINER_STAGES

RECIPE = "recipe"
BY_OBJECTIVE = ("data.train", "data.validation", "data.test")  # a mapping of these is one value


class _Written(str):
    """The value of a setting as the command line has it; the parser, which knows the type of the key, reads it."""


@dataclass(frozen=True)
class Overrides:
    """Settings by target, a stage's config or the recipe.

    Args:
        values: (target, dotted key, value), later ones win
    """

    values: tuple[tuple[str, str, Any], ...]

    @classmethod
    def gather(cls, overlays: Sequence[str], settings: Sequence[str], limit: int | None) -> "Overrides":
        """Gather overlays (files of the form {recipe: {...}, align: {...}}) and settings ``align.model.lora.r=8``.

        Raises:
            UsageError: an unknown target, or a setting without a value.
        """
        found: list[tuple[str, str, Any]] = []
        for name in overlays:
            path = find_config(name)
            for target, values in load_yaml(path).items():
                _check_target(target, str(path))
                if not isinstance(values, dict):
                    raise UsageError(f"{path}: {target}: expected keys and values, found {type(values).__name__}")
                found += [(target, key, value) for key, value in _leaves(values)]
        for setting in settings:
            key, equals, text = setting.partition("=")
            target, _, rest = key.partition(".")
            if not equals or not rest:
                raise UsageError(f"--set {setting!r}: expected STAGE.KEY=VALUE, such as align.model.lora.r=8")
            _check_target(target, f"--set {setting!r}")
            found.append((target, rest, _Written(text)))
        if limit is not None:
            found.append((RECIPE, "limit", limit))
        return cls(tuple((target, key, _whole(target, key, value)) for target, key, value in found))

    def options(self, stage: str) -> list[str]:
        """Return the options of a stage's command."""
        words = []
        for target, key, value in self.values:
            if target == RECIPE:
                words += _option(f"--recipe.{key}", value, is_free=_in_component(key))
            elif target == stage:
                words += _option(f"--{key}", value)
        return words

    def recipe_options(self) -> list[str]:
        """Return the options of a parser of the recipe alone."""
        return [
            word
            for t, key, value in self.values
            if t == RECIPE
            for word in _option(f"--{key}", value, _in_component(key))
        ]


def parse_recipe(name: str, overrides: Overrides) -> Recipe:
    """Read a recipe file with overrides.

    Raises:
        UsageError: anything that the parser refuses, in one line that names file and key.
    """
    parser = recipe_parser()
    words = ["--config", name, *overrides.recipe_options()]
    refuse_stage_config(name)
    check_config_files(words, parser)
    try:
        values = parser.parse_args(words)
    except argparse.ArgumentError as error:
        raise explain(error, words, parser_options(parser), f"{RECIPE}.") from None
    return make_recipe(values, lambda key: find_place(key, words, group=f"{RECIPE}."))


def _check_target(target: str, where: str) -> None:
    known = (RECIPE, *TRAINER_STAGES, *SMALL_STAGES)
    if target not in known:
        raise UsageError(f"{where}: no stage {target!r}{nearest(target, known)}")


def _leaves(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves = []
    for key, value in values.items():
        if isinstance(value, dict) and value and "class_path" not in value and f"{prefix}{key}" not in BY_OBJECTIVE:
            leaves += _leaves(value, f"{prefix}{key}.")
        else:
            leaves.append((f"{prefix}{key}", value))
    return leaves


def _whole(target: str, key: str, value: Any) -> Any:
    """Return objectives with all of their fields: what one lacks would be taken from the recipe's in the same place."""
    if (target, key) != (RECIPE, "objectives"):
        return value
    if isinstance(value, _Written):
        try:
            value = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(f"--set {target}.{key}: not YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(value, list):
        return value
    unset = {one.name: one.default for one in fields(Objective) if one.default is not MISSING}
    return [unset | one if isinstance(one, dict) else one for one in value]


def _in_component(key: str) -> bool:
    """Return whether a key of the recipe is an argument of a component, whose type the parser does not know."""
    return ".init_args." in key


def _option(name: str, value: Any, is_free: bool = False) -> list[str]:
    """Return the words of an option which the parser reads as the value."""
    text = str(value) if isinstance(value, str) else as_yaml(value)  # the parser takes a `str` alone for a text
    if isinstance(value, str) and not isinstance(value, _Written):
        text = as_free_option(value) if is_free else as_option(value)
    return [f"{name}={text}"] if text.startswith("-") else [name, text]
