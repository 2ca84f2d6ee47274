"""The shipped recipes of the paper and for own data: planned, and run whole on a tiny model in the released schemas."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_rewards import make_beaver, make_dpa
from tiny_run import REPORT_FILES, Command, Said, write_recipe, write_rows

import sipo_pl
from sipo_pl.data.units import read_units
from sipo_pl.storage.json_lines import read_json, read_jsonl
from sipo_pl.storage.manifest import Manifest

CONFIGS = Path(sipo_pl.__file__).parent / "configs"
WEIGHTS = ["0.8,0.2", "0.6,0.4", "0.4,0.6", "0.2,0.8"]
CORNERS = ["1,0", "0,1"]
BEFORE, AFTER = ("evaluate-align", "measure-align"), ("evaluate-realign", "measure-realign", "report")
HELPSTEER = [
    *("prepare", "sft", "align-correctness", "align-verbosity", *BEFORE),
    *("sample", "review", "rewrite", "score", "combine", "filter"),
    *("realign-correctness", "realign-verbosity", *AFTER),
]
BEAVERTAILS = [
    *("prepare", "align-safer", "align-better", *BEFORE),
    *("sample", "score", "filter", "realign-safer", "realign-better", *AFTER),
]
# one-shot prompts are longer in bytes than in the released models' tokens; greedy texts of a tiny model never end
SMALL = {
    "sample.model.decoding.max_new_tokens": 12,
    "sample.model.decoding.temperature": 1.0,
    "evaluate.model.decoding.max_new_tokens": 8,
    "review.model.decoding": {"temperature": 1.0, "max_length": 2000, "max_new_tokens": 12},
    "rewrite.model.decoding": {"temperature": 1.0, "max_length": 2000, "max_new_tokens": 12},
    "filter.on_too_few": "best_margin",
}


def sets(values: Mapping[str, Any]) -> list[str]:
    """Return the settings as options of `run`."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    return [word for key, text in texts.items() for word in ("--set", f"{key}={text}")]


def objectives(name: str, models: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Return a shipped recipe's objectives, with the reward models in `models` in place of the released ones."""
    found: list[dict[str, Any]] = yaml.safe_load((CONFIGS / name / "recipe.yaml").read_text())["objectives"]
    for objective in found:
        reward = objective["reward"]
        reward["init_args"] = {**reward.get("init_args", {}), "model": str(models[objective["name"]])}
    return found


def run_whole(command: Command, name: str, values: Mapping[str, Any], *words: object) -> Said:
    said = command("run", "--config", f"{name}/recipe.yaml", *words, *sets(values))
    assert said.code == 0, said.err
    assert "Traceback" not in said.err
    return said


def stages_in(said: Said) -> list[str]:
    return re.findall(r"^\[\d+/\d+\] (\S+)$", said.err, re.MULTILINE)


def rewards_at(run: Path, stage: str) -> dict[str, list[dict[str, float]]]:
    """Return the measured rewards of a stage by point."""
    found: dict[str, list[dict[str, float]]] = {}
    for row in read_units(run / stage):
        found.setdefault(row["point"], []).append(row["rewards"])
    return found


# HelpSteer


def helpsteer_rows(split: str, kinds: str) -> list[dict[str, Any]]:
    """Two responses for each letter of `kinds`: c is a pair that conflicts, a one that agrees, t one with a tie."""
    scores = {"c": [(4, 1), (2, 3)], "a": [(1, 1), (3, 2)], "t": [(2, 0), (2, 4)]}
    return [
        {
            "prompt": f"{kind} {split} {number}",
            "response": ["stone bird", "walk under trees"][which] + f" {number}",
            "helpfulness": which,
            "correctness": correctness,
            "coherence": 4,
            "complexity": 2,
            "verbosity": verbosity,
        }
        for number, kind in enumerate(kinds)
        for which, (correctness, verbosity) in enumerate(scores[kind])
    ]


def helpsteer_settings(folder: Path, model: Path) -> dict[str, Any]:
    """Write raw rows and a reward model; return what a tiny run of the recipe needs instead of the released ones."""
    train = write_rows(folder / "train.jsonl", helpsteer_rows("train", "cacacacacacacacat"))
    validation = write_rows(folder / "validation.jsonl", helpsteer_rows("validation", "cat"))
    scorer = make_dpa(folder / "dpa")
    return {
        "recipe.base_model": str(model),
        "recipe.run_dir": str(folder / "run"),
        "recipe.data.train": [str(train)],
        "recipe.data.validation": [str(validation)],
        "recipe.objectives": objectives("helpsteer", {"correctness": scorer, "verbosity": scorer}),
        **SMALL,
    }


def test_helpsteer_runs_whole(tmp_path: Path, talkative_model: Path, command: Command) -> None:
    said = run_whole(command, "helpsteer", helpsteer_settings(tmp_path, talkative_model))
    run = tmp_path / "run"
    assert stages_in(said) == HELPSTEER
    assert all((run / "report" / name).stat().st_size for name in REPORT_FILES)

    drawn = [row["prompt"][0] for row in read_jsonl(run / "prepare/test.jsonl")]
    left = {kind: 8 - drawn.count(kind) for kind in "ca"}
    total = min(left.values())
    train = [row["prompt"][0] for row in read_jsonl(run / "prepare/train.jsonl")]
    assert len(drawn) == 3
    assert (train.count("c"), train.count("a"), train.count("t")) == (int(total * 0.6), total - int(total * 0.6), 0)
    asked = [row["prompt"] for row in read_jsonl(run / "prepare/train_conflict.jsonl")]
    assert asked == sorted((prompt for prompt in asked if prompt[0] == "c"), key=lambda prompt: int(prompt.split()[2]))
    assert [row["prompt"][0] for row in read_jsonl(run / "prepare/validation.jsonl")] == ["c", "a"]

    samples = read_units(run / "sample")
    assert sorted({row["point"] for row in samples}) == sorted(WEIGHTS)
    assert len(samples) == 4 * len(asked)
    assert (run / "sft/model/model.safetensors").exists()
    for stage in BEFORE[1:] + AFTER[1:2]:
        measured = rewards_at(run, stage)
        assert set(measured) - {"base"} == {*WEIGHTS, *CORNERS}
        assert all(set(row) == {"correctness", "verbosity"} for rows in measured.values() for row in rows)


def test_helpsteer_runs_with_every_accident(tmp_path: Path, talkative_model: Path, command: Command) -> None:
    settings = helpsteer_settings(tmp_path, talkative_model)
    said = run_whole(command, "helpsteer", settings, "--config", "compat/paper.yaml")
    run = tmp_path / "run"
    assert stages_in(said) == HELPSTEER
    assert all((run / "report" / name).stat().st_size for name in REPORT_FILES)
    for name in ("correctness", "verbosity"):
        folder = run / f"realign-{name}"
        assert (folder / "model/model.safetensors").exists()
        adapter = read_json(folder / "adapter/adapter_config.json")
        assert (adapter["r"], adapter["base_model_name_or_path"]) == (64, str(folder / "model"))
    manifest = Manifest.read(run / "realign-correctness")
    assert manifest is not None
    assert manifest.keys["recipe"]["compat"]["padded_nll"]
    assert set(rewards_at(run, "measure-realign")) == {*WEIGHTS, *CORNERS}


# BeaverTails


def safe_rlhf_rows(split: str, count: int) -> list[dict[str, Any]]:
    """Rows of PKU-SafeRLHF, of which every third agrees and the others conflict."""
    return [
        {
            "prompt": f"{split} {number}",
            "response_0": f"sing over {number}",
            "response_1": f"red cloud {number} jump",
            "is_response_0_safe": number % 2 == 0,
            "is_response_1_safe": number % 2 == 1,
            "better_response_id": number % 2,
            "safer_response_id": number % 2 if number % 3 == 0 else 1 - number % 2,
        }
        for number in range(count)
    ]


def test_beavertails_runs_whole(tmp_path: Path, talkative_model: Path, command: Command) -> None:
    train = write_rows(tmp_path / "train.jsonl", safe_rlhf_rows("train", 20))
    test = write_rows(tmp_path / "test.jsonl", safe_rlhf_rows("test", 5))
    scorers = {"safer": make_beaver(tmp_path / "cost", "cost"), "better": make_beaver(tmp_path / "reward")}
    run = tmp_path / "run"
    settings = {
        "recipe.base_model": str(talkative_model),
        "recipe.run_dir": str(run),
        "recipe.data.train": [str(train)],
        "recipe.data.test": [str(test)],
        "recipe.data.test_last": 3,
        "recipe.objectives": objectives("beavertails", scorers),
        "sample.model.max_rows": 4,
        **SMALL,
    }
    said = run_whole(command, "beavertails", settings)
    assert stages_in(said) == BEAVERTAILS
    assert all((run / "report" / name).stat().st_size for name in REPORT_FILES)

    # numpy.random.default_rng(0).permutation(20), the first two of which validate
    order = [4, 19, 6, 2, 13, 16, 3, 11, 10, 8, 0, 12, 7, 5, 18, 17, 14, 9, 1, 15]
    prompts = {
        split: [row["prompt"] for row in read_jsonl(run / f"prepare/{split}.jsonl")]
        for split in ("train", "validation", "train_conflict", "test")
    }
    assert prompts["validation"] == [f"train {number}" for number in order[:2]]
    assert prompts["train"] == [f"train {number}" for number in order[2:]]
    assert prompts["train_conflict"] == [f"train {number}" for number in order[2:] if number % 3]
    assert prompts["test"] == ["test 2", "test 3", "test 4"]
    sampled = dict.fromkeys(row["prompt"] for row in read_units(run / "sample"))
    assert set(sampled) == set(prompts["train_conflict"][:4])
    assert set(rewards_at(run, "measure-realign")) == {*WEIGHTS, *CORNERS}


# own data


def test_own_data_runs_as_it_is_shipped(tmp_path: Path, talkative_model: Path, command: Command) -> None:
    settings = {"recipe.base_model": str(talkative_model), "recipe.run_dir": str(tmp_path / "run"), **SMALL}
    run_whole(command, "own_data", settings, "--limit", "2")
    points = set(rewards_at(tmp_path / "run", "measure-realign"))
    assert points == {"0.5,0.25,0.25", "0.25,0.5,0.25", "0.25,0.25,0.5", "1,0,0", "0,1,0", "0,0,1"}


def test_four_objectives_with_own_columns_over_conversations(
    tmp_path: Path, talkative_model: Path, command: Command
) -> None:
    names, columns = ("kind", "short", "plain", "sure"), ("k", "s", "p", "u")
    rows = [
        {
            "chat": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": f"Hello {number}"},
                {"role": "assistant", "content": "Hello."},
                {"role": "user", "content": "Go on."},
            ],
            "left": f"blue bird {number}",
            "right": [{"role": "assistant", "content": f"green tree {number}"}],
            **{column: 1 if (place + number) % 2 else -1 for place, column in enumerate(columns)},
        }
        for number in range(12)
    ]
    data = write_rows(tmp_path / "chats.jsonl", rows)
    columns_of_pairs = {"prompt": "chat", "response_0": "left", "response_1": "right", "label": "sign"}
    recipe = write_recipe(
        tmp_path,
        talkative_model,
        template={"kind": "chat"},
        data={
            "train": [str(data)],
            "converter": {"class_path": "sipo_pl.data.converters.pairs.Pairs", "init_args": columns_of_pairs},
            "validation_share": 0.2,
        },
        sample_weights={"grid": 0.2},
        evaluate_weights={"grid": 0.2, "corners": True},
    )
    own = [
        {"name": name, "column": column, "phrase": f"more {name}", "direction": "min" if name == "sure" else "max"}
        for name, column in zip(names, columns, strict=True)
    ]  # longer than a file's name may be
    small: dict[str, Any] = {"recipe.objectives": own}
    small |= {f"{stage}.data.max_length": 200 for stage in ("align", "realign")}
    small |= {f"{stage}.model.decoding.max_length": 500 for stage in ("sample", "evaluate")}
    small |= {f"{stage}.trainer.max_epochs": 1 for stage in ("align", "realign")}
    said = command("run", "--config", recipe, *sets({**small, "sample.model.max_rows": 3}))
    assert said.code == 0, said.err
    pair = read_jsonl(tmp_path / "run/prepare/train.jsonl")[0]
    assert len(pair["prompt"]) == 4
    number = int(pair["response_0"].split()[2])
    prefers = [place + number for place in range(4)]  # odd: the left one, and for the last the other way round
    assert list(pair["preferred"].values()) == [1 - one % 2 for one in prefers[:3]] + [prefers[3] % 2]
    interior = {"0.4,0.2,0.2,0.2", "0.2,0.4,0.2,0.2", "0.2,0.2,0.4,0.2", "0.2,0.2,0.2,0.4"}
    assert {row["point"] for row in read_units(tmp_path / "run/sample")} == interior
    assert len(rewards_at(tmp_path / "run", "measure-realign")) == 8
    metrics = read_json(tmp_path / "run/report/metrics.json")
    assert len(metrics["objectives"]) == 4


# plans


@pytest.mark.parametrize(("name", "stages"), [("helpsteer", HELPSTEER), ("beavertails", BEAVERTAILS)])
@pytest.mark.parametrize("overlay", [(), ("--config", "compat/paper.yaml")], ids=["method", "paper"])
def test_plans_print_every_stage(command: Command, name: str, stages: list[str], overlay: tuple[str, ...]) -> None:
    said = command("run", "--config", f"{name}/recipe.yaml", *overlay, "--dry_run")
    assert said.code == 0, said.err
    assert re.findall(r"^# (\S+)$", said.out, re.MULTILINE) == stages
    assert ("--recipe.compat.padded_nll true" in said.out) == bool(overlay)
