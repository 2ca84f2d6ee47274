"""`sipo_pl run` as its users call it: whole runs, parts of runs, and runs that were cut off."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from tiny_run import (
    NAMES,
    REPORT_FILES,
    Command,
    edit,
    kill,
    sipo_pl,
    start,
    wait_until,
    write_recipe,
    write_yaml,
)
from transformers import AutoModelForCausalLM

from sipo_pl.engine.lora.adapters import read_adapter
from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.storage.json_lines import read_json, read_jsonl
from sipo_pl.storage.manifest import Manifest


def metrics_of(folder: Path) -> bytes:
    return (folder / "run/report/metrics.json").read_bytes()


def planned(text: str) -> dict[str, list[str]]:
    """Return the stages of a printed plan and their commands, without the program's name."""
    names = re.findall(r"^# (\S+)$", text, re.MULTILINE)
    commands = [shlex.split(line)[1:] for line in re.findall(r"^sipo_pl .*$", text, re.MULTILINE)]
    return dict(zip(names, commands, strict=True))


def states(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return what tells whether a file was written again: inode and time."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


# whole runs


def test_a_run_writes_its_report_and_says_where(finished_run: Path) -> None:
    said = (finished_run / "said.txt").read_text()
    for name in REPORT_FILES:
        assert (finished_run / "run/report" / name).stat().st_size > 0
    for name in ("report.html", "pareto.png", "metrics.json"):
        assert str(finished_run / "run/report" / name) in said
    assert "[16/16] report" in said
    assert "Traceback" not in said
    assert "[16/16] report" in (finished_run / "run/run.log").read_text()
    timings = read_json(finished_run / "run/timings.json")
    assert set(timings) == {path.name for path in (finished_run / "run").iterdir() if (path / "manifest.json").exists()}
    metrics = json.loads(metrics_of(finished_run))
    assert "seconds" not in json.dumps(metrics)


def test_a_second_run_starts_nothing_and_changes_nothing(finished_run: Path) -> None:
    before = {path: state for path, state in states(finished_run / "run").items() if path.name != "run.log"}
    again = sipo_pl("run", "--config", finished_run / "recipe.yaml")
    assert again.returncode == 0, again.stderr
    stages = re.findall(r"^\[\d+/16\] (.*)$", again.stderr, re.MULTILINE)
    assert len(stages) == 16
    assert all(stage.endswith(": complete") for stage in stages)
    after = {path: state for path, state in states(finished_run / "run").items() if path.name != "run.log"}
    assert after == before


def test_three_objectives_run_through(tmp_path: Path, talkative_model: Path, command: Command) -> None:
    said = command("run", "--config", write_recipe(tmp_path, talkative_model, objectives=3, align="one_by_one"))
    assert said.code == 0, said.err
    written = re.findall(r"((?:re)?align-\w+): written", (tmp_path / "run/run.log").read_text())
    assert written == [f"{stage}-{name}" for stage in ("align", "realign") for name in NAMES]
    assert all((tmp_path / "run/report" / name).exists() for name in REPORT_FILES)
    for row in read_jsonl(tmp_path / "run/measure-realign/unit-00000.jsonl"):
        assert set(row["rewards"]) == set(NAMES)
        assert row["point"] == "base" or row["point"].count(",") == 2
    assert all((tmp_path / f"run/realign-{name}/adapter/adapter_config.json").exists() for name in NAMES)


@pytest.mark.parametrize("stage", ["align", "realign"])
@pytest.mark.parametrize("objective", NAMES[:2])
def test_adapters_of_a_run_are_plain_peft(
    finished_run: Path, talkative_model: Path, stage: str, objective: str
) -> None:
    from peft import PeftModel

    folder = finished_run / f"run/{stage}-{objective}/adapter"
    ids = torch.arange(4, 40).view(2, 18)
    base = AutoModelForCausalLM.from_pretrained(talkative_model)
    with torch.no_grad():
        alone = base(input_ids=ids).logits
        theirs = PeftModel.from_pretrained(base, str(folder)).eval()(input_ids=ids).logits
        adapter = read_adapter(folder).factors
        stack = LoRAStack(AutoModelForCausalLM.from_pretrained(talkative_model), sorted(adapter))
        stack.stack([adapter])
        ours = stack.model(input_ids=ids).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert (theirs - alone).abs().max() > 1e-4


@pytest.mark.parametrize(("verb", "prefix"), [("validate", "val"), ("test", "test")])
@pytest.mark.parametrize("stage_config", ["align.yaml", "realign.yaml"])
def test_a_fitted_policy_is_validated_again(
    finished_run: Path, command: Command, stage_config: str, verb: str, prefix: str
) -> None:
    before = states(finished_run / "run")
    said = command(verb, "--config", finished_run / stage_config, "--objective", "kind")
    assert said.code == 0, said.err
    assert f"{prefix}/rewards/accuracies" in said.out
    changed = {path for path, state in states(finished_run / "run").items() if before.get(path) != state}
    assert not changed - {finished_run / f"run/.{stage_config.removesuffix('.yaml')}-kind.lock"}


# parts of runs


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        (["--only", "sample", "report"], ["sample", "report"]),
        (["--only", "align"], ["align-kind", "align-short"]),
        (["--only", "realign-short"], ["realign-short"]),
        (["--from", "filter", "--until", "realign"], ["filter", "realign-kind", "realign-short"]),
        (["--until", "align-kind"], ["prepare", "align-kind"]),
        (["--from", "measure-realign"], ["measure-realign", "report"]),
    ],
)
def test_stages_are_chosen(finished_run: Path, command: Command, options: list[str], stages: list[str]) -> None:
    said = command("run", "--config", finished_run / "recipe.yaml", *options, "--dry_run")
    assert said.code == 0
    assert list(planned(said.out)) == stages


@pytest.mark.parametrize(
    ("option", "setting", "message"),
    [
        (
            "--dry_run",
            "align.model.lr=3",
            "fit: no option '--model.lr'; did you mean '--model.optimizer.init_args.lr'?",
        ),
        ("--dry_run", "sample.model.decoding.temperature=0", "samples_per_weight: greedy decoding"),
        (
            "--dry_run",
            "recipe.data.converter.class_path=sipo_pl.data.converters.pairs.Pears",
            "prepare: data.converter",
        ),
        ("--estimate=h200", "sample.model.decoding.temperature=0", "samples_per_weight: greedy decoding"),
        (
            "--limit=4",
            "realign.model.loss=sipo_pl.method.losses.DPOO",
            "fit: --model.loss: sipo_pl.method.losses has no",
        ),
    ],
)
def test_settings_that_a_stage_refuses_are_refused_with_the_plan(
    tmp_path: Path, talkative_model: Path, option: str, setting: str, message: str
) -> None:
    said = sipo_pl("run", "--config", write_recipe(tmp_path, talkative_model), option, "--set", setting)
    assert said.returncode == 2
    assert message in said.stderr
    assert said.stdout == "" or option == "--dry_run"
    assert not (tmp_path / "run/prepare").exists()


def test_pasted_commands_of_the_plan_make_the_same_report(
    tmp_path: Path, talkative_model: Path, finished_run: Path, command: Command
) -> None:
    plan = command("run", "--config", write_recipe(tmp_path, talkative_model), "--dry_run")
    assert plan.code == 0
    assert plan.err == ""
    assert not (tmp_path / "run").exists()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the run's stages have
    try:
        for name, words in planned(plan.out).items():
            said = command(*words)
            assert said.code == 0, (name, said.err)
    finally:
        torch.set_num_threads(threads)
    assert metrics_of(tmp_path) == metrics_of(finished_run)


def test_objectives_of_an_overlay_take_nothing_from_the_recipes(
    tmp_path: Path, talkative_model: Path, command: Command
) -> None:
    recipe = write_recipe(tmp_path, talkative_model)
    values = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    for one in values["objectives"]:
        one["label"] = {"class_path": "sipo_pl.rewards.text.Detail"}
    write_yaml(recipe, values)
    overlay = write_yaml(tmp_path / "over.yaml", {"recipe": {"objectives": [{"name": "short"}, {"name": "kind"}]}})
    said = command("run", "--config", recipe, "--config", overlay, "--only", "prepare")
    assert said.code == 0, said.err
    first = next(iter(read_jsonl(tmp_path / "run/prepare/train.jsonl", ["scores"])))
    raw = {row["response"]: row for row in read_jsonl(tmp_path / "train.jsonl", ["response", "short", "kind"])}
    assert first["scores"]["short"] == [float(raw[first[key]]["short"]) for key in ("response_0", "response_1")]


def test_settings_overlays_and_limit_reach_the_stages(tmp_path: Path, talkative_model: Path, command: Command) -> None:
    recipe = write_recipe(tmp_path, talkative_model)
    overlay = write_yaml(tmp_path / "over.yaml", {"align": {"trainer": {"max_epochs": 1}}, "recipe": {"beta": 0.2}})
    words = ["run", "--config", recipe, "--config", overlay, "--limit", 2, "--until", "align"]
    said = command(*words, "--set", "align.model.lora.r=3", "--set", "recipe.seed=5")
    assert said.code == 0, said.err
    assert len(read_jsonl(tmp_path / "run/prepare/train.jsonl")) == 2
    manifest = Manifest.read(tmp_path / "run/align-short")
    assert manifest is not None
    assert manifest.seed == 5
    assert manifest.notes["steps"] == 1
    assert manifest.keys["recipe"]["beta"] == 0.2
    assert read_adapter(tmp_path / "run/align-short/adapter").rank == 3


def test_stages_can_be_left_out_and_adapters_brought_along(
    tmp_path: Path, talkative_model: Path, finished_run: Path, command: Command
) -> None:
    recipe = write_recipe(tmp_path, talkative_model, stages={"review": False, "realign": False})
    own = finished_run / "run/align-kind/adapter"
    values = yaml.safe_load(recipe.read_text())
    values["objectives"][0]["adapter"] = str(own)
    said = command("run", "--config", write_yaml(recipe, values))
    assert said.code == 0, said.err
    assert re.findall(r"^\[\d+/\d+\] (\S+)$", said.err, re.MULTILINE) == [
        *("prepare", "align-short", "evaluate-align", "measure-align", "sample", "score", "combine", "filter", "report")
    ]
    assert {row["source"] for row in read_jsonl(tmp_path / "run/combine/combined.jsonl")} == {"original"}
    assert all((tmp_path / "run/report" / name).exists() for name in REPORT_FILES)


def test_a_changed_prompt_file_is_no_finished_stage(tmp_path: Path, finished_run: Path, command: Command) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(finished_run, folder)
    recipe = folder / "recipe.yaml"
    values = yaml.safe_load(recipe.read_text())
    write_yaml(recipe, {**values, "run_dir": str(folder / "run")})
    file = folder / "review.txt"
    file.write_text("### Question\n{prompt}\n### Answer\n{response}\n### {objectives}\n")
    words = ["run", "--config", recipe, "--set", f"review.model.prompt_file={file}", "--only", "review"]
    assert command(*words, "--overwrite").code == 0
    assert "review: complete" in command(*words).err
    edit(file, "### Answer", "### Reply")
    changed = command(*words)
    assert changed.code == 1
    assert "review ended with exit code 1" in changed.err
    assert f"{folder}/run/review was made by other settings: recipe.prompt" in (folder / "run/run.log").read_text()


# two runs at once


def test_two_runs_in_one_folder_are_refused(tmp_path: Path, talkative_model: Path) -> None:
    recipe = write_recipe(tmp_path, talkative_model)
    process = start("run", "--config", recipe)
    try:
        wait_until(process, lambda: (tmp_path / "run/run.log").exists())
        second = sipo_pl("run", "--config", recipe)
        assert second.returncode == 1
        assert second.stderr == f"sipo_pl run: {tmp_path / 'run'}: in use by process {process.pid}\n"
    finally:
        kill(process)
