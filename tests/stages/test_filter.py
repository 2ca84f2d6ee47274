"""Combine and filter over written scores: marks, rounds, and a recipe without combine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sipo_pl.data.datamodules.unit_data import Unit
from sipo_pl.data.units import unit_path
from sipo_pl.messages.errors import UserError
from sipo_pl.method.weights import WeightPlan
from sipo_pl.prediction.review import Review
from sipo_pl.prediction.score import Score
from sipo_pl.recipe.compat import Compat
from sipo_pl.recipe.inputs import stage_inputs
from sipo_pl.recipe.recipe import Data, Objective, Recipe
from sipo_pl.stages.combine import combine
from sipo_pl.stages.filter import filter
from sipo_pl.storage.json_lines import read_json, read_jsonl, write_json, write_jsonl
from sipo_pl.storage.manifest import open_stage
from sipo_pl.text.prompt import text_id

POINTS = ("0.8,0.2", "0.2,0.8")


def make_recipe(folder: Path, **changes: Any) -> Recipe:
    return Recipe(
        name="x",
        base_model="m",
        objectives=[Objective("a"), Objective("b")],
        data=Data(train=[], validation=[]),
        sample_weights=WeightPlan(points=list(POINTS)),
        run_dir=str(folder),
        **changes,
    )


def finish(recipe: Recipe, stage: str, **files: Any) -> None:
    """Write a complete stage folder; names of files come without their suffix."""
    folder = recipe.layout.stage(stage)
    manifest = open_stage(folder, stage, {}, {}, seed=1)
    for name, rows in files.items():
        path = unit_path(folder, 0) if name == "unit" else folder / f"{name}.jsonl"
        write_jsonl(path, rows) if isinstance(rows, list) else write_json(path.with_suffix(".json"), rows)
    manifest.finish(folder, [path for path in folder.iterdir() if path.name != "manifest.json"])


def pair(prompt: str) -> dict[str, Any]:
    names = {"pair_id": f"{prompt}/0-1", "prompt_id": prompt, "prompt": f"{prompt}?"}
    return {**names, "response_0": f"{prompt}0", "response_1": f"{prompt}1", "preferred": {"a": 0, "b": 1}}


def sample(prompt: str, point: str, text: str, marks: Sequence[str] = ()) -> dict[str, Any]:
    where = {"sample_id": f"{prompt}/1/{point}/0", "prompt_id": prompt, "prompt": f"{prompt}?", "point": point, "k": 0}
    return {**where, "text": text, "marks": list(marks)}


def score(prompt: str, text: str, a: float, b: float) -> dict[str, Any]:
    rewards = {"policy:a": a, "policy:b": b}
    return {"text_id": text_id(prompt, text), "prompt_id": prompt, "rewards": rewards}


def originals(*prompts: str) -> list[dict[str, Any]]:
    return [row for p in prompts for row in (score(p, f"{p}0", 1, 0), score(p, f"{p}1", 0, 1))]


def kept(recipe: Recipe) -> dict[str, dict[str, Any]]:
    return {row["pair_id"][0]: row for row in read_jsonl(recipe.layout.kept)}


def test_without_combine_the_samples_are_the_candidates(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    finish(recipe, "prepare", train_conflict=[pair("p"), pair("q")])
    finish(
        recipe,
        "sample",
        unit=[sample("p", POINTS[0], "low"), sample("p", POINTS[1], "high"), sample("q", POINTS[0], "")],
    )
    finish(
        recipe,
        "score",
        unit=[*originals("p", "q"), score("p", "low", 2, 2), score("p", "high", 3, 2), score("q", "", 0, 0)],
    )
    filter(recipe, min_kept=1, combined=False)
    rows = kept(recipe)
    assert list(rows) == ["p"]
    assert (rows["p"]["kept"], rows["p"]["source"], rows["p"]["margin"]) == ("high", "original", 1)
    assert "previous" not in rows["p"]
    yields = read_json(recipe.layout.stage("filter") / "yields.json")
    assert yields["stages"]["combine"][POINTS[0]] == {"original": 2, "rewrite": 0, "none": 0}
    assert "had_previous" not in yields


def test_with_combine_the_filter_asks_for_it(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, rounds=2, round=2)
    finish(recipe, "prepare", train_conflict=[pair("p")])
    finish(recipe, "score", unit=originals("p"))
    with pytest.raises(
        UserError, match=r"round-2/combine: no such input; `sipo_pl combine --config combine\.yaml --recipe"
    ):
        filter(recipe)


def test_a_later_round_pairs_with_what_the_round_before_kept_where_it_is_beaten(tmp_path: Path) -> None:
    first = make_recipe(tmp_path, rounds=2)
    second = make_recipe(tmp_path, rounds=2, round=2)
    prompts = ("p", "q", "r", "s", "t")
    finish(first, "prepare", train_conflict=[pair(p) for p in prompts])
    finish(first, "filter", kept=[{"pair_id": f"{p}/0-1", "prompt_id": p, "kept": f"{p} once"} for p in prompts[:4]])
    finish(second, "sample", unit=[sample(p, POINTS[0], "s once" if p == "s" else f"{p} now") for p in prompts])
    scores = [
        *(score("p", "p once", 2, 2), score("p", "p now", 3, 3)),  # beaten under both
        *(score("q", "q once", 2, 9), score("q", "q now", 3, 3)),  # better under b
        *(score("r", "r once", 3, 2), score("r", "r now", 3, 3)),  # as good under a
        score("s", "s once", 3, 3),  # the same text
        score("t", "t now", 3, 3),  # none kept before
    ]
    finish(second, "score", unit=[*originals(*prompts), *scores])
    filter(second, min_kept=1, combined=False)
    rows = kept(second)
    assert list(rows) == list(prompts)  # what was kept before has no say in what survives
    assert {p: row["previous"] for p, row in rows.items() if "previous" in row} == {"p": "p once"}
    yields = read_json(tmp_path / "round-2/filter/yields.json")
    assert (yields["had_previous"], yields["beat_previous"]) == (4, 1)


def test_a_later_round_scores_what_the_round_before_kept(tmp_path: Path) -> None:
    first = make_recipe(tmp_path, rounds=2)
    second = make_recipe(tmp_path, rounds=2, round=2)
    finish(first, "prepare", train_conflict=[pair("p"), pair("q")])
    finish(first, "filter", kept=[{"pair_id": "p/0-1", "prompt_id": "p", "kept": "p once"}])
    unit = Unit(0, tmp_path, {"sample": [sample("p", POINTS[0], "p now"), sample("q", POINTS[0], "q now")]})
    texts = [("p", "p now"), ("q", "q now"), ("p", "p0"), ("p", "p1"), ("p", "p once"), ("q", "q0"), ("q", "q1")]
    module = Score(second, rewrites=False)
    assert module.expected_ids(unit) == [text_id(*text) for text in texts]
    inputs = stage_inputs("score", second, {"model": {"rewrites": False}})
    assert inputs["previous filter"] == (tmp_path / "filter", "sipo_pl filter --config filter.yaml")
    assert list(inputs) == ["prepare", "sample", "previous filter"]
    assert module.inputs["policy a"] == (
        tmp_path / "realign-a/adapter",
        "sipo_pl fit --config realign.yaml --objective a",
    )
    assert list(stage_inputs("score", first, {})) == ["prepare", "sample", "rewrite"]


@pytest.mark.parametrize("keep_marked", [False, True])
def test_marked_texts_go_on_where_the_switch_says_so(tmp_path: Path, keep_marked: bool) -> None:
    recipe = make_recipe(tmp_path, compat=Compat(keep_marked=keep_marked))
    samples = [sample("p", POINTS[0], "", ["empty"]), sample("p", POINTS[1], "fine")]
    rewrites = [{"sample_id": row["sample_id"], "prompt_id": "p", "text": "long", "marks": ["cut"]} for row in samples]
    finish(recipe, "prepare", train_conflict=[pair("p")])
    finish(recipe, "sample", unit=samples)
    finish(recipe, "rewrite", unit=rewrites)
    unit = Unit(0, tmp_path, {"sample": samples, "rewrite": rewrites})
    scored = Score(recipe).expected_ids(unit)
    assert (text_id("p", "") in scored) is (text_id("p", "long") in scored) is keep_marked
    assert Review(recipe).expected_ids(unit) == [row["sample_id"] for row in samples[not keep_marked :]]
    finish(
        recipe,
        "score",
        unit=[*originals("p"), score("p", "", 5, 5), score("p", "fine", 2, 2), score("p", "long", 4, 6)],
    )
    combine(recipe)
    filter(recipe, min_kept=1)
    found = [(row["text"], row["source"], row["marks"]) for row in read_jsonl(tmp_path / "combine/combined.jsonl")]
    if keep_marked:  # a cut rewrite beats both under b
        assert found == [("long", "rewrite", ["cut"])] * 2
        assert kept(recipe)["p"]["kept"] == "long"
    else:
        assert found == [("", "original", ["empty"]), ("fine", "original", [])]
        assert kept(recipe)["p"]["kept"] == "fine"


def test_without_the_filter_any_candidate_is_kept_and_the_seed_says_which(tmp_path: Path) -> None:
    texts = {"x": ["worst", "bad"], "y": ["low", "least"], "z": ["none", "nil"]}
    found = []
    for seed in (1, 1, 2, 3, 4, 5):
        recipe = make_recipe(tmp_path / f"{len(found)}", seed=seed)
        samples = [sample(p, point, text) for p, two in texts.items() for point, text in zip(POINTS, two, strict=True)]
        scores = [score(p, text, -1, -1) for p, two in texts.items() for text in two]
        finish(recipe, "prepare", train_conflict=[pair(p) for p in texts])
        finish(recipe, "sample", unit=samples)
        finish(recipe, "score", unit=[*originals(*texts), *scores])
        filter(recipe, min_kept=1, combined=False, rule="any")
        found.append({name: row["kept"] for name, row in kept(recipe).items()})
        assert all(found[-1][p] in two for p, two in texts.items())
    assert found[0] == found[1]
    assert any(one != found[0] for one in found)
    with pytest.raises(UserError, match="0 of 3 pairs keep a response"):
        filter(recipe, min_kept=1, combined=False, overwrite=True)
