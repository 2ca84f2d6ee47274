"""Alignments in one pass as their users ask for them, resumed, and mixed with those one by one."""

import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from crash import TRACE_VARIABLE
from safetensors.torch import load_file
from tiny_run import Command, kill, start, wait_until, write_recipe, write_yaml

from sipo_pl.storage.artifacts import read_json, read_jsonl

NAMES = ("kind", "short")
BOTH = "+".join(NAMES)
WEIGHTS = "adapter/adapter_model.safetensors"
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def folder(
    tmp_path: Path, talkative_model: Path, finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A recipe whose data is prepared, and whose fits write down rows and loss of their steps."""
    write_recipe(tmp_path, talkative_model)
    shutil.copytree(finished_run / "run/prepare", tmp_path / "run/prepare")
    config = yaml.safe_load((tmp_path / "align.yaml").read_text())
    config["trainer"]["callbacks"] = [{"class_path": "crash.Trace"}]
    write_yaml(tmp_path / "align.yaml", config)
    (tmp_path / "trace").mkdir()
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv(TRACE_VARIABLE, str(tmp_path / "trace"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the finished run had
    yield tmp_path
    torch.set_num_threads(threads)


def fit(folder: Path, command: Command, objective: str, *options: object) -> Any:
    return command("fit", "--config", folder / "align.yaml", "--objective", objective, *options)


def steps(folder: Path, name: str) -> dict[int, tuple[list[str], float]]:
    """Return rows and loss of each step; one that was made twice had the same both times."""
    found: dict[int, tuple[list[str], float]] = {}
    for event in read_jsonl(folder / f"trace/align-{name}.jsonl"):
        if "step" in event:
            rows, loss = found.setdefault(event["step"], (event["rows"], float.fromhex(event["loss"])))
            assert rows == event["rows"]
            torch.testing.assert_close(float.fromhex(event["loss"]), loss, **CLOSE)
    return found


def check_results(folder: Path, finished_run: Path) -> None:
    """Compare the alignments with those that a run made one by one."""
    for name in NAMES:
        ours, theirs = (one / f"run/align-{name}" for one in (folder, finished_run))
        torch.testing.assert_close(load_file(ours / WEIGHTS), load_file(theirs / WEIGHTS), **CLOSE)
        found, expected = read_json(ours / "manifest.json"), read_json(theirs / "manifest.json")
        for key in ("stage", "keys", "inputs", "notes"):
            assert found[key] == expected[key], key
        assert sorted(path.name for path in ours.iterdir()) == sorted(
            path.name for path in theirs.iterdir() if path.name != "request.json"
        )


def test_a_pass_that_is_killed_goes_on_with_the_same_rows_and_losses(
    folder: Path, finished_run: Path, command: Command
) -> None:
    for name in NAMES:
        assert fit(folder, command, name).code == 0
    alone = {name: steps(folder, name) for name in NAMES}
    check_results(folder, finished_run)
    for name in NAMES:
        (folder / f"trace/align-{name}.jsonl").unlink()
        shutil.rmtree(folder / f"run/align-{name}")
    process = start("fit", "--config", folder / "align.yaml", "--objective", BOTH)
    trace = folder / "trace/align-short.jsonl"
    wait_until(process, lambda: trace.exists() and trace.read_text().count("loss") >= 5)  # in the second epoch
    kill(process)
    again = fit(folder, command, BOTH)
    assert again.code == 0, again.err
    assert again.err.count("resuming from") == 2
    for name in NAMES:
        found = steps(folder, name)
        assert {step: rows for step, (rows, _) in found.items()} == {
            step: rows for step, (rows, _) in alone[name].items()
        }
        losses = [[loss for _, loss in one.values()] for one in (found, alone[name])]
        torch.testing.assert_close(*losses, **CLOSE)
    check_results(folder, finished_run)
    assert f"align-{NAMES[0]}: complete, nothing to do" in fit(folder, command, NAMES[0]).err


def test_a_pass_that_is_stopped_saves_the_step_of_each_and_goes_on_one_by_one(
    folder: Path, finished_run: Path, command: Command
) -> None:
    ask = ("--trainer.callbacks+=test_stopping.AskAt", "--trainer.callbacks.batch=2", "--trainer.callbacks.by=SIGTERM")
    said = fit(folder, command, BOTH, *ask, "--saving.save_every=1000")
    assert said.code == 75, said.err
    steps = re.findall(r"(\w+): stopped by SIGTERM at step (\d) of 9, which is saved", said.err.splitlines()[-1])
    assert sorted(name for name, _ in steps) == sorted(NAMES)
    assert {step for _, step in steps} <= {"4", "5"}
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert all(not read_json(folder / f"run/align-{name}/manifest.json")["complete"] for name in NAMES)
    for name in NAMES:
        again = fit(folder, command, name)
        assert again.code == 0, again.err
        assert "resuming from" in again.err
    check_results(folder, finished_run)


@pytest.mark.parametrize(
    ("objective", "options", "message"),
    [
        ("kind+kind", (), "--objective kind+kind: an objective appears twice"),
        ("kind+shrot", (), "no objective 'shrot'; did you mean 'short'?"),
        (BOTH, ("--model.lora.dropout=0.1",), "model.lora.dropout: fits together would not drop as fits alone do"),
    ],
)
def test_what_cannot_be_in_one_pass_is_said_before_anything_runs(
    folder: Path, command: Command, objective: str, options: tuple[str, ...], message: str
) -> None:
    said = fit(folder, command, objective, *options)
    assert said.code == 2
    assert message in said.err.splitlines()[-1]
    assert not list((folder / "run").glob("align-*"))


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (["align", "realign", "report"], ["align-kind + align-short", "realign-kind + realign-short", "report"]),
        (["align-short", "realign"], ["align-short", "realign-kind + realign-short"]),
    ],
)
def test_a_run_plans_one_command_for_the_alignments_of_a_round(
    finished_run: Path, command: Command, only: list[str], expected: list[str]
) -> None:
    words = ("--set", "recipe.align=together", "--only", *only, "--dry_run")
    said = command("run", "--config", finished_run / "recipe.yaml", *words)
    assert re.findall(r"^# (.*)$", said.out, re.MULTILINE) == expected
    for line in said.out.splitlines():
        if line.startswith("sipo_pl fit"):
            assert ("--objective kind+short" in line) == ("short" in line and "kind" in line)
