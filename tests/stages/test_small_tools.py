"""The commands around a run: inspect, env, recipes, clean, completion."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tiny import make_tiny_tokenizer
from tiny_run import Command, make_talkative_model, write_recipe
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sipo_pl.cli import main as cli

# inspect


def inspect(command: Command, folder: Path, *words: object) -> list[str]:
    said = command("inspect", "--config", folder / "recipe.yaml", *words)
    assert said.code == 0, said.err
    return said.out.splitlines()


def test_a_pair_is_shown_token_by_token_with_its_mask(command: Command, finished_run: Path) -> None:
    row = json.loads((finished_run / "run/prepare/train.jsonl").read_text().splitlines()[1])
    lines = inspect(command, finished_run, "--stage", "align", "--row", 1, "--objective", "short")
    assert lines[0].startswith("align, row 1 of 6 in ")
    assert lines[0].endswith(f"train.jsonl: {row['pair_id']}")
    prompt = "<s>│" + "".join(f"{one}│" for one in f"Q: {row['prompt']} A:").replace(" ", "·")
    assert lines.count(prompt) == 2
    side = row["preferred"]["short"]
    for index in (0, 1):
        name = f"response_{index}, {'chosen' if index == side else 'rejected'}"
        place = next(number for number, line in enumerate(lines) if line.startswith(name))
        response = "".join(f"{one}│" for one in row[f"response_{index}"]).replace(" ", "·")
        assert lines[place + 2] == response + "</s>│"
    assert "preferred by kind: " + f"response_{1 - side}" in lines


@pytest.mark.parametrize("stage", ["realign", "sample", "evaluate", "review", "rewrite", "score"])
def test_every_stage_shows_its_rows(command: Command, finished_run: Path, stage: str) -> None:
    lines = inspect(command, finished_run, "--stage", stage)
    assert lines[0].startswith(f"{stage}, row 0 of ")
    assert any(line.startswith("<s>│Q│:│·│") for line in lines)


def test_the_filter_tells_why_candidates_were_refused(command: Command, finished_run: Path) -> None:
    rows = (finished_run / "run/prepare/train_conflict.jsonl").read_text().splitlines()
    said = "\n".join(
        line for row in range(len(rows)) for line in inspect(command, finished_run, "--stage", "filter", "--row", row)
    )
    assert re.search(r"kept: \w+/1/0\.", said)
    assert re.search(r"original: marked (cut|empty)", said)
    assert re.search(r"fails .*(policy|soup):\S+ against response_[01] \(-", said)


def test_what_is_left_out_is_counted_with_its_reason(command: Command, finished_run: Path, tmp_path: Path) -> None:
    for file in finished_run.glob("*.yaml"):
        shutil.copy(file, tmp_path)
    text = (tmp_path / "align.yaml").read_text().replace("max_length: 64", "max_length: 23")
    (tmp_path / "align.yaml").write_text(text)
    shutil.copytree(finished_run / "run/prepare", tmp_path / "run/prepare")
    for split in ("train", "validation", "test"):
        shutil.copy(finished_run / f"{split}.jsonl", tmp_path)
    said = "\n".join(inspect(command, tmp_path, "--row", 1, "--run_dir", tmp_path / "run"))
    assert "LEFT OUT: longer than max_length 23" in said
    assert re.search(r"\d of 6  longer than max_length", said)


def test_merges_over_the_boundary_are_shown(command: Command, tmp_path: Path, talkative_model: Path) -> None:
    model = make_talkative_model(tmp_path / "model")
    vocabulary = make_tiny_tokenizer().get_vocab()
    vocabulary[":r"] = vocabulary.pop("ÿ")  # a byte that no text has; more tokens would have no embeddings
    tokenizer = Tokenizer(models.BPE(vocabulary, [(":", "r")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(model)
    recipe = write_recipe(tmp_path, model)
    (tmp_path / "train.jsonl").write_text(
        '{"prompt": "x", "response": "red", "kind": 1, "short": 0}\n{"prompt": "x", "response": "blue", "kind": 0, '
        '"short": 1}\n'
    )
    assert command("prepare", "--config", tmp_path / "prepare.yaml").code == 0
    lines = inspect(command, recipe.parent)
    place = next(number for number, line in enumerate(lines) if line.startswith("response_0, chosen"))
    assert lines[place + 2] == ":r│e│d│</s>│"
    assert "boundary merge: the prompt alone ends in :│" in " ".join(lines[place : place + 6])
    assert "does not begin with BOS" in "\n".join(lines)


def test_rows_that_are_not_there_are_said(command: Command, finished_run: Path, tmp_path: Path) -> None:
    words = ("inspect", "--config", finished_run / "recipe.yaml")
    assert "has rows 0 to 5" in command(*words, "--row", 6).err
    assert "no objective 'shrt'; did you mean 'short'?" in command(*words, "--objective", "shrt").err
    assert "no such file" in command(*words, "--run_dir", tmp_path / "x").err


# the others


def test_the_environment_names_versions_and_no_places(command: Command) -> None:
    said = command("env")
    assert said.code == 0
    lines = dict(line.split(maxsplit=1) for line in said.out.splitlines() if not line.startswith(("CUDA", "torch th")))
    assert {"python", "torch", "transformers", "peft", "processors", "memory"} <= set(lines)
    assert str(Path.home()) not in said.out
    assert "/" not in said.out


def test_recipes_are_listed_and_copied(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    listed = command("recipes").out
    for name in ("beavertails", "helpsteer", "own_data", "quickstart"):
        assert f"{name} " in listed
    assert command("recipes", "--copy", "own_data", "--out", "mine").code == 0
    assert command("run", "--config", "mine/recipe.yaml", "--dry_run").code == 0
    assert command("recipes", "--copy", "own_data", "--out", "mine").code == 1
    assert "did you mean 'helpsteer'?" in command("recipes", "--copy", "helpster").err


def test_a_run_is_cleaned_of_what_it_no_longer_needs(command: Command, finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run / "run", run)
    (run / "sample" / ".unit-00000.jsonl.1.tmp").write_text("{")
    kept = {path for path in run.rglob("*") if path.is_file() and "checkpoints" not in path.parts}
    kept -= {path for path in kept if "cache" in path.parts or path.suffix == ".tmp"}
    listed = command("clean", "--run", run)
    assert listed.code == 0
    assert "align-kind/checkpoints" in listed.out
    assert ".unit-00000.jsonl.1.tmp" in listed.out
    assert (run / "cache").is_dir()
    assert command("clean", "--run", run, "--yes").code == 0
    assert {path for path in run.rglob("*") if path.is_file()} - kept <= {run.with_name(".run.lock")}
    assert all(path.exists() for path in kept)
    words = ("run", "--config", finished_run / "recipe.yaml", "--set", f"recipe.run_dir={run}", "--dry_run")
    assert command(*words).code == 0
    assert "no run here" in command("clean", "--run", tmp_path).err


def test_checkpoints_of_a_fit_that_goes_on_stay(command: Command, finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run / "run", run)
    manifest = json.loads((run / "realign-kind/manifest.json").read_text())
    (run / "realign-kind/manifest.json").write_text(json.dumps({**manifest, "complete": False}))
    assert command("clean", "--run", run, "--yes").code == 0
    assert (run / "realign-kind/checkpoints/last.ckpt").exists()
    assert (run / "cache").is_dir()
    assert not (run / "align-kind/checkpoints").exists()


def test_shells_complete_commands_and_options(command: Command, tmp_path: Path) -> None:
    script = tmp_path / "complete.sh"
    script.write_text(command("completion", "--shell", "bash").out)
    asks = "COMP_WORDS=(sipo_pl {words}); COMP_CWORD={at}; _shtab_sipo_pl; echo ${{COMPREPLY[@]}}"
    for words, at, expected in (
        ("ex", 1, {"export", "export_pairs"}),
        ("export --ki", 2, {"--kinds"}),
        ("fit --obj", 2, {"--objective"}),
    ):
        line = asks.format(words=words, at=at)
        said = subprocess.run(["bash", "-c", f"source {script}; {line}"], capture_output=True, text=True, check=True)
        assert set(said.stdout.split()) == expected
    names = script.read_text().split("_subparsers=(")[1].split(")")[0].split()
    assert set(names) == {*cli.COMMANDS, *cli.TRAINER_COMMANDS}
