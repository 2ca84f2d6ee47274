"""Fits on a GPU by CUDA graphs: stopped and resumed, and beside the same without graphs."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from crash import TRACE_VARIABLE
from safetensors.torch import load_file
from tiny_run import Command, write_recipe, write_yaml

from sipo_pl.engine.logprobs.cuda_graphs import AdapterLogps
from sipo_pl.storage.json_lines import read_jsonl, write_jsonl

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

NAMES = ("kind", "short")
STOP = (
    "--trainer.callbacks+=stoppers.AskAt",
    "--trainer.callbacks.batch=2",
    "--trainer.callbacks.by=SIGTERM",
)


class Fits:
    """Fits of a tiny model, each way in a folder of its own.

    Args:
        folder: takes the recipe and the runs; `short` has fewer pairs, so that it ends earlier than `kind`.
        model: the base.
        command: runs a command.
        environment: sets variables.
    """

    def __init__(self, folder: Path, model: Path, command: Command, environment: pytest.MonkeyPatch) -> None:
        self.folder, self.command, self.environment = folder, command, environment
        write_recipe(folder, model, size=2, dtype="bfloat16")
        rows = read_jsonl(folder / "train.jsonl")
        for row in rows[:8]:
            row["short"] = 0  # a tie
        write_jsonl(folder / "train.jsonl", rows)
        config = yaml.safe_load((folder / "align.yaml").read_text())
        config["trainer"] |= {"accelerator": "gpu", "callbacks": [{"class_path": "crash.Trace"}]}
        config["model"]["optimizer"] = {"class_path": "torch.optim.SGD", "init_args": {"lr": 50.0}}
        write_yaml(folder / "align.yaml", config)
        paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        environment.setenv("PYTHONPATH", os.pathsep.join(paths))

    def fit(self, way: str, *words: object, code: int = 0) -> str:
        """Fit the objectives one after another; return what was said."""
        place = ("--recipe.run_dir", self.folder / way / "run")
        (self.folder / way).mkdir(exist_ok=True)
        self.environment.setenv(TRACE_VARIABLE, str(self.folder / way))
        assert self.command("prepare", "--config", self.folder / "prepare.yaml", *place).code == 0
        said = ""
        for name in NAMES:
            one = self.command("fit", "--config", self.folder / "align.yaml", "--objective", name, *words, *place)
            assert one.code == code, one.err
            said += one.err
        return said

    def made(self, way: str) -> dict[str, Any]:
        """Return the losses of the steps of each fit, and the effect of its adapter on each layer."""
        found: dict[str, Any] = {}
        for name in NAMES:
            events = read_jsonl(self.folder / way / f"align-{name}.jsonl")
            losses = {event["step"]: float.fromhex(event["loss"]) for event in events if "step" in event}
            found[f"{name} losses"] = torch.tensor([losses[step] for step in sorted(losses)])
            ranks = load_file(self.folder / way / f"run/align-{name}/adapter/adapter_model.safetensors")
            for key, rank in ranks.items():
                if "lora_B" in key:
                    found[f"{name} {key}"] = rank @ ranks[key.replace("lora_B", "lora_A")]
        return found


@pytest.fixture
def fits(tmp_path: Path, talkative_model: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> Fits:
    return Fits(tmp_path, talkative_model, command, monkeypatch)


def assert_alike(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare to a twentieth of the largest number: in bfloat16, and with rows padded, no more is the same."""
    assert found.keys() == expected.keys()
    assert len(expected["kind losses"]) > len(expected["short losses"]) >= 9
    assert expected["kind losses"].max() - expected["kind losses"].min() > 0.1  # so that something was learnt
    for key, value in expected.items():
        assert (found[key] - value).abs().max() <= 0.05 * value.abs().max(), key


def test_fits_are_the_same_with_and_without_graphs(fits: Fits, monkeypatch: pytest.MonkeyPatch) -> None:
    captured: list[AdapterLogps] = []
    capture = AdapterLogps._capture

    def counted(self: AdapterLogps, *args: object) -> object:
        captured.append(self)
        return capture(self, *args)

    monkeypatch.setattr(AdapterLogps, "_capture", counted)
    fits.fit("launched", "--model.forwards.graphs=false")
    assert not captured
    assert "not replayed" not in fits.fit("graphs")
    assert len(set(captured)) == len(NAMES)
    assert_alike(fits.made("graphs"), fits.made("launched"))


def test_fits_that_are_stopped_go_on_to_the_same_end(fits: Fits) -> None:
    fits.fit("whole")
    assert fits.fit("stopped", *STOP, "--saving.save_every=1000", code=75).count("which is saved") == len(NAMES)
    assert fits.fit("stopped").count("resuming from") == len(NAMES)
    assert_alike(fits.made("stopped"), fits.made("whole"))
