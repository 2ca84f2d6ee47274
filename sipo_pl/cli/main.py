"""The command table: names, help, exit codes. Arguments only; what is heavy is imported inside a command.

Exit codes: 0 done, 1 failed, 2 wrong use, 75 stopped and resumable.
"""

import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from sipo_pl import __version__
from sipo_pl.messages import ranks, streams
from sipo_pl.messages.errors import Stopped, UsageError, UserError, closest, did_you_mean, nearest
from sipo_pl.messages.exit_codes import DONE, FAILED, RESUMABLE, WRONG_USE
from sipo_pl.registry import PLACES, SMALL_STAGES, STAGES, VERBS, command_of
from sipo_pl.run.lifetime import die_with_parent
from sipo_pl.storage.stopping import SIGNALS, interruptible, note_early

DEBUG_VARIABLE = "SIPO_PL_DEBUG"

TRAINER_COMMANDS = VERBS
COMMANDS = {
    "run": ("sipo_pl.run.runner:run", "all stages of a recipe, in order, skipping what is complete"),
    **{name: (STAGES[name].target, STAGES[name].help) for name in SMALL_STAGES},
    "export_pairs": ("sipo_pl.commands.export_pairs:export_pairs", "prepared pairs as preference data in TRL's format"),
    "merge": (
        "sipo_pl.commands.merge:merge",
        "an adapter merged into its base model, or models averaged, for other tools",
    ),
    "chat": ("sipo_pl.commands.chat:chat", "talk with the policies of a run, fused at weights that may change"),
    "serve": (
        "sipo_pl.commands.serve:serve",
        "the policies of a run behind OpenAI's HTTP interface, with a weight per request, and a page",
    ),
    "inspect": ("sipo_pl.commands.inspect:inspect", "a row of a stage's data as the model sees it"),
    "recipes": ("sipo_pl.commands.recipes:recipes", "the shipped recipes, and a copy of one to begin with"),
    "clean": ("sipo_pl.commands.clean:clean", "what a run folder no longer needs"),
    "env": ("sipo_pl.commands.env:env", "versions and hardware, for bug reports"),
    "completion": ("sipo_pl.cli.completion:completion", "a script that lets a shell complete commands and options"),
    "export": ("sipo_pl.commands.export:export", "a weight of a finished run as models for other tools"),
}


def entry() -> None:
    """Run the console script."""
    note_early()
    if "LOCAL_RANK" in os.environ:  # one of several devices, started by the first or by a launcher
        die_with_parent()
    is_child = ranks.is_child()
    code = main()
    for number in SIGNALS:  # the work is done, and the exit code says how
        signal.signal(number, signal.SIG_IGN)
    if code != DONE and is_child:
        ranks.end_first()
    if code == RESUMABLE and "torch" in sys.modules:  # interrupted perhaps in its import, it may crash as Python ends
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code.

    Args:
        arguments: the command and its options; those of the process where not given.
    """
    code = DONE
    streams.settle()
    with streams.quiet_end():
        code = _main(list(sys.argv[1:] if arguments is None else arguments))
    return code


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return DONE if arguments else WRONG_USE
    if arguments[0] in ("-V", "--version"):
        print(f"sipo_pl {__version__}")
        return DONE
    return guarded(_run, arguments)


def check() -> int:
    """Check the command of the process, its options and config files, without running it; return the exit code."""
    streams.settle()
    return guarded(_check, sys.argv[1:])


def guarded(work: Callable[[str, list[str]], int], arguments: list[str]) -> int:
    """Do a command's work, given its name and options; say what goes wrong in one line and return the exit code."""
    from sipo_pl.messages import logs

    logs.set_up()
    log = logging.getLogger("sipo_pl")
    command = arguments[0]
    asked = False
    try:
        _check_interpreter()
        with interruptible() as interruption:
            try:
                return work(command, arguments[1:])
            finally:
                asked = interruption.number is not None
    except Stopped as stop:
        if not ranks.is_first():
            return DONE  # the first device speaks; to a launcher another code would be a crash
        log.error("sipo_pl %s: %s; the same command goes on from here", command, stop)
        return RESUMABLE
    except KeyboardInterrupt:
        log.error("sipo_pl %s: stopped; the same command goes on from here", command)
        return RESUMABLE
    except (Exception, SystemExit) as error:
        if asked:  # what a library made of the interruption
            log.debug("sipo_pl %s was interrupted", command, exc_info=True)
            log.error("sipo_pl %s: stopped; the same command goes on from here", command)
            return RESUMABLE
        if isinstance(error, BrokenPipeError) and streams.forget():
            return DONE  # nobody reads what it says
        if isinstance(error, UserError):
            log.error("sipo_pl %s: %s", command, error)
            return WRONG_USE if isinstance(error, UsageError) else FAILED
        if isinstance(error, SystemExit) or os.environ.get(DEBUG_VARIABLE):
            raise
        log.debug("sipo_pl %s failed", command, exc_info=True)
        log.error("sipo_pl %s: %s: %s (%s=1 shows where)", command, type(error).__name__, error, DEBUG_VARIABLE)
        return FAILED


def _check_interpreter() -> None:
    """Refuse settings of the interpreter under which the libraries fail, in words of theirs or none."""
    if sys.flags.optimize > 1:
        raise UsageError(
            "PYTHONOPTIMIZE=2, or python -OO: the libraries need their docstrings; unset it, or set it to 1"
        )
    for option in sys.warnoptions:
        action = option.partition(":")[0].strip()
        if action and "error".startswith(action):
            raise UsageError(
                f"PYTHONWARNINGS={option}, or python -W: the libraries warn as they are imported; unset it"
            )


def _run(command: str, options: list[str]) -> int:
    if command in TRAINER_COMMANDS:
        from sipo_pl.cli import trainer

        return trainer.main([command, *options])
    if command not in COMMANDS:
        raise UsageError(f"no such command{_meant(command)}")
    if command in SMALL_STAGES:
        return _small_stage(command, options)
    function, values = _parse_small(command, options)
    return function(**values) or DONE


def _meant(command: str) -> str:
    """Say which command was meant by a word that is none: the nearest one, or that of the nearest stage."""
    commands = [*TRAINER_COMMANDS, *COMMANDS]
    found = closest(command, [*commands, *STAGES, *PLACES])
    if found in commands:
        return did_you_mean(found)
    return f"; the stage {found} is run by: {command_of(found)}" if found else nearest(command, commands)


def _check(command: str, options: list[str]) -> int:
    if command in (*TRAINER_COMMANDS, *SMALL_STAGES):
        from sipo_pl.run.stage_check import check_command

        check_command(command, options)
    else:
        _parse_small(command, options)
    return DONE


def _small_stage(stage: str, options: list[str]) -> int:
    from sipo_pl.recipe.config.resolve import resolve, stage_function

    settings = resolve(stage, options)
    stage_function(stage)(**settings.arguments, overwrite=settings["overwrite"])
    return DONE


def _parse_small(command: str, options: list[str]) -> tuple[Callable[..., int | None], dict[str, Any]]:
    from sipo_pl.recipe.config.command_parser import parse

    module, _, name = COMMANDS[command][0].partition(":")
    function = getattr(importlib.import_module(module), name)
    return function, parse(command, function, options)


def _overview() -> str:
    table = {**TRAINER_COMMANDS, **{name: text for name, (_, text) in COMMANDS.items()}}
    order = ["run", *(name for name in table if name != "run")]
    lines = [f"  {name:<14}{table[name]}" for name in order]
    return "\n".join(
        [
            "usage: sipo_pl COMMAND [options]   (sipo_pl COMMAND --help for its options)",
            "",
            "SIPO: self-improvement towards Pareto optimality, on PyTorch Lightning.",
            "",
            "commands:",
            *lines,
            "",
            "start: sipo_pl run --config quickstart/recipe.yaml",
        ]
    )
