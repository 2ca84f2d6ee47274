"""The stage measure by its command, on a recipe of three objectives with reward models."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import make_tiny_adapter
from tiny_rewards import make_classifier, make_dpa, to_bin
from tiny_run import NAMES, Command, edit, write_recipe, write_yaml

from sipo_pl.data.units import unit_files
from sipo_pl.rewards.dpa import DPA
from sipo_pl.rewards.model_reward import ModelReward
from sipo_pl.rewards.sequence_classifier import SequenceClassifier
from sipo_pl.storage.json_lines import read_jsonl
from sipo_pl.storage.manifest import Manifest
from sipo_pl.text.prompt import TextRow

TEMPLATE = "{prompt}{response}"


def rewards(folder: Path) -> list[dict[str, Any]]:
    """Two attributes of one model, and a classifier."""
    judge = {"model": str(folder / "judge"), "device": "cpu"}
    classifier = {"model": str(folder / "classifier"), "output": 2, "template": TEMPLATE}
    return [
        {"class_path": "sipo_pl.rewards.dpa.DPA", "init_args": {"attribute": "correctness", **judge}},
        {"class_path": "sipo_pl.rewards.dpa.DPA", "init_args": {"attribute": "verbosity", **judge}},
        {"class_path": "sipo_pl.rewards.sequence_classifier.SequenceClassifier", "init_args": classifier},
    ]


def predict(folder: Path, stage: str, *words: object) -> tuple[object, ...]:
    return ("predict", "--config", folder / f"{stage}.yaml", "--policies", "align", *words)


def rows(stage: Path) -> list[dict[str, Any]]:
    return [row for path in unit_files(stage) for row in read_jsonl(path)]


@pytest.fixture
def evaluated(tmp_path: Path, talkative_model: Path, command: Command) -> Path:
    """Folder of a recipe of three objectives, the responses of whose given policies wait to be measured."""
    make_dpa(tmp_path / "judge")
    make_classifier(tmp_path / "classifier")
    recipe = write_recipe(tmp_path, talkative_model, 3)
    values = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    for seed, (name, objective) in enumerate(zip(NAMES, values["objectives"], strict=True)):
        objective["adapter"] = str(make_tiny_adapter(tmp_path / name, talkative_model, seed))
        objective["reward"] = rewards(tmp_path)[seed]
    write_yaml(recipe, values)
    for words in (("prepare", "--config", tmp_path / "prepare.yaml"), predict(tmp_path, "evaluate")):
        said = command(*words)
        assert said.code == 0, said.err
    return tmp_path


def test_three_objectives_are_measured_by_reward_models(evaluated: Path, command: Command) -> None:
    said = command(*predict(evaluated, "measure"))
    assert said.code == 0, said.err
    samples = rows(evaluated / "run/evaluate-align")
    measured = rows(evaluated / "run/measure-align")
    assert [row["sample_id"] for row in measured] == [row["sample_id"] for row in samples]
    assert len(samples) > 12
    texts = [TextRow(row["prompt"], row["text"]) for row in samples]
    judge, classifier = str(evaluated / "judge"), str(evaluated / "classifier")
    alone: dict[str, ModelReward] = {
        "kind": DPA("correctness", judge, device="cpu"),
        "short": DPA("verbosity", judge, device="cpu"),
        "plain": SequenceClassifier(classifier, 2, TEMPLATE),
    }
    assert all(reward.scorer.model is None for reward in alone.values())  # the stage let go of what it loaded
    for name, reward in alone.items():
        reward.load()
        assert [row["rewards"][name] for row in measured] == pytest.approx(reward.score(texts), abs=1e-4)

    keys = Manifest.read(evaluated / "run/measure-align").keys["recipe"]["rewards"]
    assert "device" not in keys["kind"]["init_args"]
    assert set(keys["kind"]["hashes"]) == {"model", "template"}
    assert command(*predict(evaluated, "measure")).code == 0  # complete
    edit(evaluated / "recipe.yaml", "output: 2", "output: 1")
    said = command(*predict(evaluated, "measure"))
    assert said.code != 0
    assert "output" in said.err


def test_what_a_reward_model_lacks_is_one_line_that_names_it(evaluated: Path, command: Command) -> None:
    edit(evaluated / "recipe.yaml", "output: 2", "output: 7")
    said = command(*predict(evaluated, "measure"))
    assert said.code == 2
    assert "objectives.plain.reward.init_args.output: " in said.err
    edit(evaluated / "recipe.yaml", "output: 7", "output: 2")
    edit(evaluated / "recipe.yaml", "attribute: verbosity", "attribute: verbose")
    said = command(*predict(evaluated, "measure", "--overwrite"))
    assert said.code == 2
    assert "objectives.short.reward.init_args.attribute: no 'verbose'; did you mean 'verbosity'?" in said.err
    edit(evaluated / "recipe.yaml", "attribute: verbose", "attribute: verbosity")
    to_bin(evaluated / "classifier")
    said = command(*predict(evaluated, "measure", "--overwrite"))
    assert said.code == 1
    assert f"`python -m sipo_pl.engine.models.to_safetensors {evaluated / 'classifier'}` converts them" in said.err
    assert "Traceback" not in said.err
