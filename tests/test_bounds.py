"""Numbers have bounds: every setting that is one, and every argument of the trainer that a stage cannot honour."""

import importlib
import inspect
import math
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from lightning.pytorch import Trainer
from tiny_run import write_recipe

from sipo_pl.cli import main as cli
from sipo_pl.interop.numbers import PositiveInt, Seed, problem_of
from sipo_pl.messages.errors import SettingError, UsageError
from sipo_pl.method.divergences import Divergence
from sipo_pl.method.losses import DPO, RACO, DPOWithNLL
from sipo_pl.method.weights import interior_grid
from sipo_pl.recipe.components import import_class, instantiate
from sipo_pl.recipe.config.resolve import resolve, stage_function
from sipo_pl.recipe.config.trainer_arguments import HONOURED, LIMITED, check_trainer_arguments
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.recipe.saving import Saving
from sipo_pl.registry import SMALL_STAGES, TRAINER_STAGES

COMPONENTS = [
    DPO,
    DPOWithNLL,
    RACO,
    *(
        import_class(path)
        for path in (
            "sipo_pl.method.divergences.Alpha",
            "sipo_pl.rewards.sequence_classifier.SequenceClassifier",
            "sipo_pl.rewards.dpa.DPA",
            "sipo_pl.rewards.local_judge.LocalJudge",
            "sipo_pl.rewards.beaver.BeaverReward",
            "sipo_pl.data.converters.helpsteer.HelpSteer",
            "sipo_pl.data.converters.helpsteer2.HelpSteer2",
            "sipo_pl.training.zero.ZeRO",
        )
    ),
]
UNBOUNDED = {
    "run.limit",  # options of run are declared one by one, with bounds
    "run.side_by_side",
    "HelpSteer.score_range",  # two numbers, which the converter checks together
    "HelpSteer2.score_range",
}


def without_bounds(name: str, function: Any, found: set[str]) -> None:
    """Add the arguments of a function or class, and of the dataclasses among them, that are numbers without bounds."""
    for argument, parameter in inspect.signature(function, eval_str=True).parameters.items():
        for kind in _parts(parameter.annotation):
            if kind in (int, float):
                found.add(f"{name}.{argument}")
            elif is_dataclass(kind):
                without_bounds(kind.__name__, kind, found)


def _parts(annotation: Any) -> list[Any]:
    return [annotation, *(part for one in get_args(annotation) for part in _parts(one))]


def test_every_number_has_bounds() -> None:
    found: set[str] = set()
    for stage in TRAINER_STAGES.values():
        for path in (stage.target, stage.data):
            without_bounds(path, import_class(path), found)
    for stage_name in SMALL_STAGES:
        without_bounds(stage_name, stage_function(stage_name), found)
    for name, (target, _) in cli.COMMANDS.items():
        module, _, function = target.partition(":")
        without_bounds(name, getattr(importlib.import_module(module), function), found)
    for kind in (Recipe, Saving, *COMPONENTS):
        without_bounds(kind.__name__, kind, found)
    assert found - UNBOUNDED == set()


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "x", math.nan, math.inf, None])
def test_what_is_no_positive_whole_number(value: object) -> None:
    assert problem_of(PositiveInt, value) == f"expected a number >0, found {value!r}"


def test_numbers_within_bounds() -> None:
    assert problem_of(PositiveInt | None, None) is None
    assert problem_of(Seed, 2**32 - 1) is None
    assert problem_of(Seed, 2**32)


@pytest.mark.parametrize(
    ("verb", "words", "message"),
    [
        ("fit", ["--recipe.beta", "-1"], "--recipe.beta: expected a number >0, found -1"),
        ("fit", ["--recipe.beta", ".nan"], "--recipe.beta: expected float, found '.nan'"),
        ("fit", ["--recipe.seed", "-1"], "--recipe.seed: expected a number >=0 and <4294967296, found -1"),
        ("fit", ["--recipe.rounds", "1000000"], "--recipe.rounds: expected a number >=1 and <=100, found 1000000"),
        (
            "fit",
            ["--recipe.evaluate_weights.grid", "1e-7"],
            "grid: expected a number >=0.001 and <=0.5 or null, found '1e-07'",
        ),
        ("fit", ["--model.lora.r", "0"], "--model.lora.r: expected a number >0, found 0"),
        ("fit", ["--data.micro_batch_size", "0"], "--data.micro_batch_size: expected a number >0, found 0"),
        ("fit", ["--saving.save_every", "0"], "--saving.save_every: expected a number >0, found 0"),
        ("fit", ["--saving.validations", "0"], "--saving.validations: expected a number >0, found 0"),
        ("fit", ["--trainer.max_epochs", "-1"], "--trainer.max_epochs: -1 has no end; trainer.max_steps gives one"),
        ("fit", ["--trainer.limit_train_batches", "0.5"], "--trainer.limit_train_batches: a fit trains on all"),
        ("predict", ["--data.unit_prompts", "-1"], "--data.unit_prompts: expected a number >0, found -1"),
        (
            "predict",
            ["--trainer.limit_predict_batches", "1"],
            "--trainer.limit_predict_batches: a prediction makes all",
        ),
    ],
)
def test_numbers_that_cannot_be_meant(
    tmp_path: Path, tiny_model: Path, verb: str, words: list[str], message: str
) -> None:
    write_recipe(tmp_path, tiny_model)
    of_stage = {"fit": ["align.yaml", "--objective", "kind"], "predict": ["sample.yaml"]}[verb]
    with pytest.raises(UsageError) as caught:
        resolve(verb, ["--config", str(tmp_path / of_stage[0]), *of_stage[1:], *words])
    assert message in str(caught.value)


def test_settings_are_plain_numbers(tmp_path: Path, tiny_model: Path) -> None:
    write_recipe(tmp_path, tiny_model)
    settings = resolve("fit", ["--config", str(tmp_path / "align.yaml"), "--objective", "kind", "--recipe.beta", "1"])
    assert [type(settings[key]) for key in ("model.lora.r", "model.warmup", "data.micro_batch_size")] == [
        int,
        float,
        int,
    ]
    assert (type(settings.recipe.beta), type(settings.recipe.seed)) == (float, int)


def test_numbers_of_components_have_bounds() -> None:
    component = {"class_path": "sipo_pl.method.divergences.Alpha", "init_args": {"alpha": 2}}
    with pytest.raises(UsageError, match=r"divergence\.init_args\.alpha: expected a number >0 and <1, found 2"):
        instantiate(component, Divergence, "divergence")


def test_grids_of_too_many_points_are_refused_at_once() -> None:
    with pytest.raises(UsageError, match="points for 8 objectives"):
        interior_grid(0.01, 8)
    assert interior_grid(0.25, 3) == [(0.25, 0.25, 0.5), (0.25, 0.5, 0.25), (0.5, 0.25, 0.25)]


# arguments of the trainer


def test_every_argument_of_the_trainer_is_honoured_or_limited() -> None:
    known = set(inspect.signature(Trainer).parameters)
    assert known - HONOURED - LIMITED.keys() == set()
    assert HONOURED & LIMITED.keys() == set()


def test_defaults_of_the_trainer_are_taken() -> None:
    defaults = {name: one.default for name, one in inspect.signature(Trainer).parameters.items()}
    check_trainer_arguments({**defaults, "num_sanity_val_steps": 0}, "fit")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_epochs", 0),
        ("max_steps", 0),
        ("limit_train_batches", 1),
        ("limit_val_batches", 0),
        ("overfit_batches", 1),
        ("fast_dev_run", True),
        ("min_steps", 3),
        ("min_epochs", 2),
        ("max_time", "00:01:00:00"),
        ("check_val_every_n_epoch", 2),
        ("val_check_interval", 0.5),
        ("accumulate_grad_batches", 0),
        ("gradient_clip_val", math.nan),
        ("enable_checkpointing", False),
        ("barebones", True),
    ],
)
def test_limits_that_no_stage_honours_are_refused(name: str, value: object) -> None:
    with pytest.raises(SettingError) as caught:
        check_trainer_arguments({name: value}, "fit")
    assert caught.value.key == f"trainer.{name}"
