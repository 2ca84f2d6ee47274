"""Stage folders as data sets of the library datasets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import get_dataset_config_names, load_dataset
from tiny_run import write_rows

from sipo_pl.data.folder_card import write_folder_card
from sipo_pl.data.units import read_units
from sipo_pl.storage.json_lines import read_jsonl

Read = Callable[..., Any]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    return lambda folder, *name, split: load_dataset(str(folder), *name, split=split, cache_dir=str(tmp_path / "cache"))


@pytest.mark.parametrize("stage", ["sample", "review", "rewrite", "score", "evaluate-realign", "measure-align"])
def test_folders_of_units_hold_their_rows_and_nothing_else(finished_run: Path, read: Read, stage: str) -> None:
    folder = finished_run / "run" / stage
    assert read(folder, split="train").to_list() == read_units(folder)


def test_other_folders_too(finished_run: Path, read: Read) -> None:
    run = finished_run / "run"
    assert get_dataset_config_names(str(run / "prepare")) == ["pairs", "prompts"]
    for split in ("train", "train_conflict", "validation"):
        found = read(run / "prepare", split=split).to_list()
        assert found == read_jsonl(run / "prepare" / f"{split}.jsonl")
    assert read(run / "prepare", "prompts", split="test").to_list() == read_jsonl(run / "prepare" / "test.jsonl")
    for stage, name in (("combine", "combined"), ("filter", "kept")):
        rows = read(run / stage, split="train").to_list()
        expected = read_jsonl(run / stage / f"{name}.jsonl")
        assert [_known(row) for row in rows] == [_known(row) for row in expected]  # rows without rewards have nulls


def test_types_hold_for_all_rows_though_the_first_do_not_tell_them(tmp_path: Path, read: Read) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": [{"role": "user", "content": "x"}], "marks": [], "score": 1},
        {"prompt": [{"role": "user", "content": "y"}], "marks": ["cut"], "score": 0.5, "previous": "z"},
    ]
    write_rows(tmp_path / "unit-00000.jsonl", rows[:1])
    write_rows(tmp_path / "unit-00001.jsonl", rows[1:])
    write_rows(tmp_path / "manifest.json", [{"stage": "sample"}])
    write_folder_card(tmp_path)
    found = read(tmp_path, split="train").to_list()
    assert [_known(row) for row in found] == [{**row, "score": float(row["score"])} for row in rows]


def _known(value: Any) -> Any:
    """Return a row without the keys whose values are null, which a table adds."""
    if isinstance(value, dict):
        return {key: _known(one) for key, one in value.items() if one is not None}
    return [_known(one) for one in value] if isinstance(value, list) else value
