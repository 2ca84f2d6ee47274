"""Fits on a GPU by CUDA graphs: alone, several in one process, and beside the same without graphs."""

import os
from pathlib import Path

import pytest
import torch
import yaml
from crash import TRACE_VARIABLE
from tiny_run import Command, write_recipe, write_yaml

from sipo_pl.artifacts import read_jsonl
from sipo_pl.policies.graphed import AdapterLogps

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

NAMES = ("kind", "short")


def test_losses_are_the_same_alone_together_and_without_graphs(
    tmp_path: Path, talkative_model: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_recipe(tmp_path, talkative_model, dtype="bfloat16")
    config = yaml.safe_load((tmp_path / "align.yaml").read_text())
    config["trainer"] |= {"accelerator": "gpu", "callbacks": [{"class_path": "crash.Trace"}]}
    write_yaml(tmp_path / "align.yaml", config)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    captured: list[AdapterLogps] = []
    capture = AdapterLogps._capture

    def counted(self: AdapterLogps, *args: object) -> object:
        captured.append(self)
        return capture(self, *args)

    monkeypatch.setattr(AdapterLogps, "_capture", counted)
    losses: dict[str, list[float]] = {}
    for way, graphs, objectives in (
        ("launched", "false", NAMES),
        ("graphs", "true", NAMES),
        ("together", "true", ["+".join(NAMES)]),
    ):
        trace = tmp_path / way
        trace.mkdir()
        monkeypatch.setenv(TRACE_VARIABLE, str(trace))
        place = ("--recipe.run_dir", trace / "run")
        assert command("prepare", "--config", tmp_path / "prepare.yaml", *place).code == 0
        captured.clear()
        for name in objectives:
            words = ("--objective", name, "--model.forwards.graphs", graphs, *place)
            said = command("fit", "--config", tmp_path / "align.yaml", *words)
            assert said.code == 0, said.err
            assert "not replayed" not in said.err
        assert len(set(captured)) == (len(NAMES) if graphs == "true" else 0)
        losses[way] = [
            float.fromhex(event["loss"])
            for name in NAMES
            for event in read_jsonl(trace / f"align-{name}.jsonl")
            if "step" in event
        ]
    assert len(losses["launched"]) >= 6
    for way in ("graphs", "together"):
        torch.testing.assert_close(losses[way], losses["launched"], rtol=0.05, atol=0.02)
