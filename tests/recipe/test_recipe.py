"""Where a run keeps what its rounds make, and what a recipe may say of rounds."""

import json
from pathlib import Path
from typing import Any

import pytest

from sipo_pl.messages.errors import SettingError
from sipo_pl.recipe.checks import check_recipe
from sipo_pl.recipe.compat import Compat
from sipo_pl.recipe.recipe import Data, Objective, Recipe, RunLayout, Template

RUN = Path("runs/x")


def make_recipe(**changes: Any) -> Recipe:
    data = Data(train=[], validation=[])
    return Recipe(
        **{"name": "x", "base_model": "m", "objectives": [Objective("a"), Objective("b")], "data": data} | changes
    )


def test_a_later_round_has_a_folder_of_its_own_for_its_stages() -> None:
    first, second = RunLayout(RUN), RunLayout(RUN, 2)
    for name in ("sample", "review", "rewrite", "score", "combine", "filter", "evaluate-realign", "measure-realign"):
        assert first.stage(name) == RUN / name
        assert second.stage(name) == RUN / "round-2" / name
    assert second.stage("realign", "a") == second.stage("realign-a") == RUN / "round-2/realign-a"
    for name in ("prepare", "align-a", "evaluate-align", "measure-align", "report"):
        assert second.stage(name) == RUN / name
    assert second.cache == RUN / "cache"


def test_a_round_starts_from_the_policies_of_the_round_before() -> None:
    own, made = Objective("a", adapter="own/a"), Objective("b")
    assert RunLayout(RUN).adapter("align", own) == Path("own/a")
    assert RunLayout(RUN).adapter("align", made) == RUN / "align-b/adapter"
    assert RunLayout(RUN, 2).adapter("align", own) == RUN / "realign-a/adapter"
    assert RunLayout(RUN, 3).adapter("align", made) == RUN / "round-2/realign-b/adapter"
    assert RunLayout(RUN, 3).adapter("realign", made) == RUN / "round-3/realign-b/adapter"
    assert RunLayout(RUN, 3).adapter("first", own) == Path("own/a")
    assert RunLayout(RUN, 3).adapter("first", made) == RUN / "align-b/adapter"


def test_rounds_differ_in_the_seed_of_their_fits() -> None:
    seeds = [make_recipe(rounds=3, round=number).round_seed for number in (1, 2, 3)]
    assert seeds[0] == make_recipe().seed
    assert len(set(seeds)) == 3


@pytest.mark.parametrize(
    ("changes", "key", "problem"),
    [
        ({"name": "../../x"}, "name", "'../../x' names no folder below `runs`; run_dir sets a run folder anywhere"),
        ({"name": "/x"}, "name", "'/x' names no folder below `runs`; run_dir sets a run folder anywhere"),
        ({"name": "a\0b"}, "name", "'a\\x00b' cannot be the name of a folder: too long, or with a zero byte in it"),
        (
            {"objectives": [Objective("a" * 101), Objective("b")]},
            "objectives",
            f"the name {'a' * 20!r}… is longer than 100 bytes",
        ),
        ({"rounds": 0}, "rounds", "at least one is needed, found 0"),
        ({"round": 2}, "round", "expected 1 to 1 (the recipe's rounds), found 2"),
        ({"rounds": 3, "round": 0}, "round", "expected 1 to 3 (the recipe's rounds), found 0"),
        (
            {"compat": Compat(search_markers=True), "template": Template(kind="chat")},
            "compat.search_markers",
            "needs a plain template with text behind the prompt",
        ),
    ],
)
def test_wrong_rounds_and_marks_are_refused(changes: dict[str, Any], key: str, problem: str) -> None:
    with pytest.raises(SettingError) as caught:
        check_recipe(make_recipe(**changes))
    assert (caught.value.key, caught.value.problem) == (key, problem)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"use_dora": True}, "use_dora cannot be carried by stacked adapters"),
        (
            {"bias": "all", "modules_to_save": ["lm_head"]},
            "modules_to_save, bias cannot be carried by stacked adapters",
        ),
        ({"peft_type": "IA3"}, "not a LoRA adapter but IA3"),
        ({}, "adapter_model.safetensors is missing; weights are read as safetensors only"),
    ],
)
def test_an_adapter_that_cannot_be_used_is_refused_by_its_config(
    tmp_path: Path, config: dict[str, Any], problem: str
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, **config}))
    recipe = make_recipe(objectives=[Objective("a", adapter=str(tmp_path)), Objective("b")])
    with pytest.raises(SettingError) as caught:
        check_recipe(recipe)
    assert (caught.value.key, caught.value.problem) == ("objectives", f"adapter of 'a': {tmp_path}: {problem}")
