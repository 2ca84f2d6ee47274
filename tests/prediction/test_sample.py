"""Sampling by interpolated policies."""

from pathlib import Path

import pytest
import torch
from tiny import make_tiny_adapter

from sipo_pl.engine.lora.adapters import interpolate, read_adapter
from sipo_pl.method.weights import WeightPlan
from sipo_pl.prediction.sample import Sample
from sipo_pl.recipe.compat import Compat
from sipo_pl.recipe.recipe import Data, Objective, Recipe


@pytest.mark.parametrize(("compounding", "acting"), [(False, (0.8, 0.4)), (True, (0.32, 0.4))])
def test_soups_answer_each_at_its_own_weight(
    tmp_path: Path, tiny_model: Path, compounding: bool, acting: tuple[float, float]
) -> None:
    folders = [make_tiny_adapter(tmp_path / name, tiny_model, seed) for seed, name in enumerate("ab")]
    recipe = Recipe(
        name="x",
        base_model=str(tiny_model),
        objectives=[Objective(folder.name, adapter=str(folder)) for folder in folders],
        data=Data(train=[], validation=[]),
        sample_weights=WeightPlan(points=["0.8,0.2", "0.4,0.6"]),
        compat=Compat(compounding_soups=compounding),
        run_dir=str(tmp_path / "run"),
    )
    module = Sample(recipe, soups=True, base=True)
    assert module.points == {"0.8,0.2": (1, 0, 0), "0.4,0.6": (0, 1, 0), "base": (0, 0, 1)}
    soups = [policy.factors for policy in module.read_policies()]
    policies = [read_adapter(folder).factors for folder in folders]
    for soup, weight in zip(soups, acting, strict=True):
        expected = interpolate(policies, (weight, 1 - weight))
        for name, factors in expected.items():
            torch.testing.assert_close(soup[name], factors)
