"""The reward model by its command: it learns a plain score, and scores as the classifier that it is written as."""

from pathlib import Path
from typing import Any

import pytest
from tiny_run import Command, write_recipe, write_rows, write_yaml

from sipo_pl.rewards.sequence_classifier import SequenceClassifier
from sipo_pl.storage.manifest import Manifest
from sipo_pl.text.prompt import TextRow

CONFIG: dict[str, Any] = {
    "stage": "reward_model",
    "recipe": "recipe.yaml",
    "model": {"optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}},
    "data": {"micro_batch_size": 4, "template": "Q: {prompt} A:{response}"},
    "saving": {"validations": 2},
    "trainer": {"accelerator": "cpu", "devices": 1, "max_epochs": 10, "log_every_n_steps": 1},
}


@pytest.fixture
def scored(tmp_path: Path, talkative_model: Path, command: Command) -> Path:
    """Folder of a recipe whose first score counts a word of the response, and whose second is its opposite."""
    recipe = write_recipe(tmp_path, talkative_model)
    for split, count in (("train", 24), ("validation", 6), ("test", 2)):
        rows = [
            {"prompt": f"{split} {n}", "response": " ".join(["red"] * k + ["blue"] * (3 - k)), "kind": k, "short": -k}
            for n in range(count)
            for k in (n % 4, (n + 1) % 4)
        ]
        write_rows(tmp_path / f"{split}.jsonl", rows)
    write_yaml(tmp_path / "reward_model.yaml", CONFIG)
    assert command("prepare", "--config", tmp_path / "prepare.yaml").code == 0
    assert recipe.exists()
    return tmp_path


def test_it_learns_its_scores_and_is_a_reward(scored: Path, command: Command) -> None:
    said = command("fit", "--config", scored / "reward_model.yaml")
    assert said.code == 0, said.err
    folder = scored / "run/reward_model"
    manifest = Manifest.read(folder)
    assert manifest is not None
    assert manifest.notes["final val/correlation/kind"] > 0.7
    texts = [TextRow("test", " ".join(["red"] * k + ["blue"] * (3 - k))) for k in range(4)]
    settings = {"model": str(folder / "model"), "template": CONFIG["data"]["template"], "device": "cpu"}
    found = {}
    for name in ("kind", "short"):
        reward = SequenceClassifier(output=name, **settings)
        reward.load()
        found[name] = reward.score(texts)
    assert found["kind"][0] < found["kind"][-1]
    assert found["short"][0] > found["short"][-1]
    again = command("fit", "--config", scored / "reward_model.yaml")
    assert "reward_model: complete" in again.err


def test_preferences_without_scores_are_refused(tmp_path: Path, talkative_model: Path, command: Command) -> None:
    data: dict[str, Any] = {split: [f"{split}.jsonl"] for split in ("train", "validation", "test")}
    data["converter"] = {"class_path": "sipo_pl.data.converters.pairs.Pairs"}
    write_recipe(tmp_path, talkative_model, data=data)
    for split in ("train", "validation", "test"):
        row = {"prompt": split, "response_0": "red", "response_1": "blue", "kind": 0, "short": 1}
        write_rows(tmp_path / f"{split}.jsonl", [row])
    write_yaml(tmp_path / "reward_model.yaml", CONFIG)
    assert command("prepare", "--config", tmp_path / "prepare.yaml").code == 0
    said = command("fit", "--config", tmp_path / "reward_model.yaml")
    assert said.code == 1
    assert "has no scores of 'kind', only a preference" in said.err
