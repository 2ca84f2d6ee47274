"""Devices that die or fall silent: the command ends with an error, leaves no process behind, and goes on from there."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from many import Ranks
from tiny_run import Command, environment

from sipo_pl.artifacts import Manifest
from sipo_pl.data.units import read_units, unit_files

PATIENCE = 60.0  # seconds within which a command must have ended

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")


class Started:
    """A command on two devices, of which the first process starts the second one."""

    def __init__(self, folder: Path, *words: object) -> None:
        self.file = folder / "said.txt"
        command = [sys.executable, "-m", "sipo_pl", *map(str, words), "--trainer.devices", "2"]
        with self.file.open("w") as said:
            self.process = subprocess.Popen(command, env=environment(), stdout=said, stderr=said)

    @property
    def second(self) -> int | None:
        """Return the process of the second device, once there is one."""
        first = self.process.pid
        for child in Path(f"/proc/{first}/task/{first}/children").read_text().split():
            with suppress(OSError):  # it is gone already
                if b"LOCAL_RANK=1" in Path(f"/proc/{child}/environ").read_bytes():
                    return int(child)
        return None

    def wait_until(self, reached: Any) -> None:
        end = time.monotonic() + 120
        while not reached():
            assert self.process.poll() is None, self.file.read_text()
            assert time.monotonic() < end, self.file.read_text()
            time.sleep(0.01)

    def ends(self) -> int:
        """Return the exit code, after a time that is not too long."""
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        for process in filter(None, [self.second if self.process.poll() is None else None, self.process.pid]):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def started() -> Iterator[list[Started]]:
    found: list[Started] = []
    yield found
    for one in found:
        one.close()


def is_gone(process: int) -> bool:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_a_killed_device_ends_a_fit_which_then_goes_on(
    aligned_folder: Path, started: list[Started], command: Command
) -> None:
    shutil.rmtree(aligned_folder / "run/align-kind")
    words = ["fit", "--config", aligned_folder / "align.yaml", "--objective", "kind", "--trainer.max_epochs", "12"]
    one = Started(aligned_folder, *words, "--trainer.strategy", "ddp")
    started.append(one)
    one.wait_until((aligned_folder / "run/align-kind/checkpoints/last.ckpt").exists)
    second = one.second
    assert second is not None
    os.kill(second, signal.SIGKILL)
    assert one.ends() == 1
    said = one.file.read_text()
    assert "device 1 of 1 was ended by SIGKILL" in said or "another device ended" in said
    assert is_gone(second)
    again = command(*words)
    assert again.code == 0, again.err
    assert "resuming from" in again.err
    manifest = Manifest.read(aligned_folder / "run/align-kind")
    assert manifest is not None
    assert manifest.complete
    assert manifest.notes["steps"] == 36


def test_a_silent_device_ends_a_prediction_after_the_time_limit(aligned_folder: Path, started: list[Started]) -> None:
    words = ["predict", "--config", aligned_folder / "evaluate.yaml", "--policies", "align"]
    limit = ["--trainer.strategy=lightning.pytorch.strategies.DDPStrategy", "--trainer.strategy.timeout=0:00:05"]
    one = Started(aligned_folder, *words, *limit)
    started.append(one)
    one.wait_until(lambda: one.second is not None and "rows in" in one.file.read_text())
    second = one.second
    assert second is not None
    os.kill(second, signal.SIGSTOP)
    assert one.ends() == 1
    assert "did not answer in time" in one.file.read_text()
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
