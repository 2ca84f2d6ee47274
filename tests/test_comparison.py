"""Comparisons: their graph, their whole run on a tiny model, and what stands in their tables."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_compare import command as run_command
from tiny_run import Command, environment

from sipo_pl.data.units import read_units
from sipo_pl.messages.errors import SettingError
from sipo_pl.method.weights import WeightPlan
from sipo_pl.metrics.hypervolume import hypervolume
from sipo_pl.recipe.checks import check_recipe
from sipo_pl.recipe.graph.comparison import stages_of
from sipo_pl.recipe.graph.run import build_graph
from sipo_pl.recipe.methods import PolicySource, entrants
from sipo_pl.recipe.recipe import Data, Objective, Recipe
from sipo_pl.registry import METHODS
from sipo_pl.rewards.text import detail
from sipo_pl.storage.json_lines import read_json, read_jsonl
from sipo_pl.storage.manifest import Manifest

EASE = {"class_path": "sipo_pl.rewards.text.Ease"}


def make_recipe(methods: list[str], **changes: Any) -> Recipe:
    objectives = [Objective(name, reward=EASE) for name in ("a", "b")]
    plan = changes.pop("evaluate_weights", WeightPlan(points=["0.5,0.5"], corners=True))
    return Recipe(
        "x", "m", objectives, Data(train=["t"], validation=["v"]), methods=methods, evaluate_weights=plan, **changes
    )


def names(recipe: Recipe) -> list[str]:
    return [node.name for node in build_graph(recipe)]


# the graph


def test_each_method_brings_its_stages_and_shared_ones_come_once() -> None:
    around = ["prepare", "calibrate"], ["answer", "judge", "compare"]

    def between(*methods: str) -> list[str]:
        found = names(make_recipe(["sft", *methods]))
        assert (found[:2], found[-3:]) == around
        return found[2:-3]

    aligned = ["align-a", "align-b"]
    assert between() == []
    for method in ("dpo", "soup", "soup_exact", "mod"):
        assert between(method) == aligned
    assert between("consistency") == ["consistency"]
    assert between("mod_long") == ["align_long-a", "align_long-b"]
    assert between("raco") == [*aligned, "raco-0.5,0.5"]  # the alignments answer at the corners
    assert between("modpo", "dpo_lw", "mod") == [*aligned, "modpo-0.5,0.5", "dpo_lw-0.5,0.5"]
    sipo = between("sipo")
    assert sipo == [*aligned, "sample", "review", "rewrite", "score", "combine", "filter", "realign-a", "realign-b"]
    everything = names(make_recipe(list(METHODS)))
    assert len(everything) == len(set(everything))


def test_without_corners_weighted_losses_need_no_alignment_but_for_margins() -> None:
    inside = {"evaluate_weights": WeightPlan(points=["0.5,0.5"])}
    assert "align-a" not in names(make_recipe(["sft", "raco"], **inside))
    assert "align-a" in names(make_recipe(["sft", "modpo"], **inside))


def test_stages_of_a_method_are_what_it_costs() -> None:
    recipe = make_recipe(list(METHODS), stages={"sft": True})
    graph = build_graph(recipe)
    assert stages_of(recipe, "sft", graph) == ["sft"]
    assert stages_of(recipe, "mod", graph) == ["sft", "align-a", "align-b"]
    assert stages_of(recipe, "consistency", graph) == ["sft", "consistency"]
    assert stages_of(recipe, "mod_long", graph) == ["sft", "align_long-a", "align_long-b"]
    assert "filter" in stages_of(recipe, "sipo", graph)
    assert "raco-0.5,0.5" not in stages_of(recipe, "sipo", graph)


def test_a_second_round_answers_with_its_own_policies() -> None:
    found = names(make_recipe(["sft", "sipo"], rounds=2))
    assert found[-5:-3] == ["round-2/realign-a", "round-2/realign-b"]


def test_corners_are_the_alignments_for_all_but_those_with_policies_of_their_own() -> None:
    at_corner = {one.method: one.mix for one in entrants(make_recipe(list(METHODS))) if one.point == "1,0"}
    own = {"sipo": "realign", "mod_long": "align_long"}
    assert {mix for method, mix in at_corner.items() if method not in own} == {at_corner["dpo"]}
    for method, kind in own.items():
        assert at_corner[method] == ((PolicySource(kind, "a"), 1.0),)


@pytest.mark.parametrize(
    ("methods", "changes", "match"),
    [
        (["sft", "racoo"], {}, "no method 'racoo'; did you mean 'raco'"),
        (["mod"], {}, "sft is missing"),
        (["sft", "mod", "mod"], {}, "mod appears twice"),
        (["sft"], {"objectives": [Objective("a", reward=EASE), Objective("b")]}, "'b' has no reward"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused(methods: list[str], changes: dict[str, Any], match: str) -> None:
    recipe = make_recipe(methods)
    for key, value in changes.items():
        setattr(recipe, key, value)
    with pytest.raises(SettingError, match=match):
        check_recipe(recipe)


# a whole run


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, talkative_model: Path) -> Path:
    """Run folder of a comparison of all methods on a tiny model, with a judge."""
    import subprocess

    folder = tmp_path_factory.mktemp("compared")
    (folder / "model").symlink_to(talkative_model)
    judge = {"class_path": "sipo_pl.rewards.local_judge.LocalJudge"}
    judge["init_args"] = {"model": str(talkative_model), "dtype": "float32"}  # type: ignore[assignment]
    points = "recipe.evaluate_weights.grid=0.5"
    words = run_command(folder, "two", "run", points, f"judge.model.judge={json.dumps(judge)}")
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_names_every_method_with_its_cost(compared: Path) -> None:
    rows = {row["method"]: row for row in rows_of(compared / "compare/table.csv")}
    assert list(rows) == list(METHODS)
    for row in rows.values():
        assert float(row["hypervolume_low"]) <= float(row["hypervolume"]) <= float(row["hypervolume_high"])
        assert float(row["minutes"]) > 0
        assert 0 <= float(row["win_rate"]) <= 1
    assert float(rows["sft"]["kl"]) == 0
    assert float(rows["sft"]["win_rate"]) == pytest.approx(0.5)
    assert rows["sft"]["kendall_tau"] == rows["consistency"]["kendall_tau"] == ""
    assert int(rows["raco"]["backward_passes"]) > int(rows["dpo_lw"]["backward_passes"])
    tokens = {name: int(row["trained_tokens"]) - int(rows["sft"]["trained_tokens"]) for name, row in rows.items()}
    assert tokens["mod_long"] == 2 * tokens["mod"] > 0
    assert int(rows["sipo"]["generated_tokens"]) > int(rows["mod"]["generated_tokens"]) == 0
    assert [rows[name]["policies_per_token"] for name in ("sft", "mod", "soup", "raco", "sipo")] == [
        "1",
        "2",
        "1",
        "1",
        "2",
    ]
    page = (compared / "compare/report.html").read_text(encoding="utf-8")
    for words in ("Yields per stage and weight: SIPO", "Kendall tau", 'id="answers"', "All 8 test prompts"):
        assert words in page


def test_numbers_follow_from_the_judged_rows_and_the_stored_frame(compared: Path) -> None:
    frame = read_json(compared / "calibrate/frame.json")["objectives"]
    judged = read_units(compared / "judge")
    points = sorted({row["point"] for row in judged if row["method"] == "mod"})
    means = [
        [
            np.mean([row["rewards"][name] for row in judged if (row["method"], row["point"]) == ("mod", point)])
            for name in frame
        ]
        for point in points
    ]
    ends = ([one[key] for one in frame.values()] for key in ("reference", "scale"))
    found = {row["method"]: row for row in rows_of(compared / "compare/table.csv")}["mod"]
    assert float(found["hypervolume"]) == pytest.approx(hypervolume(means, *ends), rel=1e-6)


def test_labels_come_of_rewards_and_the_frame_of_the_validation_split(compared: Path) -> None:
    pair = read_jsonl(compared / "prepare/train.jsonl")[0]
    assert pair["scores"]["detail"] == pytest.approx([detail(pair["response_0"]), detail(pair["response_1"])])
    texts = {
        row[key] for row in read_jsonl(compared / "prepare/validation.jsonl") for key in ("response_0", "response_1")
    }
    stored = read_json(compared / "calibrate/frame.json")
    assert stored["texts"] == len(texts)
    assert stored["objectives"]["detail"]["mean"] == pytest.approx(np.mean([detail(text) for text in texts]))


def test_methods_that_share_a_policy_share_its_answer(compared: Path) -> None:
    answers = read_units(compared / "answer")
    texts = {(row["prompt_id"], row["method"]): row["text"] for row in answers if row["point"] == "1,0"}
    for prompt in {prompt for prompt, _ in texts}:
        assert (
            len({texts[prompt, method] for method in ("dpo", "mod", "soup", "soup_exact", "raco", "modpo", "dpo_lw")})
            == 1
        )


def test_other_runs_stand_beside_and_unequal_checkpoints_do_not(compared: Path, command: Command) -> None:
    recipe = ["--recipe.run_dir", compared, "--recipe.limit", 16]
    words = ["compare", "--config", "compare/compare.yaml", *recipe, "--resamples", 50, "--overwrite"]
    copied = compared.parent / "no_filter"
    shutil.copytree(compared, copied)
    before = rows_of(compared / "compare/table.csv")
    said = command(*words, "--others", json.dumps([str(copied)]))
    assert said.code == 0, said.err
    after = rows_of(compared / "compare/table.csv")
    assert [row["method"] for row in after] == [*METHODS, *(f"no_filter:{name}" for name in METHODS)]
    for row, twin in zip(after, after[len(METHODS) :], strict=False):
        assert row["hypervolume"] == twin["hypervolume"]
    assert before[0]["hypervolume"] == after[0]["hypervolume"]
    manifest = Manifest.read(compared / "consistency")
    assert manifest is not None
    manifest.notes["keep"] = "best"
    manifest.write(compared / "consistency")
    assert "compare like with like" in command(*words).err
