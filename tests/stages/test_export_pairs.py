from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from test_prepare import GOOD, LONG, prompts, rows, with_data, write
from test_prepare import recipe as recipe  # the fixture

from sipo_pl.commands.export_pairs import export_pairs, preferences
from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.stages.prepare import prepare
from sipo_pl.storage.json_lines import read_jsonl


def exported(folder: Path, split: str) -> dict[str, list[Any]]:
    return {name: [folder / name / f"{split}.jsonl"] for name in ("helpful", "verbose")}


def test_a_round_trip_keeps_pairs_and_preferences(recipe: Recipe, tmp_path: Path) -> None:
    write(Path(recipe.data.train[0]), {f"train{i}": [GOOD, LONG, (3, 4)] for i in range(6)})
    prepare(recipe)
    export_pairs(recipe, str(tmp_path / "trl"))
    again = replace(recipe, run_dir=str(tmp_path / "again"))
    again = with_data(
        again,
        train=exported(tmp_path / "trl", "train"),
        validation=exported(tmp_path / "trl", "validation"),
        test=recipe.data.validation,
        converter={"class_path": "sipo_pl.data.converters.trl.TRL"},
        keep_apart=False,
    )
    prepare(again)

    def told(one: Recipe, split: str) -> list[Any]:
        found = []
        for row in rows(one, split):
            texts = (row["response_0"], row["response_1"])
            preferred = {name: texts[index] if index >= 0 else None for name, index in row["preferred"].items()}
            found.append((row["prompt_id"], sorted(texts), preferred))
        return sorted(found, key=str)

    assert any(row["preferred"]["helpful"] == -1 for row in rows(recipe, "train"))
    for split in ("train", "train_conflict", "validation"):
        assert told(again, split) == told(recipe, split)


def test_files_load_as_a_data_set(recipe: Recipe, tmp_path: Path) -> None:
    prepare(recipe)
    export_pairs(recipe, str(tmp_path / "trl"))
    path = tmp_path / "trl/verbose/train.jsonl"
    loaded = load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert set(loaded.column_names) == {"prompt", "chosen", "rejected"}
    first = prompts(recipe, "train")[0]
    assert loaded[0] == {"prompt": first, "chosen": f"{first} 1", "rejected": f"{first} 0"}


def test_one_chat_prompt_makes_all_of_them_chat() -> None:
    chat = [{"role": "user", "content": "q"}]
    pair: dict[str, Any] = {"response_0": "a", "response_1": "b", "preferred": {"x": 1, "y": -1}}
    both = [{**pair, "prompt": "p"}, {**pair, "prompt": chat}]
    found = preferences(both, "x", chat=True)
    assert [row["prompt"] for row in found] == [[{"role": "user", "content": "p"}], chat]
    assert found[0]["chosen"] == [{"role": "assistant", "content": "b"}]
    assert found[0]["rejected"] == [{"role": "assistant", "content": "a"}]
    assert preferences(both, "y", chat=True) == []
    assert preferences(both[:1], "x", chat=False) == [{"prompt": "p", "chosen": "b", "rejected": "a"}]


def test_nothing_else_is_overwritten(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run/prepare: no such input; `sipo_pl prepare` makes it"):
        export_pairs(recipe, str(tmp_path / "trl"))
    prepare(recipe)
    export_pairs(recipe, str(tmp_path / "trl"))
    with pytest.raises(UserError, match=r"trl: holds an earlier export \(--overwrite makes it anew\)"):
        export_pairs(recipe, str(tmp_path / "trl"))
    export_pairs(recipe, str(tmp_path / "trl"), overwrite=True)
    (tmp_path / "trl/thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"trl: holds other files, such as .*thesis\.txt; choose another folder"):
        export_pairs(recipe, str(tmp_path / "trl"), overwrite=True)
    with pytest.raises(UserError, match=r"thesis\.txt: a file; choose another folder"):
        export_pairs(recipe, str(tmp_path / "trl/thesis.txt"))
    assert len(read_jsonl(tmp_path / "trl/helpful/train.jsonl")) == len(rows(recipe, "train"))
