"""The short form of `make crash`."""

import os
from pathlib import Path

import crash
import pytest


def test_a_run_under_a_few_blows_ends_as_a_whole_one(
    tmp_path: Path, talkative_model: Path, finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv(crash.STEPS_VARIABLE, str(tmp_path))
    figures = crash.crash(tmp_path, talkative_model, finished_run / "run", seed=3, blows=2)
    assert figures.fine, figures
    assert figures.runs >= 1
