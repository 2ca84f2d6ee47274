"""Exported policies that were damaged, edited, or written by an older version."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving import write_policies
from tiny_run import Command

from sipo_pl.messages.errors import UserError
from sipo_pl.method.divergences import Alpha
from sipo_pl.recipe.recipe import Template
from sipo_pl.use.api import load
from sipo_pl.use.fusion_file import FUSION_FILE, component_of
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


OWN_RULE = """
from pathlib import Path
Path(__file__).with_name("imported").touch()
from sipo_pl.method.divergences import ReverseKL
class Tempered(ReverseKL):
    def __init__(self, power=1.0):
        self.power = power
    def fuse(self, scores, weights, reference):
        return super().fuse(scores, weights, reference) * self.power
"""


@pytest.fixture
def own_rule(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of policies that name a class of the module `own_fusion_rule`, which can be imported."""
    (tmp_path / "own_fusion_rule.py").write_text(OWN_RULE)
    monkeypatch.syspath_prepend(tmp_path)
    rule = {"class_path": "own_fusion_rule.Tempered", "init_args": {"power": 2.0}}
    change(folder, lambda values: values.update(divergence=rule, hash=None))
    return folder


def test_a_file_does_not_choose_code(own_rule: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = own_rule.parent / "imported"
    with pytest.raises(UserError, match=r'--divergence own_fusion_rule\.Tempered, or load\(\.\.\., divergence="own_'):
        load(own_rule)
    for name in ("chat", "serve"):
        said = command(name, "--model", own_rule, *(["--port", 0] if name == "serve" else []))
        assert said.code == 1
        assert "--divergence own_fusion_rule.Tempered" in said.err
        assert "Traceback" not in said.err
        said = command(name, "--model", own_rule, "--divergence", "own_fusion_rule.Tempred")
        assert said.code == 2
    assert not imported.exists()
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n"))
    said = command("chat", "--model", own_rule, "--divergence", "own_fusion_rule.Tempered", "--max_new_tokens", 3)
    assert said.code == 0, said.err
    assert imported.exists()


def test_the_class_that_the_user_names_fuses_with_the_arguments_of_the_file(own_rule: Path) -> None:
    source = open_source(own_rule, divergence="own_fusion_rule.Tempered")
    assert vars(source.divergence) == {"power": 2.0}
    assert component_of(source.divergence, {"class_path": "x", "init_args": {"power": 2.0}}) == {
        "class_path": "own_fusion_rule.Tempered",
        "init_args": {"power": 2.0},
    }
    for name in ("os; import x", "Tempered", "own_fusion_rule.Tem\npered", 3):
        change(own_rule, lambda values, name=name: values["divergence"].update(class_path=name))  # type: ignore[misc]
        with pytest.raises(UserError, match="expected the import path of a class"):
            open_source(own_rule)


def test_an_earlier_name_of_a_shipped_class_needs_no_word_of_the_user(folder: Path) -> None:
    rule = {"class_path": "sipo_pl.divergences.Alpha", "init_args": {"alpha": 0.3}}
    change(folder, lambda values: values.update(divergence=rule, hash=None))
    assert open_source(folder).divergence == Alpha(0.3)
