"""The graph of a run: switches, rounds, and what is said where a stage lacks its input."""

import contextlib
import itertools
from pathlib import Path
from typing import Any

import pytest

from sipo_pl.messages.errors import UsageError
from sipo_pl.recipe.graph.run import Node, build_graph, check_inputs, choose
from sipo_pl.recipe.recipe import Data, Objective, Recipe
from sipo_pl.registry import SWITCHES
from sipo_pl.storage.manifest import open_stage

BEAVER_TAILS = {"review": False, "rewrite": False, "combine": False}
SAMPLING_ONLY = dict.fromkeys(("evaluate-align", *SWITCHES[SWITCHES.index("review") : SWITCHES.index("report")]), False)
EVALUATION = ("evaluate-align", "measure-align", "evaluate-realign", "measure-realign", "report")


def make_recipe(folder: Path, adapters: tuple[str | None, str | None] = (None, None), **changes: Any) -> Recipe:
    objectives = [Objective(name, adapter=adapter) for name, adapter in zip(("a", "b"), adapters, strict=True)]
    data = Data(train=[], validation=[])
    return Recipe(
        **{"name": "x", "base_model": "m", "objectives": objectives, "data": data} | changes, run_dir=str(folder)
    )


def planned(recipe: Recipe, **options: Any) -> list[Node]:
    """Return the stages that `run` would start."""
    graph = build_graph(recipe)
    nodes = choose(graph, options.get("only"), options.get("first"), options.get("until"))
    check_inputs(nodes, graph, recipe)
    return nodes


def names(recipe: Recipe, **options: Any) -> list[str]:
    return [node.name for node in planned(recipe, **options)]


# switches


@pytest.mark.parametrize(
    ("stages", "left_out"),
    [
        ({"review": False}, {"review", "rewrite"}),
        ({"rewrite": False}, {"review", "rewrite"}),
        ({"combine": False}, {"review", "rewrite", "combine"}),
        (BEAVER_TAILS, {"review", "rewrite", "combine"}),
        ({"realign": False}, {"realign-a", "realign-b", "evaluate-realign", "measure-realign"}),
        ({"evaluate-align": False, "evaluate-realign": False}, set(EVALUATION)),
        ({"measure-align": False, "measure-realign": False}, {"measure-align", "measure-realign", "report"}),
        ({"report": False}, {"report"}),
        (
            {"score": False, "combine": False, "filter": False, "realign": False},
            {"score", "combine", "filter", "realign-a", "realign-b", "evaluate-realign", "measure-realign"},
        ),
    ],
    ids=lambda value: ", ".join(sorted(value)),
)
def test_a_stage_that_is_off_takes_along_what_has_nothing_to_do_without_it(
    tmp_path: Path, stages: dict[str, bool], left_out: set[str]
) -> None:
    everything = names(make_recipe(tmp_path))
    assert names(make_recipe(tmp_path, stages=stages)) == [name for name in everything if name not in left_out]


def test_sampling_only(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, ("own/a", "own/b"), stages=SAMPLING_ONLY)
    assert names(recipe) == ["prepare", "sample"]


def test_without_combine_the_filter_reads_samples_and_no_rewrite_is_scored(tmp_path: Path) -> None:
    nodes = {node.name: node for node in planned(make_recipe(tmp_path, stages={"combine": False}))}
    assert nodes["score"].options == ("--model.rewrites", "false")
    assert nodes["filter"].options == ("--combined", "false")
    assert set(nodes["filter"].inputs) == {"prepare", "sample", "score"}


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            {"prepare": False},
            r"^stages: prepare is switched off and has not run in .*, and align-a, align-b, evaluate-",
        ),
        (
            {"align": False},
            "^stages: align-a is switched off .*: switch it on, or give objective 'a' an adapter, or sw",
        ),
        (
            {"sample": False},
            "^stages: sample is switched off and has not run in .*, and review, rewrite, score, combine ",
        ),
        (
            {"score": False},
            "^stages: score is switched off .*, and combine, filter need it: switch it on, or switch off",
        ),
        ({"filter": False}, "^stages: filter is switched off .*, and realign-a, realign-b need it"),
    ],
)
def test_a_missing_input_is_named_with_the_stages_that_need_it(
    tmp_path: Path, stages: dict[str, bool], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        planned(make_recipe(tmp_path, stages=stages))


def test_what_lies_complete_in_the_run_folder_is_not_missing(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, (None, "own/b"), stages={"align": False})
    folder = recipe.layout.stage("align", "a")
    manifest = open_stage(folder, "align-a", {}, {}, seed=1)
    with pytest.raises(UsageError, match="align-a is switched off"):
        planned(recipe)
    manifest.finish(folder, [])
    assert "align-a" not in names(recipe)


def test_only_the_chosen_stages_need_their_inputs(tmp_path: Path) -> None:
    assert names(make_recipe(tmp_path, stages={"align": False}), only=["prepare"]) == ["prepare"]


def test_every_combination_of_switches_has_all_inputs_or_says_what_is_missing(tmp_path: Path) -> None:
    kinds = ("align", "sample", "review", "rewrite", "score", "combine", "filter", "realign", "evaluate-realign")
    refused = 0
    for switches in itertools.product((True, False), repeat=len(kinds)):
        recipe = make_recipe(tmp_path, rounds=2, stages=dict(zip(kinds, switches, strict=True)))
        with contextlib.suppress(UsageError):
            made: set[str] = set()
            for node in planned(recipe):
                assert set(node.inputs) <= made, f"{node.name} comes before what it reads"
                made.add(node.name)
            continue
        refused += 1
    assert 0 < refused < 2 ** len(kinds)


# rounds


def test_rounds_follow_each_other(tmp_path: Path) -> None:
    one, two = names(make_recipe(tmp_path)), names(make_recipe(tmp_path, rounds=2))
    assert two[: len(one) - 1] == one[:-1]
    of_round = one[one.index("sample") : -1]
    assert two[len(one) - 1 :] == [*(f"round-2/{name}" for name in of_round), "report"]


def test_a_later_round_reads_the_round_before(tmp_path: Path) -> None:
    nodes = {node.name: node for node in planned(make_recipe(tmp_path, rounds=3))}
    policies = ("round-2/realign-a", "round-2/realign-b")
    assert nodes["round-3/sample"].inputs == ("prepare", *policies)
    assert nodes["round-3/sample"].options == ("--recipe.round", "3")
    assert set(policies) < set(nodes["round-3/score"].inputs)
    assert "round-2/filter" in nodes["round-3/score"].inputs
    assert nodes["round-3/filter"].inputs == ("prepare", "round-2/filter", "round-3/combine", "round-3/score")
    assert nodes["round-2/realign-b"].inputs == ("prepare", "realign-a", "realign-b", "round-2/filter")
    assert nodes["sample"].options == ()
    assert nodes["report"].inputs[-1] == "round-3/measure-realign"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"only": ["sample"]}, ["sample"]),
        ({"only": ["round-2/sample", "filter"]}, ["filter", "round-2/sample"]),
        ({"only": ["round-2/realign"]}, ["round-2/realign-a", "round-2/realign-b"]),
        (
            {"first": "realign-b", "until": "round-2/review"},
            [*("realign-b", "evaluate-realign", "measure-realign", "round-2/sample", "round-2/review")],
        ),
        ({"first": "round-2", "until": "round-2/review"}, ["round-2/sample", "round-2/review"]),
        (
            {"until": "realign"},
            [
                *("prepare", "align-a", "align-b", "evaluate-align", "measure-align", "sample", "review"),
                *("rewrite", "score", "combine", "filter", "realign-a", "realign-b"),
            ],
        ),
    ],
    ids=str,
)
def test_stages_of_a_round_are_chosen(tmp_path: Path, options: dict[str, Any], expected: list[str]) -> None:
    assert names(make_recipe(tmp_path, rounds=2), **options) == expected


def test_an_unknown_stage_of_a_round_gets_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no stage 'round-2/smple' in this recipe.*round-2/sample"):
        names(make_recipe(tmp_path, rounds=2), only=["round-2/smple"])


def test_a_run_refuses_to_be_of_one_round(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^round 2: `run` goes through all rounds"):
        build_graph(make_recipe(tmp_path, rounds=2, round=2))


def test_rounds_without_realignment_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"realign-a is switched off .*round-2/sample"):
        planned(make_recipe(tmp_path, rounds=2, stages={"realign": False}))
