"""Devices that die or fall silent: the command ends with an error, leaves no process behind, and goes on from there."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_run import Command

from benchmarks.devices_read import curve
from benchmarks.launcher import Ranks, SelfStarted, is_gone
from sipo_pl.data.units import read_units, unit_files
from sipo_pl.storage.manifest import Manifest

PATIENCE = 60.0  # seconds within which a command must have ended

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")


@pytest.fixture
def started() -> Iterator[list[SelfStarted]]:
    found: list[SelfStarted] = []
    yield found
    for one in found:
        one.close()


def test_a_killed_device_ends_a_fit_which_then_goes_on(
    aligned_folder: Path, started: list[SelfStarted], command: Command
) -> None:
    shutil.rmtree(aligned_folder / "run/align-kind")
    words = ["fit", "--config", aligned_folder / "align.yaml", "--objective", "kind", "--trainer.max_epochs", "12"]
    one = SelfStarted([*words, "--trainer.strategy", "ddp"], aligned_folder / "said.txt")
    started.append(one)
    one.wait_until((aligned_folder / "run/align-kind/checkpoints/last.ckpt").exists)
    second = one.second
    assert second is not None
    os.kill(second, signal.SIGKILL)
    assert one.wait(PATIENCE) == 1
    said = one.said
    assert "device 1 of 1 was ended by SIGKILL" in said or "another device ended" in said
    assert is_gone(second)
    again = command(*words)
    assert again.code == 0, again.err
    assert "resuming from" in again.err
    manifest = Manifest.read(aligned_folder / "run/align-kind")
    assert manifest is not None
    assert manifest.complete
    assert manifest.notes["steps"] == 36
    assert list(curve(aligned_folder / "run/align-kind")) == list(range(36))  # no gap where the killed one ended


def test_a_silent_device_ends_a_prediction_after_the_time_limit(
    aligned_folder: Path, started: list[SelfStarted]
) -> None:
    words = ["predict", "--config", aligned_folder / "evaluate.yaml", "--policies", "align"]
    limit = ["--trainer.strategy=lightning.pytorch.strategies.DDPStrategy", "--trainer.strategy.timeout=0:00:05"]
    one = SelfStarted([*words, *limit], aligned_folder / "said.txt")
    started.append(one)
    one.wait_until(lambda: one.second is not None and "rows in" in one.said)
    second = one.second
    assert second is not None
    os.kill(second, signal.SIGSTOP)
    assert one.wait(PATIENCE) == 1
    assert "did not answer in time" in one.said
    assert is_gone(second)
    manifest = Manifest.read(aligned_folder / "run/evaluate-align")
    assert manifest is not None
    assert not manifest.complete


def test_a_killed_device_ends_a_prediction_of_a_launcher_which_then_goes_on_with_the_same_rows(
    aligned_folder: Path, finished_run: Path
) -> None:
    words = ["predict", "--config", aligned_folder / "evaluate.yaml", "--policies", "align", "--data.unit_prompts", "1"]
    ranks = Ranks(2, words, aligned_folder / "said")
    end = time.monotonic() + 120
    while not unit_files(aligned_folder / "run/evaluate-align"):
        assert time.monotonic() < end, ranks.said
        time.sleep(0.01)
    ranks.processes[1].kill()
    assert ranks.wait(PATIENCE) == [1, -signal.SIGKILL], ranks.said
    assert "another device ended" in ranks.said
    again = Ranks(2, words, aligned_folder / "again")
    assert again.wait() == [0, 0], again.said
    assert len(unit_files(aligned_folder / "run/evaluate-align")) == 3
    found, expected = (read_units(one / "run/evaluate-align") for one in (aligned_folder, finished_run))
    assert found == expected
