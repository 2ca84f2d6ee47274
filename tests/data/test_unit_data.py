from collections.abc import Sequence
from pathlib import Path

import pytest

from sipo_pl.data.datamodules.unit_data import PROMPTS, Unit, UnitData, UnitLoader
from sipo_pl.data.units import read_units, unit_files, unit_path
from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.recipe import Data, Objective, Recipe
from sipo_pl.storage.json_lines import write_jsonl


class Stage:
    """What a stage tells of its inputs."""

    max_rows: int | None = None

    def __init__(self, prompts: Path | None = None, sources: Sequence[str] = ()) -> None:
        self.prompts, self.sources = prompts, sources

    def prepare(self, unit: Unit) -> int:
        return -unit.index


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    objectives = [Objective("a"), Objective("b")]
    return Recipe("test", "model", objectives, Data(train=[], validation=[]), run_dir=str(tmp_path / "run"))


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    rows = [{"pair_id": i, "prompt_id": f"x{i // 2}", "prompt": f"p{i // 2}"} for i in range(14)]  # two pairs a prompt
    write_jsonl(path, rows)
    return path


def prompt_ids(unit: Unit) -> list[str]:
    return [row["prompt_id"] for row in unit.rows[PROMPTS]]


def test_units_hold_every_prompt_once_in_order(recipe: Recipe, prompts: Path, tmp_path: Path) -> None:
    data = UnitData(recipe, unit_prompts=3)
    assert data.plan(tmp_path / "sample", Stage(prompts)) == 3
    units = [data.unit(index) for index in range(3)]
    assert [prompt_ids(unit) for unit in units] == [["x0", "x1", "x2"], ["x3", "x4", "x5"], ["x6"]]
    assert units[0].rows[PROMPTS][0] == {"prompt_id": "x0", "prompt": "p0"}
    assert [unit.index for unit in units] == [0, 1, 2]
    assert {unit.folder for unit in units} == {tmp_path / "sample"}


def test_a_stage_may_bound_its_prompts(recipe: Recipe, prompts: Path, tmp_path: Path) -> None:
    stage, data = Stage(prompts), UnitData(recipe, unit_prompts=3)
    stage.max_rows = 7  # rows of pairs
    assert data.plan(tmp_path / "sample", stage) == 2
    assert prompt_ids(data.unit(1)) == ["x3"]


def test_no_prompts_are_an_error(recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    write_jsonl(path, [])
    with pytest.raises(UserError, match=r"prompts\.jsonl: no prompts"):
        UnitData(recipe).plan(tmp_path / "sample", Stage(path))


def test_a_prompt_without_an_id_is_named(recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    write_jsonl(path, [{"prompt_id": "x", "prompt": "p"}, {"promptid": "y", "prompt": "p"}])
    with pytest.raises(UserError, match=r"prompts\.jsonl:2: no key 'prompt_id'; did you mean 'promptid'"):
        UnitData(recipe).plan(tmp_path / "sample", Stage(path))


def test_a_stage_that_follows_another_keeps_its_units(recipe: Recipe, tmp_path: Path) -> None:
    for name in ("sample", "review"):
        for index in range(2):
            write_jsonl(unit_path(recipe.layout.stage(name), index), [{"sample_id": f"{name}{index}"}])
    data = UnitData(recipe)
    assert data.plan(tmp_path / "rewrite", Stage(sources=("sample", "review"))) == 2
    assert data.unit(1) == Unit(
        1, tmp_path / "rewrite", {"sample": [{"sample_id": "sample1"}], "review": [{"sample_id": "review1"}]}
    )


def test_written_units_are_not_made_again(recipe: Recipe, prompts: Path, tmp_path: Path) -> None:
    data = UnitData(recipe, unit_prompts=2)
    folder = tmp_path / "sample"
    data.plan(folder, Stage(prompts))
    write_jsonl(unit_path(folder, 1), [])  # an empty unit is written too
    (folder / ".unit-00002.jsonl.123.tmp").write_text("half")  # what a dead process left is no unit
    loader = data.predict_dataloader()
    assert len(loader) == 3
    assert [unit.index for unit in loader] == [0, 2, 3]


def test_devices_share_the_missing_units(recipe: Recipe, prompts: Path, tmp_path: Path) -> None:
    data = UnitData(recipe, unit_prompts=2)
    data.plan(tmp_path / "sample", Stage(prompts))
    assert [(unit.index, unit.prepared) for unit in UnitLoader(data, [0, 2, 3])] == [(0, 0), (2, -2), (3, -3)]


def test_units_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for index in (10, 2, 0):
        write_jsonl(unit_path(tmp_path, index), [{"n": index}, {"n": index + 0.5}])
    assert [row["n"] for row in read_units(tmp_path, ["n"])] == [0, 0.5, 2, 2.5, 10, 10.5]
    assert [path.name for path in unit_files(tmp_path)] == ["unit-00000.jsonl", "unit-00002.jsonl", "unit-00010.jsonl"]
    with pytest.raises(UserError, match=r"unit-00000\.jsonl:1: no key 'm'"):
        read_units(tmp_path, ["m"])
    assert read_units(tmp_path / "none") == []
