"""Fixtures that many tests share."""

import os
from pathlib import Path

import pytest
from tiny import CHAT_TEMPLATE, make_tiny_model

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Llama whose tokenizer adds BOS, has no pad token, and knows a chat template."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", chat_template=CHAT_TEMPLATE)
