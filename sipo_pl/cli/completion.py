"""Command completion: a script that lets a shell complete commands and options."""

import argparse
import importlib
from typing import Any, Literal


def completion(shell: Literal["bash", "zsh", "tcsh"]) -> None:
    """Print a script that lets a shell complete commands, options and files.

    Args:
        shell: which shell
    """
    import shtab

    print(shtab.complete(_program(shtab.FILE), shell))


def _program(file: Any) -> argparse.ArgumentParser:
    """Return one parser of all commands, with their options as they are completed."""
    from sipo_pl.cli.main import COMMANDS, TRAINER_COMMANDS
    from sipo_pl.interop.jsonargparse import parser_actions
    from sipo_pl.recipe.config.command_parser import build_parser

    program = argparse.ArgumentParser("sipo_pl")
    commands = program.add_subparsers(dest="command")
    for name, (target, told) in COMMANDS.items():
        module, _, function = target.partition(":")
        own = build_parser(name, getattr(importlib.import_module(module), function))
        _add(commands.add_parser(name, help=told), parser_actions(own), file)
    for name, told in TRAINER_COMMANDS.items():
        _add(commands.add_parser(name, help=told), _trainer_actions(), file)
    return program


def _trainer_actions() -> list[argparse.Action]:
    """Return the options that all trainer commands have; the others depend on the stage."""
    from jsonargparse import ArgumentParser

    from sipo_pl.interop.jsonargparse import parser_actions
    from sipo_pl.recipe.config.command_parser import add_overwrite, add_recipe

    parser = ArgumentParser("sipo_pl")
    parser.add_argument("-c", "--config", help="YAML file of a stage")
    parser.add_argument("--stage", help="stage that the options belong to")
    parser.add_argument("--objective", help="objective whose policy is trained")
    parser.add_argument("--policies", choices=["align", "realign"], help="policies that are evaluated")
    parser.add_argument("--print_config", action="store_true", help="print what the stage would use")
    add_recipe(parser)
    add_overwrite(parser)
    return parser_actions(parser)


def _add(parser: argparse.ArgumentParser, actions: list[argparse.Action], file: Any) -> None:
    for action in actions:
        names = [name for name in action.option_strings if name not in ("-h", "--help")]
        if not names or action.help is argparse.SUPPRESS or ("." in names[-1] and "help" in names[-1]):
            continue
        flag = action.nargs == 0
        kind: dict[str, Any] = {"action": "store_true"} if flag else {"choices": _choices(action)}
        made = parser.add_argument(*names, help=(action.help or "").replace("%", "%%"), **kind)
        if not flag and kind["choices"] is None:
            made.complete = file  # type: ignore[attr-defined]


def _choices(action: argparse.Action) -> list[str] | None:
    if action.choices:
        return [str(choice) for choice in action.choices]
    from typing import get_args, get_origin

    from sipo_pl.interop.jsonargparse import type_of

    hint = type_of(action)
    for one in (hint, *get_args(hint)):
        if get_origin(one) is Literal:
            return [str(choice) for choice in get_args(one)]
    return None
