"""Rounds of self-improvement and recipes of fewer stages, through the real command."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from tiny_run import NAMES, Command, kill, sipo_pl, start, wait_until, write_recipe, write_yaml

from sipo_pl.data.units import read_units, unit_files
from sipo_pl.engine.lora.adapters import read_adapter
from sipo_pl.storage.json_lines import read_json, read_jsonl
from sipo_pl.storage.manifest import Manifest, input_hash

STAGES = {"review": False}  # for the time that it takes
RESULTS = ("unit-*.jsonl", "kept.jsonl", "combined.jsonl", "adapter_model.safetensors", "metrics.json")


@pytest.fixture(scope="module")
def two_rounds(tmp_path_factory: pytest.TempPathFactory, talkative_model: Path) -> Path:
    """Folder of a recipe whose run of two rounds, in `run`, is done. Not to be changed."""
    folder = tmp_path_factory.mktemp("two_rounds")
    said = sipo_pl("run", "--config", write_recipe(folder, talkative_model, rounds=2, stages=STAGES))
    assert said.returncode == 0, said.stderr
    return folder


def results(run: Path) -> dict[str, bytes]:
    """Return the files of a run that must not depend on how often it was cut off."""
    found = [path for pattern in RESULTS for path in run.rglob(pattern)]
    return {str(path.relative_to(run)): path.read_bytes() for path in found}


def stage_inputs(folder: Path) -> dict[str, str]:
    manifest = Manifest.read(folder)
    assert manifest is not None
    assert manifest.complete
    return manifest.inputs


def test_a_second_round_starts_from_the_first_ones_policies(two_rounds: Path) -> None:
    run = two_rounds / "run"
    for name in NAMES[:2]:
        start_of = {
            number: input_hash(run / folder / "adapter", "")
            for number, folder in enumerate((f"align-{name}", f"realign-{name}", f"round-2/realign-{name}"))
        }
        assert len(set(start_of.values())) == 3
        for stage, number in (("sample", 0), ("score", 0), ("evaluate-realign", 1)):
            assert stage_inputs(run / stage)[f"policy {name}"] == start_of[number]
            assert stage_inputs(run / "round-2" / stage)[f"policy {name}"] == start_of[number + 1]
        assert stage_inputs(run / "round-2/measure-realign")[f"policy {name}"] == start_of[0]  # the ruler stays
        assert stage_inputs(run / f"round-2/realign-{name}")["first adapter"] == start_of[1]
        ranks = [read_adapter(run / folder / f"realign-{name}/adapter").rank for folder in (".", "round-2")]
        assert ranks == [4, 6]
    assert stage_inputs(run / "round-2/filter")["previous filter"] == stage_inputs(run / "realign-kind")["filter"]


def test_a_second_round_answers_the_same_prompts_with_other_ids_and_noise(two_rounds: Path) -> None:
    first, second = (read_units(two_rounds / "run" / folder / "sample") for folder in (".", "round-2"))
    assert [row["sample_id"].replace("/1/", "/2/", 1) for row in first] == [row["sample_id"] for row in second]
    assert [row["text"] for row in first] != [row["text"] for row in second]


def test_the_report_shows_both_rounds(two_rounds: Path) -> None:
    metrics = read_json(two_rounds / "run/report/metrics.json")
    phases = dict.fromkeys(entry["phase"] for entry in metrics["points"])
    assert list(phases) == ["base", "before", "round 1", "after"]
    assert [step["since"] for step in metrics["hypervolume"]["rounds"]] == ["before", "round 1"]
    assert {"filter", "round-2/filter"} < set(metrics["yields"])


def test_a_run_killed_in_its_second_round_goes_on_as_if_nothing_had_been(tmp_path: Path, two_rounds: Path) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(two_rounds, folder)
    run, recipe = folder / "run", folder / "recipe.yaml"
    write_yaml(recipe, {**yaml.safe_load(recipe.read_text()), "run_dir": str(run)})
    for part in ("round-2", "report"):
        shutil.rmtree(run / part)
    sample = run / "round-2/sample"
    process = start("run", "--config", recipe)
    wait_until(process, lambda: bool(unit_files(sample)))
    kill(process)
    manifest = Manifest.read(sample)
    assert manifest is not None
    assert not manifest.complete, "sampling was quicker than the signal"
    last = sipo_pl("run", "--config", recipe)
    assert last.returncode == 0, last.stderr
    assert "sample: 24 rows in 3 units, 0 rows already written" not in last.stderr
    assert results(run) == results(two_rounds / "run")


@pytest.mark.parametrize(
    ("words", "stage"),
    [
        (["fit", "--config", "align.yaml", "--objective", "kind"], "align-kind"),
        (["predict", "--config", "evaluate.yaml", "--policies", "align"], "evaluate-align"),
    ],
)
def test_what_belongs_to_the_run_has_no_second_round(
    two_rounds: Path, command: Command, words: list[str], stage: str
) -> None:
    words[2] = str(two_rounds / words[2])
    said = command(*words, "--recipe.round", "2")
    assert said.code == 2
    assert f"{stage} belongs to the run as a whole, not to round 2" in said.err


def test_a_recipe_of_fewer_stages_with_marked_texts_runs_through(
    tmp_path: Path, talkative_model: Path, command: Command
) -> None:
    off = ("review", "rewrite", "combine", "evaluate-align", "evaluate-realign")
    switches = {"keep_marked": True, "search_markers": True}
    recipe = write_recipe(tmp_path, talkative_model, stages=dict.fromkeys(off, False), compat=switches)
    said = command("run", "--config", recipe)
    assert said.code == 0, said.err
    assert re.findall(r"^\[\d+/8\] (\S+)$", said.err, re.MULTILINE) == [
        *("prepare", "align-kind", "align-short", "sample", "score", "filter", "realign-kind", "realign-short")
    ]
    samples = read_units(tmp_path / "run/sample")
    marked = {(row["prompt_id"], row["text"]) for row in samples if row["marks"]}
    assert marked
    table = read_json(tmp_path / "run/filter/yields.json")["stages"]["filter"]
    assert sum(row["candidates"] for row in table.values()) == len(samples)  # a prompt has one pair here
    assert len(read_jsonl(tmp_path / "run/filter/kept.jsonl")) == 6


def test_a_switch_that_leaves_a_stage_without_input_is_told_before_anything_runs(
    tmp_path: Path, talkative_model: Path, command: Command
) -> None:
    said = command("run", "--config", write_recipe(tmp_path, talkative_model, stages={"score": False}))
    assert said.code == 2
    assert said.err.startswith("sipo_pl run: stages: score is switched off and has not run in ")
    assert said.err.count("\n") == 1
    assert not (tmp_path / "run").exists()
