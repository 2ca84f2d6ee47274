"""A tiny model whose policies differ by far, and adapters of it that plain peft wrote."""

from pathlib import Path

import pytest
from tiny import make_tiny_adapter, make_tiny_model


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
