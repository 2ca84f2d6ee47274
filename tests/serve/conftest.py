"""A run behind a server, for all tests of a file."""

import shutil
from pathlib import Path

import pytest
import torch
from lively_run import Lively, set_recipe
from serving import write_policies
from tiny import CHAT_TEMPLATE, make_tiny_model
from transformers import AutoModelForCausalLM

from sipo_pl.recipe.recipe import Template


@pytest.fixture(scope="session")
def served(lively: Lively, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the lively run under the chat template of its tokenizer, called `talk`. Not to be changed."""
    run = tmp_path_factory.mktemp("served") / "talk"
    shutil.copytree(lively.run, run)
    set_recipe(run, template={"kind": "chat", "text": "Q: {raw_prompt}", "system": "Be brief."})
    return run


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of policies, called `talk`, whose answers end at their longest alone. Not to be changed."""
    folder = tmp_path_factory.mktemp("endless")
    base = make_tiny_model(folder / "model", seed=1, spread=0.3, chat_template=CHAT_TEMPLATE)
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.lm_head.weight[model.config.eos_token_id] = 0  # others are far above
    model.save_pretrained(base)
    return write_policies(folder / "talk", base, ("kind", "short"), Template("chat"), spread=0.1)
