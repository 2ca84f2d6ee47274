"""Commands that are asked to stop: by a signal, by the time, by a file; and what they go on from."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from stoppers import ask_by
from tiny_run import Command, Said, write_recipe

from sipo_pl.messages.errors import UsageError
from sipo_pl.storage.hash_memory import file_hash
from sipo_pl.storage.json_lines import read_json
from sipo_pl.storage.manifest import Manifest
from sipo_pl.storage.stopping import ECHO, STOP_FILE, duration

WEIGHTS = "adapter/adapter_model.safetensors"


class CutOff(Callback):
    """Ends the fit at a hook of a batch, in training or validation: by a signal, or as a crash.

    Args:
        after: hooks until then
        asks: by a signal
    """

    def __init__(self, after: int, asks: bool) -> None:
        self.left, self.asks = after, asks

    def on_train_batch_start(self, *arguments: Any) -> None:
        self._count()

    def on_train_batch_end(self, *arguments: Any) -> None:
        self._count()

    def on_validation_batch_start(self, *arguments: Any) -> None:
        self._count()

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0 and self.asks:
            os.kill(os.getpid(), signal.SIGTERM)
        elif self.left == 0:
            raise RuntimeError("as if it were killed")


class Swallow(Callback):
    """Asks the fit to stop before it listens, and swallows the interruption, as libraries do at their import."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        try:
            ask_by("SIGTERM")
            time.sleep(1)
        except KeyboardInterrupt:
            pass


@pytest.fixture
def folder(tmp_path: Path, talkative_model: Path, finished_run: Path) -> Iterator[Path]:
    """A recipe whose data is prepared."""
    write_recipe(tmp_path, talkative_model)
    shutil.copytree(finished_run / "run/prepare", tmp_path / "run/prepare")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the finished run had
    yield tmp_path
    torch.set_num_threads(threads)


def fit(folder: Path, command: Command, *options: object) -> Said:
    return command("fit", "--config", folder / "align.yaml", "--objective", "kind", *options)


def ask(batch: int, by: object, after: float = 0.0) -> tuple[str, ...]:
    return (
        "--trainer.callbacks+=stoppers.AskAt",
        f"--trainer.callbacks.batch={batch}",
        f"--trainer.callbacks.by={by}",
        f"--trainer.callbacks.after={after}",
    )


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("1h30m", 5400), ("3h50m1s", 13801)])
def test_times_are_read(text: str, seconds: int) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "0s", "m", "1h-3m", "30m1h", "1.5h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no time, such as 90s"):
        duration(text)


# nine steps in three epochs; the fifth and the ninth are validated
@pytest.mark.parametrize(
    ("by", "batch", "step"), [("SIGTERM", 0, 4), ("SIGINT", 5, 6), ("SIGUSR1", 2, 5), (STOP_FILE, 4, 6)]
)
def test_a_fit_that_is_stopped_saves_its_step_and_goes_on(
    folder: Path, finished_run: Path, command: Command, by: str, batch: int, step: int
) -> None:
    by = str(folder / "run" / by) if by == STOP_FILE else by
    words = ("--saving.save_every", "1000")
    said = fit(folder, command, *ask(batch, by), *words)
    assert said.code == 75
    expected = f"stopped by {by} at step {step} of 9, which is saved; the same command goes on from here"
    assert said.err.splitlines()[-1] == f"sipo_pl fit: {expected}"
    manifest = Manifest.read(folder / "run/align-kind")
    assert manifest is not None
    assert not manifest.complete
    checkpoint = torch.load(folder / "run/align-kind/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == step
    again = fit(folder, command, *words)
    assert again.code == 0, again.err
    assert ("removed; it asked an earlier command to stop" in again.err) == (by == str(folder / "run/stop"))
    assert "resuming from" in again.err
    for name in (WEIGHTS, "manifest.json"):
        ours, theirs = folder / "run/align-kind" / name, finished_run / "run/align-kind" / name
        assert file_hash(ours) == file_hash(theirs) if name == WEIGHTS else read_json(ours) == read_json(theirs)


@pytest.mark.parametrize("seed", range(2))
def test_a_fit_that_is_cut_off_again_and_again_ends_as_a_whole_one(folder: Path, command: Command, seed: int) -> None:
    rng = random.Random(seed)
    every = ("--saving.validations", rng.randint(2, 4), "--saving.save_every", rng.randint(1, 3))
    words = (*every, "--trainer.max_epochs", 5)
    assert fit(folder, command, *words).code == 0
    whole = read_json(folder / "run/align-kind/manifest.json")
    shutil.rmtree(folder / "run/align-kind")
    codes = []
    while not codes or codes[-1] != 0:
        cut = (f"--trainer.callbacks+={__name__}.CutOff", f"--trainer.callbacks.after={rng.randint(5, 24)}")
        codes.append(fit(folder, command, *words, *cut, f"--trainer.callbacks.asks={rng.random() < 0.4}").code)
    assert {75, 1} < set(codes)
    assert read_json(folder / "run/align-kind/manifest.json") == whole


def test_a_fit_whose_interruption_was_swallowed_stops_at_its_first_step(folder: Path, command: Command) -> None:
    said = fit(folder, command, f"--trainer.callbacks+={__name__}.Swallow")
    assert said.code == 75
    assert "; the same command goes on from here" in said.err.splitlines()[-1]
    assert not (folder / "run/align-kind/adapter").exists()


SWALLOWED = """
import os, signal, sys, time
from sipo_pl.storage import stopping
stopping.INSISTS = 0.05
stopping.note_early()
if sys.argv[1] == "early":
    os.kill(os.getpid(), signal.SIGTERM)
try:
    with stopping.interruptible() as asked:
        try:  # what leaves a text given to exec as a plain KeyboardInterrupt would end Python by SIGINT
            exec("os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)")
        except BaseException:
            pass
        try:
            time.sleep(5)
        except BaseException:
            pass
        time.sleep(5)
except KeyboardInterrupt:
    os.kill(os.getpid(), signal.SIGTERM)  # too late to change anything
    sys.exit(75)
"""


@pytest.mark.parametrize("when", ["early", "later"])
def test_an_interruption_comes_again_until_it_arrives(when: str) -> None:
    began = time.monotonic()
    words = [sys.executable, "-c", SWALLOWED, when]
    said = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 75, said.stderr
    assert time.monotonic() - began < 30


def test_a_second_signal_stops_a_fit_at_once(folder: Path, command: Command) -> None:
    said = fit(folder, command, *ask(0, "SIGTERM"), *ask(0, "SIGINT", after=1.1 * ECHO))
    assert said.code == 75
    assert said.err.splitlines()[-1] == "sipo_pl fit: stopped; the same command goes on from here"


def test_a_signal_that_comes_twice_at_once_is_one(folder: Path, command: Command) -> None:
    said = fit(folder, command, *ask(0, "SIGINT"), *ask(0, "SIGINT"))
    assert said.code == 75
    assert "stopped by SIGINT at step 4 of 9, which is saved" in said.err


@pytest.mark.parametrize("by", ["SIGTERM", "the file"])
def test_a_prediction_stops_after_the_unit_it_is_at(
    folder: Path, finished_run: Path, command: Command, by: str
) -> None:
    for name in ("align-kind", "align-short"):
        shutil.copytree(finished_run / "run" / name, folder / "run" / name)
    file = folder / "run/stop"
    words = ("predict", "--config", folder / "sample.yaml")
    reason = by if by == "SIGTERM" else str(file)
    said = command(*words, "--trainer.callbacks+=stoppers.AskAtUnit", f"--trainer.callbacks.by={reason}")
    assert said.code == 75
    assert f"stopped by {reason} after 1 of 3 units, which are written; the same command" in said.err
    assert [path.name for path in sorted((folder / "run/sample").glob("unit-*"))] == ["unit-00000.jsonl"]
    assert command(*words).code == 0
    assert not file.exists()
    for path in (folder / "run/sample").glob("unit-*"):
        assert path.read_bytes() == (finished_run / "run/sample" / path.name).read_bytes()


def test_a_time_limit_stops_a_fit_at_a_step_and_a_run_before_a_stage(folder: Path, command: Command) -> None:
    said = fit(folder, command, "--stop_after", "1s", "--trainer.max_epochs", "100000")
    assert said.code == 75
    assert "stopped by --stop_after at step" in said.err
    assert (folder / "run/align-kind/checkpoints/last.ckpt").exists()
    said = command("run", "--config", folder / "recipe.yaml", "--until", "align", "--stop_after", "1s")
    assert said.code == 75
    assert "stopped by --stop_after before align-kind; the same `run` goes on from here" in said.err


def test_a_wrong_time_is_one_line(folder: Path, command: Command) -> None:
    for words in (("run", "--config", folder / "recipe.yaml"), ("fit", "--config", folder / "align.yaml")):
        objective = ("--objective", "kind") if words[0] == "fit" else ()
        said = command(*words, *objective, "--stop_after", "soon")
        assert said.code == 2
        assert "--stop_after: 'soon' is no time, such as 90s, 20m or 3h50m" in said.err
