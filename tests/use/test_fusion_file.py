"""Exported policies that were damaged, edited, or written by an older version."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving import write_policies

from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.recipe import Template
from sipo_pl.use.fusion_file import FUSION_FILE
from sipo_pl.use.source import open_source


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    return write_policies(tmp_path / "policies", tiny_model, ("a", "b"), Template(kind="chat"), 0.1)


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = folder / FUSION_FILE
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))


def test_weights_may_be_changed_and_nothing_else(folder: Path) -> None:
    change(folder, lambda values: values.update(weights=[0.9, 0.1]))
    assert open_source(folder).weights == (0.9, 0.1)
    change(folder, lambda values: values.update(beta=0.2))
    with pytest.raises(
        UserError, match=r"fusion\.json: damaged, or edited beyond its weights, .* remove its key 'hash'"
    ):
        open_source(folder)
    change(folder, lambda values: values.pop("hash"))
    assert open_source(folder).beta == 0.2


def test_an_adapter_that_has_changed_is_refused(folder: Path) -> None:
    path = folder / "policies/b/adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"adapter_model\.safetensors: missing, damaged or edited .*`sipo_pl export`"):
        open_source(folder)


def test_a_file_of_an_older_version_is_read(folder: Path) -> None:
    change(folder, lambda values: [values.pop(key) for key in ("hash", "files", "tokenizer_hashes")])
    assert open_source(folder).names == ("a", "b")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"weights": [1.0]}, "1 weights for 2 objectives"),
        ({"weights": ["x", 1]}, "expected numbers"),
        ({"policies": {"a": {}}}, "policies.a: no key 'adapter'"),
        ({"objectives": 3}, "not iterable"),
        ({"template": {"kidn": "chat"}}, "kidn"),
    ],
)
def test_values_of_other_kinds_are_named(folder: Path, changes: dict[str, Any], problem: str) -> None:
    change(folder, lambda values: values.update(changes, hash=None))
    with pytest.raises(UserError, match=problem):
        open_source(folder)
