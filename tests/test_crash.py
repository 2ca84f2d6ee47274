"""The short form of `make crash`."""

import os
import signal
from pathlib import Path

import pytest
from crash import Blow, Campaign


def test_a_run_under_a_few_blows_ends_as_a_whole_one(
    tmp_path: Path, talkative_model: Path, finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("CRASH_TRACE", "")
    campaign = Campaign(finished_run / "run", talkative_model, seed=3)
    plan = [
        Blow(signal.SIGKILL, True, "align-kind", "epoch"),
        Blow(signal.SIGTERM, True, "align-short", "epoch"),
        Blow(signal.SIGKILL, False, "sample", "unit"),
    ]
    campaign.run(tmp_path / "run", plan)
    figures = campaign.figures
    assert figures.fine, figures
    assert figures.blows == {"SIGKILL": 2, "SIGTERM": 1}
