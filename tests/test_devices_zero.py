"""Fits under DeepSpeed's ZeRO, which end as on one device: CPU processes over gloo."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from test_devices import AT_ONCE, FIT, made
from tiny_run import Command, write_recipe
from transformers import AutoModelForCausalLM

from benchmarks.launcher import Ranks
from sipo_pl.engine.lora.adapters import read_adapter
from sipo_pl.engine.lora.stack import LoRAStack

ZERO = "cpu_zero.CPUZeRO"
CLOSE = 1e-5
RATES = {"align": 50.0, "realign": 5.0, "sft": 1.0}  # which move the adapter, and do not blow it up


@pytest.fixture
def folder(tmp_path: Path, talkative_model: Path, finished_run: Path) -> Path:
    """A recipe of which all is there that its fits read."""
    write_recipe(tmp_path, talkative_model)
    for name in ("prepare", "align-kind", "align-short", "filter"):
        shutil.copytree(finished_run / "run" / name, tmp_path / "one" / name)
    shutil.copytree(tmp_path / "one", tmp_path / "many")
    return tmp_path


def words(folder: Path, run: str, stage: str) -> list[object]:
    options = FIT if stage != "sft" else FIT[2:]
    options = [*options, "--model.optimizer.init_args.lr", str(RATES[stage])]
    return ["fit", "--config", folder / f"{stage}.yaml", *options, "--recipe.run_dir", folder / run]


def fit(
    folder: Path, stage: str, zero: int, *more: str, devices: int = 2, offload: bool = False, **variables: str
) -> tuple[list[int], str]:
    """Fit under ZeRO; return the exit codes and what was said."""
    settings = ["--trainer.strategy.stage", str(zero), "--trainer.strategy.offload", str(offload).lower(), *more]
    ranks = Ranks(devices, words(folder, "many", stage), folder / "said", ZERO, settings, **variables)
    return ranks.wait(), ranks.said


def check_equal(folder: Path, name: str) -> None:
    """Compare the adapters and the numbers of one device and of many."""
    expected, notes = made(folder / "one" / name)
    found, found_notes = made(folder / "many" / name)
    assert max(tensor.abs().max() for key, tensor in expected.items() if "lora_B" in key) > 0.01
    for key, tensor in expected.items():
        assert (found[key] - tensor).abs().max() < CLOSE, key
    assert found_notes == pytest.approx(notes, rel=CLOSE, abs=CLOSE)


def test_an_alignment_under_zero_3_starts_at_its_reference_resumes_and_ends_as_on_one_device(
    folder: Path, command: Command, talkative_model: Path
) -> None:
    for run in ("one", "many"):
        shutil.rmtree(folder / run / "align-kind")
    assert command(*words(folder, "one", "align")).code == 0
    codes, said = fit(folder, "align", 3, **AT_ONCE)
    assert codes == [75, 0], said
    assert "at step 1 of 4" in said  # it would have ended before, had the policy differed from the reference
    saved = folder / "many/align-kind/checkpoints/last.ckpt"
    assert sum(file.stat().st_size for file in saved.rglob("*.pt")) < 200_000  # nothing of the base
    codes, said = fit(folder, "align", 3)
    assert codes == [0, 0], said
    assert "resuming from" in said
    check_equal(folder, "align-kind")
    adapter = folder / "many/align-kind/adapter"
    ids = torch.arange(4, 40).view(2, 18)
    with torch.no_grad():
        theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(talkative_model), adapter)
        stack = LoRAStack(AutoModelForCausalLM.from_pretrained(talkative_model), sorted(read_adapter(adapter).factors))
        stack.stack([read_adapter(adapter).factors])
        torch.testing.assert_close(theirs(input_ids=ids).logits, stack.model(input_ids=ids).logits)


def test_a_re_alignment_under_zero_3_with_offload_and_checkpointing_ends_as_on_one_device_with_its_base_divided(
    folder: Path, command: Command
) -> None:
    assert command(*words(folder, "one", "realign")).code == 0
    settings = ["--model.forwards.checkpointing", "true", "--trainer.callbacks+=cpu_zero.SaysGathered"]
    codes, said = fit(folder, "realign", 3, *settings, offload=True)
    assert codes == [0, 0], said
    counts = [(int(most), int(whole)) for most, whole in re.findall(r"at once: (\d+) of (\d+) frozen", said)]
    assert len(counts) == 2
    assert all(0 < most < whole / 3 for most, whole in counts), counts
    check_equal(folder, "realign-kind")


def test_a_fine_tuning_under_zero_2_ends_as_on_one_device(
    tmp_path: Path, talkative_model: Path, command: Command
) -> None:
    recipe = write_recipe(tmp_path, talkative_model, stages={"sft": True}, run_dir=str(tmp_path / "one"))
    assert command("prepare", "--config", recipe.with_name("prepare.yaml")).code == 0
    shutil.copytree(tmp_path / "one", tmp_path / "many")
    assert command(*words(tmp_path, "one", "sft")).code == 0
    codes, said = fit(tmp_path, "sft", 2)
    assert codes == [0, 0], said
    check_equal(tmp_path, "sft")


def test_zero_goes_on_with_as_many_devices_or_with_an_optimizer_that_begins_anew(
    folder: Path, command: Command
) -> None:
    shutil.rmtree(folder / "many/align-kind")
    codes, said = fit(folder, "align", 2, **AT_ONCE)
    assert codes == [75, 0], said
    codes, said = fit(folder, "align", 2, devices=3)
    assert codes == [2, 2, 2], said
    assert "was made on 2 devices, found 3" in said
    alone = command(*words(folder, "many", "align"))
    assert alone.code == 2
    assert "was made with DeepSpeed" in alone.err
    again = command(*words(folder, "many", "align"), "--restart_optimizer")
    assert again.code == 0, again.err
    _, notes = made(folder / "many/align-kind")
    assert notes["steps"] == 4
    assert 3 <= notes["backward passes"] < 16  # of the steps after the first one, on one device


def test_no_prediction_under_deepspeed(folder: Path, command: Command) -> None:
    said = command("predict", "--config", folder / "evaluate.yaml", "--trainer.strategy", "deepspeed_stage_3")
    assert said.code == 2
    assert "strategies/ddp.yaml" in said.err


@pytest.mark.parametrize("zero", [2, 3])
def test_a_base_in_bfloat16_stays_in_it_under_zero(folder: Path, zero: int) -> None:
    shutil.rmtree(folder / "many/align-kind")
    words_of_fit = [*words(folder, "many", "align"), "--recipe.dtype", "bfloat16", "--trainer.max_steps", "1"]
    settings = ["--trainer.strategy.stage", str(zero), "--trainer.callbacks+=cpu_zero.SaysDtypes"]
    ranks = Ranks(2, words_of_fit, folder / "said", ZERO, settings)
    assert ranks.wait() == [0, 0], ranks.said
    assert ranks.said.count("frozen torch.bfloat16, trained torch.float32") == 2, ranks.said
