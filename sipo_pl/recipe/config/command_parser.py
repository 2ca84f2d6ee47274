"""Options of the small commands: the typed arguments of their functions, with the docstrings as help."""

import argparse
import inspect
import json
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, get_args, get_origin

import docstring_parser
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from sipo_pl.interop.jsonargparse import parser_options
from sipo_pl.interop.numbers import PositiveInt
from sipo_pl.messages.errors import SettingError, UsageError
from sipo_pl.recipe.checks import check_recipe
from sipo_pl.recipe.config.errors import explain, find_place
from sipo_pl.recipe.config.files import RECIPE_FILE, find_config, load_yaml
from sipo_pl.recipe.config.keys import check_config_files, check_stage
from sipo_pl.recipe.recipe import Recipe


class ShippedConfigFile(ActionConfigFile):
    """Takes a path or the bare name of a shipped config."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        super().__call__(parser, cfg, self._found(values) if isinstance(values, str) else values, option_string)

    @staticmethod
    def _found(name: str) -> str:
        """Return the path of a config file; of a stage's that is missing, the text that it stands for."""
        path = find_config(name)
        if path.is_file():
            return str(path)
        return json.dumps({**load_yaml(path), "recipe": str(path.with_name(RECIPE_FILE).absolute())})


STRICT: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False}  # of every parser
OPTION_OF = {"first": "from"}  # a keyword of the language cannot name an argument
# keys of a recipe that are no longer known -> the value that still means what is done, and what is said of any other
REMOVED = {
    "align": ("one_by_one", "together was removed; fits run one after another, or at once with `run --side_by_side 2`")
}


def build_parser(command: str, function: Callable[..., Any]) -> ArgumentParser:
    """Return the parser of a small command, made of the typed arguments and the docstring of its function."""
    description = (inspect.getdoc(function) or "").split("\n")[0]
    parser = ArgumentParser(prog=f"sipo_pl {command}", description=description, **STRICT)
    if command in OWN_OPTIONS:
        OWN_OPTIONS[command](parser, function)
        return parser
    help_text = "YAML file, or the bare name of a shipped one; a later one overrides"
    parser.add_argument("-c", "--config", action=ShippedConfigFile, help=help_text)
    parser.add_argument("--stage", type=str, default=command, help="stage that this config belongs to")
    parser.add_function_arguments(function, skip={"recipe", "overwrite"})
    add_overwrite(parser)
    add_recipe(parser)
    return parser


def parse(command: str, function: Callable[..., Any], options: list[str]) -> dict[str, Any]:
    """Parse the options of a small command that is no stage of a run into the arguments of its function.

    Raises:
        UsageError: anything that the parser refuses, in one line that names file and key.
    """
    parser = build_parser(command, function)
    if command not in OWN_OPTIONS:  # it takes a recipe, perhaps by the config of a stage
        check_stage(command, options)
        check_config_files(options, parser)
    values = read_options(parser, options)
    if "recipe" in values:
        values["recipe"] = make_recipe(values["recipe"], lambda key: find_place(f"recipe.{key}", options))
    return {name: values[OPTION_OF.get(name, name)] for name in inspect.signature(function).parameters}


def read_options(parser: ArgumentParser, options: Sequence[str]) -> Namespace:
    """Return what a parser makes of options and of the config files that they name.

    Raises:
        UsageError: anything that the parser refuses, in one line that names file and key.
    """
    try:
        return parser.parse_args(list(options))
    except argparse.ArgumentError as error:
        raise explain(error, options, parser_options(parser)) from None


def add_recipe(parser: ArgumentParser) -> None:
    """Add the recipe's options to a parser, as `--recipe FILE` and `--recipe.KEY`."""
    parser.add_class_arguments(Recipe, "recipe", sub_configs=True, help="what all stages of a run share")
    _add_removed(parser, "recipe.")


def add_overwrite(parser: ArgumentParser) -> None:
    """Add the option of every stage that makes it anew."""
    parser.add_argument("--overwrite", action="store_true", help="remove what the stage's folder holds")


def add_stop_after(parser: ArgumentParser) -> None:
    """Add the option of a time limit."""
    parser.add_argument("--stop_after", type=str, help="stop at the first border after a time such as 3h50m, exit 75")


@cache
def recipe_parser() -> ArgumentParser:
    """Return the parser of a recipe alone, with `--config FILE` and `--KEY`."""
    parser = ArgumentParser(**STRICT)
    parser.add_argument("-c", "--config", action=ShippedConfigFile)
    parser.add_class_arguments(Recipe, None, sub_configs=True)
    _add_removed(parser, "")
    return parser


def _add_removed(parser: ArgumentParser, group: str) -> None:
    """Add the keys of a recipe that earlier versions knew and wrote into configs; no help shows them."""
    for key in REMOVED:
        parser.add_argument(f"--{group}{key}", type=str, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def make_recipe(values: Namespace, find: Callable[[str], str]) -> Recipe:
    """Return the recipe that parsed values describe, checked.

    Args:
        values: what a parser read; a key that is no longer known is taken out.
        find: returns where a key of the recipe stands, for errors: the option, or file and line.

    Raises:
        UsageError: a recipe that cannot be right.
    """
    for key, (kept, problem) in REMOVED.items():
        if values.pop(key, kept) != kept:
            raise UsageError(f"{find(key)}: {problem}")
    made = recipe_parser().instantiate(values)
    recipe = Recipe(**{key: value for key, value in vars(made).items() if key != "config"})
    try:
        check_recipe(recipe)
    except SettingError as error:
        raise UsageError(f"{find(error.key)}: {error.problem}") from None
    return recipe


def _add_run_options(parser: ArgumentParser, function: Callable[..., Any]) -> None:
    """Add the options of `run`, some of which may be given several times."""
    add = parser.add_argument
    add("-c", "--config", action="append", required=True, help="the recipe; then overlays {recipe: {…}, align: {…}}")
    add("--only", nargs="+", help="stages to run and no others")
    add("--from", type=str, help="stage to begin at")
    add("--until", type=str, help="last stage to run")
    add("--limit", type=PositiveInt, help="smoke run on this many pairs or prompts of each split")
    add("--set", action="append", help="a setting, such as align.model.lora.r=8 or recipe.seed=3; may be repeated")
    add(
        "--dry_run",
        action="store_true",
        help="print each stage's command, check its settings, and run nothing",
    )
    add_stop_after(parser)
    help_text = "so many fits at once, where none needs another one, each on an equal share of the GPUs"
    add("--side_by_side", type=PositiveInt, default=1, help=help_text)
    help_text = "print what each stage will take and run nothing, on the device that is here, or on one such as h200"
    add("--estimate", nargs="?", const="here", type=str, help=help_text)
    add("--overwrite", action="store_true", help="make the stages that are run anew, whatever their folders hold")


def _add_typed_options(parser: ArgumentParser, function: Callable[..., Any]) -> None:
    """Add an option for each argument: lists take several words, and what is false unless asked for takes none."""
    found = inspect.signature(function, eval_str=True).parameters.values()
    flags = {one.name for one in found if one.default is False}
    lists = {one.name: kind for one in found if (kind := _item_of(one.annotation)) is not None}
    parser.add_function_arguments(function, skip={*flags, *lists})
    told = {one.arg_name: one.description for one in docstring_parser.parse(inspect.getdoc(function) or "").params}
    for name, kind in lists.items():
        parser.add_argument(f"--{name}", nargs="+", type=kind, help=_one_line(told[name]))
    for name in sorted(flags):
        parser.add_argument(f"--{name}", action="store_true", help=_one_line(told[name]))


def _item_of(annotation: Any) -> Any:
    """Return the type of the items of `list[T] | None`; None for other types."""
    lists = [one for one in get_args(annotation) if get_origin(one) is list]
    return get_args(lists[0])[0] if lists else None


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


# commands that are no stage of a run
OWN_OPTIONS = {
    "run": _add_run_options,
    **dict.fromkeys(
        ("merge", "export", "chat", "serve", "inspect", "recipes", "clean", "env", "completion"), _add_typed_options
    ),
}
