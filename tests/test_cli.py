"""The command line itself: help, versions, names, and that every option and every shipped config is in order."""

import argparse
import importlib
import importlib.metadata
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer
from tiny_run import Command, environment, write_recipe

import sipo_pl
from sipo_pl.cli import main as cli
from sipo_pl.recipe.config.command_parser import build_parser
from sipo_pl.recipe.config.resolve import resolve, stage_parser
from sipo_pl.registry import SMALL_STAGES, TRAINER_STAGES, verbs_of

HEAVY = ("torch", "transformers", "lightning", "datasets", "peft", "matplotlib", "pandas")
SNAPSHOT = Path(__file__).parent / "snapshots/options.txt"
WRITE_SNAPSHOT = "SIPO_PL_WRITE_SNAPSHOTS"  # set it to write the snapshot anew
CONFIGS = Path(sipo_pl.__file__).parent / "configs"
RECIPES = sorted(CONFIGS.glob("*/recipe.yaml"))
STAGE_CONFIGS = sorted(path for recipe in RECIPES for path in recipe.parent.glob("*.yaml") if path != recipe)
OF_A_RUN = {"evaluate", "measure", "report"}  # stages that a comparison has others for,
FITS_OF_A_COMPARISON = {"align_long", "consistency", "modpo", "dpo_lw", "raco", "reward_model"}
ALL_DEFAULT = {"prepare", "combine", "report", "calibrate", "compare"}  # their shipped configs would hold nothing
OF_A_COMPARISON = {"calibrate", *FITS_OF_A_COMPARISON, "answer", "judge", "compare"}


@pytest.fixture(scope="module")
def parsers() -> dict[str, ArgumentParser]:
    """Return the parser of every command, of a trainer command for each of its stages."""
    found = {
        f"{verb} --stage {stage}": stage_parser(verb, stage) for stage in TRAINER_STAGES for verb in verbs_of(stage)
    }
    for name, (target, _) in cli.COMMANDS.items():
        module, _, function = target.partition(":")
        found[name] = build_parser(name, getattr(importlib.import_module(module), function))
    return found


def actions(parser: ArgumentParser) -> Iterator[Any]:
    return (action for action in parser._actions if action.option_strings and action.help is not argparse.SUPPRESS)


# the program


def test_the_overview_names_every_command(command: Command) -> None:
    said = command("--help")
    assert said.code == 0
    for name in (*cli.TRAINER_COMMANDS, *cli.COMMANDS):
        assert f"\n  {name:<10}" in said.out
    assert command().code == 2


def test_the_module_runs_and_tells_its_version() -> None:
    words = [sys.executable, "-m", "sipo_pl", "--version"]
    said = subprocess.run(words, env=environment(), capture_output=True, text=True, check=True)
    assert said.stdout == f"sipo_pl {sipo_pl.__version__}\n"
    assert importlib.metadata.version("sipo_pl") == sipo_pl.__version__


@pytest.mark.parametrize(
    ("name", "guess"), [("fitt", "fit"), ("predcit", "predict"), ("rnu", "run"), ("fliter", "filter")]
)
def test_an_unknown_command_gets_the_nearest_name(command: Command, name: str, guess: str) -> None:
    said = command(name, "--config", "x.yaml")
    assert said.code == 2
    assert said.err == f"sipo_pl {name}: no such command; did you mean {guess!r}?\n"


def test_small_commands_say_their_help_and_plan_without_heavy_imports(tmp_path: Path, tiny_model: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model)
    calls = [["--help"], ["--version"], *([name, "--help"] for name in cli.COMMANDS), ["fitt"]]
    calls += [
        ["run", "--config", str(recipe), "--dry_run"],
        ["prepare", "--config", str(tmp_path / "prepare.yaml"), "-x"],
    ]
    program = f"""
import contextlib, io, json, sys
from sipo_pl.cli import main as cli
codes = []
for words in {calls!r}:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            codes.append(cli.main(words))
        except SystemExit as stopped:
            codes.append(stopped.code)
print(json.dumps([codes, [name for name in {HEAVY!r} if name in sys.modules]]))
"""
    said = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    )
    codes, imported = json.loads(said.stdout)
    assert imported == []
    assert codes == [*([0] * (2 + len(cli.COMMANDS))), 2, 0, 2]


@pytest.mark.parametrize("stage", ["align", "evaluate"])
def test_trainer_commands_say_their_help(command: Command, stage: str) -> None:
    said = command(verbs_of(stage)[0], "--stage", stage, "--help")
    assert said.code == 0
    assert "--recipe.base_model" in said.out
    assert ("--objective" in said.out) == (stage == "align")


# options


def test_every_option_has_a_line_of_help(parsers: dict[str, ArgumentParser]) -> None:
    bare = [
        f"{name}: {action.option_strings[-1]}"
        for name, parser in parsers.items()
        for action in actions(parser)
        if not (action.help or "").strip()
    ]
    assert bare == []


def test_no_option_may_be_shortened(parsers: dict[str, ArgumentParser]) -> None:
    assert [name for name, parser in parsers.items() if parser.allow_abbrev] == []


def test_options_change_only_on_purpose(parsers: dict[str, ArgumentParser]) -> None:
    found = {name: _options(name, parser) for name, parser in sorted(parsers.items())}
    recipes = {tuple(option for option in options if option.startswith("recipe")) for options in found.values()}
    (recipe,) = recipes - {()}  # the same of all commands but `run`
    lines = ["recipe", *(f"  --{option}" for option in recipe)]
    commands: dict[tuple[str, ...], list[str]] = {}
    for name, options in found.items():
        own = ["recipe", *(set(options) - set(recipe))] if recipe[0] in options else options
        commands.setdefault(tuple(sorted(own)), []).append(f"sipo_pl {name}")
    for options, names in commands.items():
        lines += ["", *names, *(f"  --{option}" for option in options)]
    text = "\n".join([*lines, ""])
    if os.environ.get(WRITE_SNAPSHOT):
        SNAPSHOT.write_text(text)
    assert text == SNAPSHOT.read_text(), f"is this wanted? then {WRITE_SNAPSHOT}=1 writes {SNAPSHOT.name} anew"


def _options(name: str, parser: ArgumentParser) -> list[str]:
    """Return the options of a command, less those that the installed trainer brings along."""
    verb = name.partition(" ")[0]
    theirs = set(inspect.signature(getattr(Trainer, verb)).parameters) if hasattr(Trainer, verb) else set()
    names = {action.dest for action in actions(parser)} - theirs
    if trainer := {option for option in names if option.startswith("trainer.")}:
        assert "trainer.max_epochs" in trainer
        names = names - trainer | {"trainer.*"}
    return sorted(option for option in names if not option.endswith("help"))


# shipped configs


def test_there_are_shipped_recipes() -> None:
    own = {"quickstart", "helpsteer", "beavertails", "own_data"}
    assert {recipe.parent.name for recipe in RECIPES} == {*own, "compare"}
    for recipe in RECIPES:
        stages = {path.stem for path in STAGE_CONFIGS if path.parent == recipe.parent}
        others = OF_A_COMPARISON if recipe.parent.name in own else OF_A_RUN
        assert stages == {*TRAINER_STAGES, *SMALL_STAGES} - others - ALL_DEFAULT


@pytest.mark.parametrize("path", STAGE_CONFIGS, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_shipped_stage_configs_parse(command: Command, path: Path) -> None:
    stage = yaml.safe_load(path.read_text())["stage"]
    assert stage == path.stem
    for verb in verbs_of(stage):
        said = command(verb, "--config", path.relative_to(CONFIGS), *_objective(path, stage), "--print_config")
        assert said.code == 0, said.err
        printed = yaml.safe_load(said.out)
        assert printed["stage"] == stage
        assert printed["recipe"]["name"]


@pytest.mark.parametrize("stage", ["report", "measure"])
def test_a_stage_file_that_is_missing_means_defaults(tmp_path: Path, tiny_model: Path, stage: str) -> None:
    recipe = write_recipe(tmp_path, tiny_model)
    path = tmp_path / f"{stage}.yaml"
    path.unlink(missing_ok=True)
    (verb,) = verbs_of(stage)
    missing = resolve(verb, ["--config", str(path)])
    path.write_text(f"stage: {stage}\nrecipe: recipe.yaml\n")
    assert resolve(verb, ["--config", str(path)]).plain() == missing.plain()
    assert missing.recipe == resolve(verb, ["--stage", stage, "--recipe", str(recipe)]).recipe


def test_a_missing_file_is_of_a_stage_only_beside_a_recipe(tmp_path: Path, command: Command) -> None:
    said = command("report", "--config", tmp_path / "report.yaml")
    assert said.code == 2
    assert "no such file" in said.err


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_shipped_recipes_are_planned(command: Command, recipe: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)  # bare names work anywhere
    said = command("run", "--config", recipe.relative_to(CONFIGS), "--dry_run")
    assert said.code == 0, said.err
    assert said.out.count("\nsipo_pl ") == said.out.count("# ")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("strategies/*.yaml")), ids=lambda path: path.name)
def test_shipped_strategies_lie_over_any_stage(command: Command, path: Path) -> None:
    for stage in TRAINER_STAGES:
        config = CONFIGS / ("compare" if stage in OF_A_COMPARISON else "quickstart") / f"{stage}.yaml"
        words = [verbs_of(stage)[0], "--config", config, "--config", path, *_objective(config, stage), "--print_config"]
        said = command(*words)
        assert said.code == 0, said.err
        assert (
            yaml.safe_load(said.out)["trainer"]["strategy"] == yaml.safe_load(path.read_text())["trainer"]["strategy"]
        )


def test_options_of_zero_are_those_of_the_trainers_strategy(command: Command) -> None:
    words = [
        "fit",
        "--config",
        "quickstart/align.yaml",
        "--objective",
        "detail",
        "--trainer.strategy",
        "sipo_pl.training.zero.ZeRO",
    ]
    given = {"stage": 3, "offload_parameters": True, "pin_memory": True, "nvme_path": "/fast"}
    options = [
        word for key, value in given.items() for word in (f"--trainer.strategy.{key}", json.dumps(value).strip('"'))
    ]
    said = command(*words, *options, "--print_config")
    assert said.code == 0, said.err
    printed = yaml.safe_load(said.out)["trainer"]["strategy"]["init_args"]
    assert given.items() <= printed.items()
    assert printed["exclude_frozen_parameters"] is True


@pytest.mark.parametrize(
    "path",
    sorted(CONFIGS.rglob("*.yaml")),
    ids=lambda p: str(p.relative_to(CONFIGS)),
)
def test_shipped_configs_open_with_a_command_that_uses_them(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert first.startswith("# sipo_pl ")
    assert f"--config {path.relative_to(CONFIGS)}" in first


def _objective(path: Path, stage: str) -> list[str]:
    if not TRAINER_STAGES.get(stage) or "objective" not in TRAINER_STAGES[stage].options:
        return []
    recipe = yaml.safe_load((path.parent / "recipe.yaml").read_text())
    return ["--objective", recipe["objectives"][0]["name"]]
