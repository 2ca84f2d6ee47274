"""Fits and predictions on several devices: CPU processes over gloo, as a launcher starts them."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_run import Command, write_recipe

from benchmarks.launcher import Ranks
from sipo_pl.data.datamodules.unit_data import shares
from sipo_pl.data.units import unit_files
from sipo_pl.storage.hash_memory import file_hash
from sipo_pl.storage.manifest import Manifest
from sipo_pl.storage.stopping import STOP_VARIABLE

# six pairs in steps of four and two; plain SGD, whose steps show the size of a gradient, where Adam's do not
STEPS = [
    *("--trainer.accumulate_grad_batches", "4", "--trainer.max_epochs", "2"),
    *("--model.optimizer.class_path", "torch.optim.SGD", "--model.optimizer.init_args.lr", "50"),
    *("--saving.validations", "4"),
]
FIT = ["--objective", "kind", *STEPS]
AT_ONCE = {STOP_VARIABLE: "1"}  # a time long past: the command stops at its first border


@pytest.fixture
def folder(tmp_path: Path, talkative_model: Path, finished_run: Path) -> Path:
    """A recipe whose data is prepared."""
    write_recipe(tmp_path, talkative_model)
    shutil.copytree(finished_run / "run/prepare", tmp_path / "run/prepare")
    return tmp_path


def fit(folder: Path, run: str, devices: int, **environment: str) -> tuple[list[int], str]:
    """Fit a policy into a run folder of its own; return the exit codes and what was said."""
    if not (folder / run).exists():
        shutil.copytree(folder / "run/prepare", folder / run / "prepare")
    words = ["fit", "--config", folder / "align.yaml", *FIT, "--recipe.run_dir", folder / run]
    ranks = Ranks(devices, words, folder / f"said-{run}-{devices}", **environment)
    return ranks.wait(), ranks.said


def made(folder: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the tensors of a fitted policy, and the numbers that its manifest notes."""
    manifest = Manifest.read(folder)
    assert manifest is not None
    assert manifest.complete
    return load_file(folder / "adapter/adapter_model.safetensors"), {
        key: value for key, value in manifest.notes.items() if isinstance(value, int | float)
    }


def test_a_fit_is_the_same_on_any_number_of_devices_also_if_that_changes_on_the_way(folder: Path) -> None:
    assert fit(folder, "one", 1)[0] == [0]
    expected, notes = made(folder / "one/align-kind")
    assert notes["steps"] == 4
    assert max(tensor.abs().max() for name, tensor in expected.items() if "lora_B" in name) > 0.01
    codes, said = fit(folder, "many", 2, **AT_ONCE)
    assert codes == [75, 0], said
    assert "at step 1 of 4" in said
    codes, said = fit(folder, "many", 3)
    assert codes == [0, 0, 0], said
    assert "resuming from" in said
    found, found_notes = made(folder / "many/align-kind")
    for name, tensor in expected.items():
        assert (found[name] - tensor).abs().max() < 1e-5, name
    assert found_notes == pytest.approx(notes, abs=1e-5)


def test_a_realignment_is_the_same_on_two_devices(folder: Path, finished_run: Path) -> None:
    for run, devices in (("one", 1), ("many", 2)):
        shutil.copytree(finished_run / "run", folder / run, ignore=shutil.ignore_patterns("realign*", "cache"))
        words = ["fit", "--config", folder / "realign.yaml", *FIT, "--recipe.run_dir", folder / run]
        ranks = Ranks(devices, words, folder / f"said-{run}")
        assert ranks.wait() == [0] * devices, ranks.said
    (expected, notes), (found, found_notes) = (made(folder / run / "realign-kind") for run in ("one", "many"))
    aligned = load_file(finished_run / "run/align-kind/adapter/adapter_model.safetensors")
    assert len(expected) == len(aligned)
    assert max(tensor.abs().max() for name, tensor in expected.items() if "lora_B" in name) > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert found_notes == pytest.approx(notes, abs=1e-5)


def test_supervised_fine_tuning_is_the_same_on_two_devices(
    tmp_path: Path, talkative_model: Path, command: Command
) -> None:
    write_recipe(tmp_path, talkative_model, stages={"sft": True})
    assert command("prepare", "--config", tmp_path / "prepare.yaml").code == 0
    for run, devices in (("one", 1), ("many", 2)):
        shutil.copytree(tmp_path / "run/prepare", tmp_path / run / "prepare")
        slower = ("--model.optimizer.init_args.lr", "0.5")
        words = ["fit", "--config", tmp_path / "sft.yaml", *STEPS, *slower, "--recipe.run_dir", tmp_path / run]
        ranks = Ranks(devices, words, tmp_path / f"said-{run}")
        assert ranks.wait() == [0] * devices, ranks.said
    one, many = (load_file(tmp_path / run / "sft/model/model.safetensors") for run in ("one", "many"))
    before = load_file(talkative_model / "model.safetensors")
    assert max((tensor - before[name]).abs().max() for name, tensor in one.items()) > 0.01
    torch.testing.assert_close(many, one, rtol=1e-5, atol=1e-5)


def test_a_prediction_makes_the_same_rows_on_any_number_of_devices_also_on_more_than_there_are_units(
    folder: Path, finished_run: Path
) -> None:
    for objective in ("kind", "short"):
        shutil.copytree(finished_run / f"run/align-{objective}", folder / f"run/align-{objective}")
    ranks = Ranks(3, ["predict", "--config", folder / "evaluate.yaml", "--policies", "align"], folder / "said")
    assert ranks.wait() == [0, 0, 0], ranks.said
    files, expected = (unit_files(one / "run/evaluate-align") for one in (folder, finished_run))
    assert len(files) == 2
    assert [file_hash(file) for file in files] == [file_hash(file) for file in expected]


def test_units_are_shared_out_with_long_ones_first() -> None:
    assert shares([1, 9, 5, 5], [3, 4, 6, 8], 2) == [[4, 3], [6, 8]]
    assert shares([1, 9, 5], [0, 1, 2], 1) == [[0, 1, 2]]
    assert shares([7], [5], 3) == [[5], [], []]
    assert shares([], [], 2) == [[], []]
