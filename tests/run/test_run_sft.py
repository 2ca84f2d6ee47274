"""Runs that fine-tune their base first, and runs whose policies are there already."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from tiny import make_tiny_adapter
from tiny_run import NAMES, Command, edit, write_recipe
from transformers import AutoModelForCausalLM

from sipo_pl.engine.lora.adapters import read_adapter
from sipo_pl.storage.json_lines import read_jsonl
from sipo_pl.storage.manifest import Manifest


def manifest_of(folder: Path) -> Manifest:
    found = Manifest.read(folder)
    assert found is not None
    return found


@pytest.fixture
def recipe(tmp_path: Path, talkative_model: Path) -> Path:
    return write_recipe(tmp_path, talkative_model, stages={"sft": True})


def test_policies_stand_on_the_fine_tuned_model(tmp_path: Path, recipe: Path, command: Command) -> None:
    run = tmp_path / "run"
    said = command("run", "--config", recipe, "--until", "align-kind")
    assert said.code == 0, said.err
    assert re.findall(r"^\[\d+/\d+\] (\S+)$", said.err, re.MULTILINE)[:3] == ["prepare", "sft", "align-kind"]
    assert "logits differ from base + adapter by at most" in (run / "run.log").read_text()
    rows = read_jsonl(run / "prepare/sft.jsonl")
    assert len(rows) == 12  # six prompts of two responses
    assert all(len(row["preferred_by"]) == 1 for row in rows)
    inputs = manifest_of(run / "align-kind").inputs
    assert inputs["sft"] == manifest_of(run / "sft").result_hash
    assert inputs["base model"] != manifest_of(run / "sft").inputs["base model"]
    assert read_adapter(run / "align-kind/adapter").base == str(run / "sft/model")
    assert AutoModelForCausalLM.from_pretrained(run / "sft/model").dtype == torch.float32

    again = command("run", "--config", recipe, "--set", "sft.model.lora.r=3", "--only", "sft", "--overwrite")
    assert again.code == 0, again.err
    stale = command("fit", "--config", tmp_path / "align.yaml", "--objective", "kind")
    assert stale.code == 1
    assert "align-kind was made by other settings: input base model" in stale.err
    assert "input sft" in stale.err


def test_a_stage_after_it_says_that_it_has_not_run(tmp_path: Path, recipe: Path, command: Command) -> None:
    assert command("prepare", "--config", tmp_path / "prepare.yaml").code == 0
    said = command("fit", "--config", tmp_path / "align.yaml", "--objective", "kind")
    assert said.code == 1
    assert f"{tmp_path}/run/sft: no such input; `sipo_pl fit --config sft.yaml` makes it" in said.err
    assert not (tmp_path / "run/align-kind").exists()


@pytest.mark.parametrize(("switch", "kept"), [("false", 11), ("true", 6)])
def test_the_end_of_a_fit_is_validated_unless_switched_off(
    tmp_path: Path, recipe: Path, command: Command, switch: str, kept: int
) -> None:
    """Kept is what was validated: neither the last step, unvalidated, nor the end of an epoch of four steps."""
    edit(recipe, "name: tiny", f"name: tiny\ncompat: {{no_final_validation: {switch}}}")
    assert command("prepare", "--config", tmp_path / "prepare.yaml").code == 0
    words = ["fit", "--config", tmp_path / "sft.yaml", "--trainer.max_steps", "11"]  # validated every ceil(11 / 2)
    said = command(*words)
    assert said.code == 0, said.err
    notes = manifest_of(tmp_path / "run/sft").notes
    assert (notes["steps"], notes["kept step"]) == (11, kept)
    if switch == "true":
        said = command(*words, "--saving.keep", "last", "--overwrite")
        assert said.code == 2
        assert "saving.keep: last is the end of the fit" in said.err


def test_policies_that_are_there_already_need_no_alignment(
    tmp_path: Path, talkative_model: Path, command: Command
) -> None:
    adapters = [make_tiny_adapter(tmp_path / name, talkative_model, seed) for seed, name in enumerate(NAMES[:2])]
    objectives = [
        {"name": name, "phrase": f"more {name}", "adapter": str(folder)}
        for name, folder in zip(NAMES[:2], adapters, strict=True)
    ]
    recipe = write_recipe(tmp_path, talkative_model, stages={"align": False, "sft": False, "review": False})
    values = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump({**values, "objectives": objectives}))
    said = command("run", "--config", recipe)
    assert said.code == 0, said.err
    names = re.findall(r"^\[\d+/\d+\] (\S+)$", said.err, re.MULTILINE)
    assert names == [
        *("prepare", "evaluate-align", "measure-align", "sample", "score", "combine", "filter"),
        *("realign-kind", "realign-short", "evaluate-realign", "measure-realign", "report"),
    ]
    assert read_adapter(tmp_path / "run/realign-kind/adapter").rank == 4 + 2
