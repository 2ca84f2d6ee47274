"""A stage's settings, as the stage itself, `run` and its look ahead read them."""

from pathlib import Path

import pytest
from tiny_run import write_recipe

from sipo_pl.messages.errors import UsageError
from sipo_pl.recipe.config.files import Named, named_in
from sipo_pl.recipe.config.resolve import config_options, resolve
from sipo_pl.recipe.graph.run import build_graph
from sipo_pl.run.stage_check import check_command, look_at


@pytest.mark.parametrize(
    "words",
    [["--config", "a", "-c", "b", "--stage", "sft"], ["--config=a", "--model.lora.r", "8", "-c", "b", "--stage=sft"]],
)
def test_a_command_line_names_its_files_and_stage_in_any_form(words: list[str]) -> None:
    assert named_in(words) == Named(["a", "b"], "sft")
    assert named_in(["--config"]) == Named([], None)


@pytest.mark.parametrize("option", [["--trainer.devices=2"], ["--trainer.devices", "2"], ["--trainer.strategy=ddp"]])
def test_options_of_any_form_decide_whether_a_stage_forks(tmp_path: Path, tiny_model: Path, option: list[str]) -> None:
    write_recipe(tmp_path, tiny_model)
    words = ["--config", str(tmp_path / "sample.yaml")]
    assert check_command("predict", [*words, "--trainer.devices=1"]).forks
    assert not check_command("predict", [*words, "--trainer.devices=1", *option]).forks


def test_settings_hold_options_files_and_defaults(tmp_path: Path, tiny_model: Path) -> None:
    write_recipe(tmp_path, tiny_model)
    words = ["--config", str(tmp_path / "align.yaml"), "--objective=kind", "--model.lora.r=8", "--recipe.seed=7"]
    found = resolve("fit", words)
    assert (found["model.lora.r"], found["model.lora.alpha"], found["saving.monitor"]) == (8, 2, "val/loss")
    assert (found.recipe.seed, found.folder_name) == (7, "align-kind")
    assert found.plain()["model"]["lora"]["r"] == 8


def test_a_recipe_of_any_name_serves_stages_without_files(tmp_path: Path, tiny_model: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model).rename(tmp_path / "mine.yaml")
    (tmp_path / "report.yaml").unlink(missing_ok=True)
    found = resolve("report", config_options("report", str(recipe)))
    assert found.arguments == {"recipe": found.recipe, "resamples": 2000, "samples": 12}
    with pytest.raises(UsageError, match="no such file"):
        resolve("report", ["--config", str(tmp_path / "report.yaml")])


def test_every_stage_of_a_finished_run_is_complete_and_none_of_another_seed(finished_run: Path) -> None:
    recipe = str(finished_run / "recipe.yaml")
    nodes = build_graph(resolve("report", config_options("report", recipe)).recipe)
    for node in nodes:
        words = [*config_options(node.config, recipe), *node.options]
        assert look_at(node.verb, words).complete, node.name
        seeded = node.config not in ("combine", "filter")  # which draw nothing
        assert look_at(node.verb, [*words, "--recipe.seed=99"]).complete != seeded, node.name


def test_an_earlier_name_of_a_class_makes_no_other_stage(finished_run: Path) -> None:
    words = ["--config", str(finished_run / "align.yaml"), "--objective=kind"]
    for name in ("sipo_pl.losses.DPO", "sipo_pl.method.losses.DPO"):
        assert look_at("fit", [*words, f"--model.loss.class_path={name}"]).complete
