"""Checks of a recipe that need no model and no data, so that they come before all work."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

from sipo_pl.messages.errors import SettingError, UsageError, nearest
from sipo_pl.recipe.data_checks import check_data
from sipo_pl.recipe.methods import BASELINE
from sipo_pl.recipe.recipe import Recipe, Template
from sipo_pl.registry import METHODS, SWITCHES

FIELD = "raw_prompt"
ADAPTER_CONFIG = "adapter_config.json"
_NAME = re.compile(r"\w[\w.-]*")


def check_recipe(recipe: Recipe) -> None:
    """Check objectives, their adapters, weights, template, data and switches.

    Raises:
        SettingError: naming the key, what was found and, where there is one, the nearest right name.
    """
    _check_objectives(recipe)
    for key in ("sample_weights", "evaluate_weights"):
        try:
            getattr(recipe, key).resolve(recipe.objective_names)
        except UsageError as error:
            raise SettingError(key, str(error)) from None
    check_template(recipe.template)
    for name in recipe.stages:
        if name not in SWITCHES:
            raise SettingError("stages", f"no stage {name!r}{nearest(name, SWITCHES)}")
    _check_rounds(recipe)
    _check_places(recipe)
    if recipe.methods:
        _check_comparison(recipe)
    marked = recipe.template.kind == "plain" and not recipe.template.pattern.endswith(f"{{{FIELD}}}")
    if recipe.compat.search_markers and not marked:
        raise SettingError("compat.search_markers", "needs a plain template with text behind the prompt")
    check_data(recipe)


def check_template(template: Template) -> None:
    """Raise SettingError unless the text around a prompt holds the prompt's field and no other."""
    try:
        fields = [part[1:] for part in Formatter().parse(template.pattern) if part[1] is not None]
    except ValueError as error:
        raise SettingError("template.text", str(error)) from None
    if unknown := [name or "" for name, *_ in fields if name != FIELD]:
        raise SettingError("template.text", f"no field {{{unknown[0]}}}{nearest(unknown[0], [FIELD])}")
    if (FIELD, "", None) not in fields:
        raise SettingError("template.text", f"the field {{{FIELD}}} is missing")


def _check_rounds(recipe: Recipe) -> None:
    if recipe.rounds < 1:
        raise SettingError("rounds", f"at least one is needed, found {recipe.rounds}")
    if not 1 <= recipe.round <= recipe.rounds:
        raise SettingError("round", f"expected 1 to {recipe.rounds} (the recipe's rounds), found {recipe.round}")


def _check_places(recipe: Recipe) -> None:
    if recipe.compile and recipe.device_map is not None:
        raise SettingError("compile", "layers that device_map spreads over devices are not compiled")
    if recipe.quantize and recipe.compat.merged_reference:
        raise SettingError("quantize", "compat.merged_reference merges into the base's weights, which are in four bits")


def _check_comparison(recipe: Recipe) -> None:
    for name in recipe.methods:
        if name not in METHODS:
            raise SettingError("methods", f"no method {name!r}{nearest(name, METHODS)}")
    if BASELINE not in recipe.methods:
        raise SettingError("methods", f"{BASELINE} is missing, which the others are compared with prompt by prompt")
    if repeated := [name for name, count in Counter(recipe.methods).items() if count > 1]:
        raise SettingError("methods", f"{repeated[0]} appears twice")
    for objective in recipe.objectives:
        if objective.reward is None:
            raise SettingError("objectives", f"{objective.name!r} has no reward, which measures all methods alike")
        if objective.base_model is not None:
            raise SettingError("objectives", f"{objective.name!r}: methods are compared over one base_model")


def _check_objectives(recipe: Recipe) -> None:
    names = recipe.objective_names
    if len(names) < 2:
        raise SettingError("objectives", f"at least two are needed, found {len(names)}: {', '.join(names) or 'none'}")
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise SettingError("objectives", f"the name {repeated[0]!r} appears {names.count(repeated[0])} times")
    for name in names:
        if not _NAME.fullmatch(name):  # it names folders, and weights are written name=0.5,name=0.5
            raise SettingError("objectives", f"the name {name!r} holds more than letters, digits and _ . -")
    for objective in recipe.objectives:
        if objective.adapter is not None and not (Path(objective.adapter) / ADAPTER_CONFIG).is_file():
            known = nearest(objective.adapter, _adapters_near(Path(objective.adapter)))
            problem = (
                f"adapter of {objective.name!r}: no PEFT adapter in {objective.adapter!r} ({ADAPTER_CONFIG} is missing)"
            )
            raise SettingError("objectives", f"{problem}{known}")


def _adapters_near(folder: Path) -> Iterator[str]:
    """Yield the folders beside, above and below `folder` that hold an adapter."""
    for pattern in (f"*/{ADAPTER_CONFIG}", f"*/*/{ADAPTER_CONFIG}"):
        for root in (folder, folder.parent, folder.parent.parent):
            yield from (str(file.parent) for file in root.glob(pattern))
