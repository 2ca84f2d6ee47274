"""The registry of stages: the one list of them, quick to import, and every path in it leads somewhere."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_run import environment

import sipo_pl
from sipo_pl.recipe.components import import_class
from sipo_pl.registry import METHODS, PLACES, STAGES, command_of, place_of
from sipo_pl.registry.stage import COMPARED, POLICIES

PACKAGE = Path(sipo_pl.__file__).parent
FEW = 2  # stages that a stage may name together, as those that it reads


def stage_lists(path: Path) -> Iterator[str]:
    """Yield the places of lists, tuples, sets and dicts in a module that hold the names of more than a few stages."""
    known = {*STAGES, *PLACES}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        parts = node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", [])
        names = {part.value for part in parts if isinstance(part, ast.Constant) and part.value in known}
        if len(names) > FEW:
            yield f"{path.relative_to(PACKAGE)}:{node.lineno}: {', '.join(sorted(names))}"


def test_no_other_module_lists_stages() -> None:
    paths = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "registry/stages.py"]
    assert [found for path in sorted(paths) for found in stage_lists(path)] == []


def test_a_second_list_of_stages_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    path = tmp_path / "other.py"
    for text in ("('sft', 'align', x)", "['sft', 'align', 'judge']", "{'sft': 1, 'align': 2, 'measure-realign': 3}"):
        path.write_text(text)
        assert len(list(stage_lists(path))) == ("x" not in text)


def test_every_input_is_a_place_and_every_fit_of_a_method_a_stage() -> None:
    known = {*PLACES, POLICIES, COMPARED}
    for _, place in PLACES.values():
        for read in place.reads:
            assert {read.what, read.instead or read.what} <= known
    assert {one.fit for one in METHODS.values() if one.fit} <= set(STAGES)


def test_every_path_leads_to_something() -> None:
    for stage in STAGES.values():
        for path in (stage.target, stage.data, stage.cost, stage.inspected):
            assert not path or callable(import_class(path.replace(":", ".")))


def test_a_folder_is_known_by_its_name() -> None:
    names = {"align-helpful": "align", "align_long-a": "align_long", "evaluate-realign": "evaluate-realign"}
    for folder, name in {**names, "raco-0.2,0.8": "raco"}.items():
        found = place_of(folder)
        assert found is not None
        assert found.name == name
    assert place_of("tensorboard") is None
    assert command_of("evaluate-realign", round=2) == (
        "sipo_pl predict --config evaluate.yaml --policies realign --recipe.round 2"
    )


def test_the_registry_imports_nothing_heavy() -> None:
    program = "import sys, sipo_pl.registry; print(*sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    )
    imported = set(said.stdout.split())
    assert {"sipo_pl.registry", "sipo_pl.registry.stage"} <= imported
    assert not imported & {"torch", "lightning", "transformers", "jsonargparse", "yaml", "numpy", "sipo_pl.recipe"}
