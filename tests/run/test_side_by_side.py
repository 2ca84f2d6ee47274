"""Fits side by side: what may run at once, on which devices, and what a failure or a signal does to the others."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file
from tiny_run import Command, kill, start, wait_until, write_recipe, write_yaml

from sipo_pl.messages.errors import UsageError
from sipo_pl.recipe.config.overrides import Overrides, parse_recipe
from sipo_pl.recipe.graph.node import Node
from sipo_pl.recipe.graph.run import build_graph
from sipo_pl.run.devices import THREADS, VISIBLE, lane_environments, next_stage
from sipo_pl.storage.manifest import Manifest

NAMES = ("kind", "short")
WEIGHTS = "adapter/adapter_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path, talkative_model: Path, finished_run: Path) -> Path:
    """A recipe whose data is prepared."""
    write_recipe(tmp_path, talkative_model)
    shutil.copytree(finished_run / "run/prepare", tmp_path / "run/prepare")
    return tmp_path


def at_once(waiting: list[Node]) -> list[list[str]]:
    """Return the stages that run at once, all of which end at the same time."""
    found, left = [], list(waiting)
    while left:
        running: list[Node] = []
        while (index := next_stage(left, running)) is not None:
            running.append(left.pop(index))
        found.append([node.name for node in running])
    return found


def test_fits_run_at_once_and_other_stages_alone_in_their_order(tmp_path: Path, tiny_model: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model, stages={"sft": True, "review": False})
    graph = build_graph(parse_recipe(str(recipe), Overrides(())))
    assert at_once(graph) == [
        ["prepare"],
        ["sft"],
        ["align-kind", "align-short"],
        *([name] for name in ("evaluate-align", "measure-align", "sample", "score", "combine", "filter")),
        ["realign-kind", "realign-short"],
        *([name] for name in ("evaluate-realign", "measure-realign", "report")),
    ]


def test_a_fit_overtakes_one_that_must_wait() -> None:
    first, above, free = (
        Node(name, "align", "align", (), inputs)
        for name, inputs in (("align-a", ("prepare",)), ("modpo", ("align-a",)), ("align-b", ("prepare",)))
    )
    assert at_once([first, above, free]) == [["align-a", "align-b"], ["modpo"]]


def test_lanes_share_the_devices_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(THREADS, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 9)
    assert lane_environments(1, ["0", "1"]) == [{}]
    assert lane_environments(2, ["0", "3", "5"]) == [{VISIBLE: "0", THREADS: "4"}, {VISIBLE: "3", THREADS: "4"}]
    assert [one[VISIBLE] for one in lane_environments(2, ["0", "1", "2", "3"])] == ["0,1", "2,3"]
    with pytest.raises(UsageError, match="--side_by_side 4: each fit needs a GPU of its own, found 2"):
        lane_environments(4, ["0", "1"])
    assert lane_environments(2, []) == [{THREADS: "4"}] * 2
    monkeypatch.setenv(THREADS, "3")
    assert lane_environments(2, []) == [{THREADS: "3"}] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="stages are forked on Linux alone")
def test_a_forked_stage_has_the_threads_that_its_lane_names() -> None:
    begin = "import sys, time; from sipo_pl.run.stage_process import StageProcess as P"
    start = "p = P(['env'], forks=True, environment={sys.argv[1]: sys.argv[2]})"
    code = f"{begin}; {start}\nwhile p.code is None: time.sleep(0.1)"
    words = [sys.executable, "-c", code, THREADS, "3,1"]  # one list for nested regions, as OpenMP has it
    said = subprocess.run(words, env={**os.environ, THREADS: "2"}, capture_output=True, text=True, timeout=120)
    assert re.search(r"torch threads\W+3\b", said.stdout), said


def test_a_run_side_by_side_makes_what_one_by_one_does(folder: Path, finished_run: Path, command: Command) -> None:
    said = command("run", "--config", folder / "recipe.yaml", "--only", "align", "--side_by_side", "2")
    assert said.code == 0, said.err
    log = (folder / "run/run.log").read_text()
    starts = [log.index(f"{name}: 6 pairs") for name in ("align-kind | train.jsonl", "align-short | train.jsonl")]
    ends = [log.index(f"align-{name} | align-{name}: written") for name in NAMES]
    assert max(starts) < min(ends)
    for name in NAMES:
        found, expected = (load_file(one / f"run/align-{name}" / WEIGHTS) for one in (folder, finished_run))
        assert found.keys() == expected.keys()
        assert all((found[key] - expected[key]).abs().max() < 1e-4 for key in expected)
    again = command("run", "--config", folder / "recipe.yaml", "--only", "align", "--side_by_side", "2")
    assert re.findall(r"\] (\S+): complete", again.err) == ["align-kind", "align-short"]


def test_a_fit_that_fails_ends_the_others_resumably(folder: Path, command: Command) -> None:
    config = yaml.safe_load((folder / "align.yaml").read_text())
    config["trainer"]["max_epochs"] = 400
    write_yaml(folder / "align.yaml", config)
    # its first checkpoint is in the way of the other one
    blocked = folder / "run/align-short/checkpoints"
    blocked.parent.mkdir()
    blocked.write_text("")
    said = command("run", "--config", folder / "recipe.yaml", "--only", "align", "--side_by_side", "2")
    assert said.code == 1, said.err
    assert "align-short ended with exit code 1" in said.err
    assert "stopped in align-kind; the same `run` goes on from here" in said.err
    manifest = Manifest.read(folder / "run/align-kind")
    assert manifest is None or not manifest.complete


def test_a_signal_reaches_all_fits(folder: Path) -> None:
    config = yaml.safe_load((folder / "align.yaml").read_text())
    config["trainer"]["max_epochs"] = 400
    write_yaml(folder / "align.yaml", config)
    process = start("run", "--config", folder / "recipe.yaml", "--only", "align", "--side_by_side", "2")
    try:
        checkpoints = [folder / f"run/align-{name}/checkpoints/last.ckpt" for name in NAMES]
        wait_until(process, lambda: all(file.exists() for file in checkpoints))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 75
    finally:
        kill(process)
    log = (folder / "run/run.log").read_text()
    for name in NAMES:
        assert re.search(rf"align-{name} \| .*stopped by SIGTERM at step \d+ of 1200", log)
        assert f"stopped in align-{name}" in log
