"""The settings of a stage: its config files and options, read once, by the parser that the stage itself uses.

`run`, its check before the first stage, `--estimate`, `inspect` and the stage all ask here, so that they see the same
values, defaults included.
"""

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from sipo_pl.messages.errors import SettingError, UsageError
from sipo_pl.method.weights import parse_point, point_name
from sipo_pl.recipe.components import import_class
from sipo_pl.recipe.config.command_parser import build_parser, make_recipe, read_options
from sipo_pl.recipe.config.errors import find_place
from sipo_pl.recipe.config.files import RECIPE_FILE, find_config, has_file
from sipo_pl.recipe.config.keys import check_config_files, check_stage
from sipo_pl.recipe.config.trainer_arguments import check_trainer_arguments
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.registry import DEFAULT_STAGE, SMALL_STAGES, STAGES, TRAINER_STAGES


@dataclass(frozen=True)
class Settings:
    """What a stage's command asks for.

    Args:
        verb: the command: fit, predict, …, or the stage's own name
        stage: name of the stage, such as align
        values: every option of the stage's parser, given or not
        recipe: what the stages share, checked
        parser: what read them
    """

    verb: str
    stage: str
    values: Namespace
    recipe: Recipe
    parser: ArgumentParser

    def __getitem__(self, key: str) -> Any:
        """Return the value of an option by its dotted name, such as ``model.lora.r``; None where the stage has none."""
        return self.values.get(key)

    @property
    def folder_name(self) -> str:
        """Return the name of the stage's folder, such as align-helpful, within its round's."""
        if self.stage not in TRAINER_STAGES:
            return self.stage
        values = dict(self.values)
        if "weights" in values:  # a point may be written in several ways
            values["weights"] = point_name(parse_point(values["weights"], self.recipe.objective_names))
        return TRAINER_STAGES[self.stage].folder_name(values)

    @property
    def arguments(self) -> dict[str, Any]:
        """Return the arguments of a small stage's function, less `overwrite`."""
        names = inspect.signature(stage_function(self.stage)).parameters.keys() - {"overwrite"}
        return {name: self.recipe if name == "recipe" else self.values[name] for name in names}

    def plain(self) -> dict[str, Any]:
        """Return all values as a config file would hold them."""
        found: dict[str, Any] = yaml.safe_load(self.parser.dump(self.values, skip_none=False, skip_link_targets=True))
        return found

    def instantiate(self) -> Namespace:
        """Return the values with the objects that they describe, such as ``model`` and ``data`` of a trainer stage.

        Raises:
            UsageError: what the objects refuse; no file is touched and no model is loaded.
        """
        from lightning.pytorch import LightningDataModule, LightningModule

        # a link would do, but the parser makes the source of a link before the dataclasses inside it
        for kind in (LightningModule, LightningDataModule):
            self.parser.add_instantiator(partial(_with_recipe, self.recipe), kind, subclasses=True)
        return self.parser.instantiate_classes(self.values)


def _with_recipe(recipe: Recipe, kind: type, *arguments: Any, **keywords: Any) -> Any:
    return kind(*arguments, recipe=recipe, **keywords)


def resolve(verb: str, arguments: Sequence[str]) -> Settings:
    """Return the settings of a stage's command.

    Args:
        verb: fit, validate, test, predict, or the name of a small stage.
        arguments: the options, config files among them, as ``--config align.yaml --objective helpful``.

    Raises:
        UsageError: anything that the parser or the recipe's checks refuse, in one line that names file and key.
    """
    stage = check_stage(verb, arguments) or DEFAULT_STAGE.get(verb, verb)
    parser = stage_parser(verb, stage)
    check_config_files(arguments, parser)
    values = read_options(parser, arguments)
    if "trainer" in values:
        try:
            check_trainer_arguments(vars(values.trainer), verb)
        except SettingError as error:
            raise UsageError(f"{find_place(error.key, arguments)}: {error.problem}") from None
    recipe = make_recipe(values.recipe, lambda key: find_place(f"recipe.{key}", arguments))
    return Settings(verb, stage, values, recipe, parser)


def config_options(stage: str, recipe_name: str) -> list[str]:
    """Return the options that name a stage's config, which lies beside its recipe; all is default where it is missing.

    Args:
        stage: name of the config file, without suffix.
        recipe_name: path of the recipe, or the bare name of a shipped one.
    """
    config = Path(recipe_name).with_name(f"{stage}.yaml")
    if has_file(str(config)) or config.with_name(RECIPE_FILE) == Path(recipe_name):
        return ["--config", str(config)]
    return ["--stage", stage, "--recipe", str(find_config(recipe_name))]


def stage_parser(verb: str, stage: str) -> ArgumentParser:
    """Return a parser of a stage's options, which the caller may change."""
    if stage in SMALL_STAGES:
        return copy.deepcopy(_small_parser(stage))
    from sipo_pl.recipe.config.trainer_parser import trainer_parser

    return trainer_parser(verb, stage)


@cache
def _small_parser(stage: str) -> ArgumentParser:
    return build_parser(stage, stage_function(stage))


def stage_function(stage: str) -> Callable[..., None]:
    """Return the function of a small stage."""
    function: Callable[..., None] = import_class(STAGES[stage].target.replace(":", "."))
    return function
