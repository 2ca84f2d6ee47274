"""A tiny model whose policies differ by far, and adapters of it that plain peft wrote."""

from pathlib import Path

import pytest
from fused import Model
from peft import PeftModel
from tiny import make_tiny_adapter, make_tiny_model
from transformers import AutoModelForCausalLM

from sipo_pl.engine.lora.policies import PolicySet, load_policies, read_policies
from sipo_pl.recipe.recipe import Data, Objective, Recipe


@pytest.fixture(scope="session")
def lively_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Llama with large weights, so that texts vary and adapters matter."""
    return make_tiny_model(tmp_path_factory.mktemp("lively") / "model", seed=1, spread=0.3)


@pytest.fixture(scope="session")
def adapter_folders(lively_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of three adapters: of other ranks, alphas, scaling rules and targets."""
    folder = tmp_path_factory.mktemp("adapters")
    return [
        make_tiny_adapter(folder / "plain", lively_model, 1),
        make_tiny_adapter(folder / "rslora", lively_model, 2, r=8, lora_alpha=3, use_rslora=True),
        make_tiny_adapter(folder / "other", lively_model, 3, r=2, lora_alpha=2, target_modules=["q_proj", "up_proj"]),
    ]


@pytest.fixture(scope="session")
def policies(lively_model: Path, adapter_folders: list[Path]) -> PolicySet:
    """Two policies and, behind them, their base."""
    objectives = [Objective(folder.name, adapter=str(folder)) for folder in adapter_folders[:2]]
    recipe = Recipe("t", str(lively_model), objectives, Data([], []))
    return load_policies(recipe, read_policies(recipe, "align"), with_base=False)


@pytest.fixture(scope="session")
def models(lively_model: Path, adapter_folders: list[Path]) -> list[Model]:
    """The same three as models of their own, through plain peft."""
    adapted = [AutoModelForCausalLM.from_pretrained(lively_model) for _ in range(2)]
    policies = [PeftModel.from_pretrained(*pair).eval() for pair in zip(adapted, adapter_folders, strict=False)]
    return [*policies, AutoModelForCausalLM.from_pretrained(lively_model).eval()]
