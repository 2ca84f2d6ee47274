"""Base models whose layers are in several places, and those whose weights are in four bits."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import Command

from sipo_pl.data.units import read_units
from sipo_pl.engine.decoding.segments import CacheLevel, SegmentPath
from sipo_pl.engine.models.device_map import device_of, is_spread
from sipo_pl.engine.models.loading import load_base

PLACES = {
    "model.embed_tokens": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "cpu",
}


def test_a_layer_computes_elsewhere_than_its_weights_wait(talkative_model: Path) -> None:
    model = load_base(str(talkative_model), "float32", device_map=PLACES)
    assert is_spread(model)
    waiting = model.get_submodule("model.layers.1.self_attn.q_proj")
    assert next(waiting.parameters()).device == torch.device("meta")
    assert device_of(waiting) == torch.device("cpu")
    assert not is_spread(load_base(str(talkative_model), "float32"))


def test_a_prediction_of_a_spread_model_makes_the_same_rows(
    aligned_folder: Path, finished_run: Path, command: Command
) -> None:
    words = ["predict", "--config", aligned_folder / "evaluate.yaml", "--policies", "align"]
    said = command(*words, "--recipe.device_map", json.dumps(PLACES))
    assert said.code == 0, said.err
    found, expected = (read_units(one / "run/evaluate-align") for one in (aligned_folder, finished_run))
    assert found == expected


def test_layers_on_another_device_see_the_same_keys() -> None:
    numbers = torch.zeros(2, dtype=torch.long)
    path = SegmentPath([], CacheLevel.empty(4, numbers, numbers))
    there = path.on(torch.device("meta"))
    assert there.last.lengths.device.type == "meta"
    assert there.last.keys is path.last.keys
    assert path.on(torch.device("meta")) is there
    assert path.on(numbers.device) is path


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantize": "4bit", "compat.merged_reference": "true"}, "which are in four bits"),
        ({"device_map": "auto", "compile": "true"}, "layers that device_map spreads over devices are not compiled"),
    ],
)
def test_what_does_not_go_together(
    aligned_folder: Path, command: Command, settings: dict[str, Any], message: str
) -> None:
    options = [word for key, value in settings.items() for word in ("--set", f"recipe.{key}={value}")]
    said = command("run", "--config", aligned_folder / "recipe.yaml", "--dry_run", *options)
    assert said.code == 2
    assert message in said.err
