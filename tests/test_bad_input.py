"""What a user gets wrong is told in one line, with file, line and key, before any weight is read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import CHAT_TEMPLATE, make_tiny_adapter, make_tiny_model
from tiny_run import Command, edit, make_talkative_model, write_recipe, write_rows, write_yaml

FAILED, WRONG_USE = 1, 2
FIT = ("fit", "--config", "{dir}/align.yaml", "--objective", "kind")
SAMPLE = ("predict", "--config", "{dir}/sample.yaml")
PREPARE = ("prepare", "--config", "{dir}/prepare.yaml")
RUN = ("run", "--config", "{dir}/recipe.yaml")


@pytest.fixture(scope="module")
def weightless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a base model without its weights: whatever reads them fails, with another message."""
    folder = make_tiny_model(tmp_path_factory.mktemp("weightless") / "model", chat_template=CHAT_TEMPLATE)
    (folder / "model.safetensors").unlink()
    return folder


@pytest.fixture
def folder(tmp_path: Path, weightless: Path) -> Path:
    """Folder of a recipe over the model without weights."""
    write_recipe(tmp_path, weightless)
    return tmp_path


def fails(command: Command, folder: Path, words: tuple[str, ...], code: int, message: str) -> None:
    """Run a command and assert its exit code and the one line that it says; `{dir}` is the recipe's folder."""
    said = command(*(word.replace("{dir}", str(folder)) for word in words))
    lines = [line for line in said.err.splitlines() if not line.startswith("prepare: ")]  # beside its progress
    assert lines == [f"sipo_pl {words[0]}: {message}".replace("{dir}", str(folder))]
    assert said.code == code


def line_of(path: Path, text: str) -> int:
    """Return the line of a file that holds a text."""
    return next(number for number, line in enumerate(path.read_text().splitlines(), start=1) if text in line)


# keys of config files


@pytest.mark.parametrize(
    ("words", "file", "old", "new", "message"),
    [
        (FIT, "align.yaml", "optimizer:", "optimiser:", "no key 'model.optimiser'; did you mean 'model.optimizer'?"),
        (FIT, "align.yaml", "r: 2", "rr: 2", "no key 'model.lora.rr'; did you mean 'model.lora.r'?"),
        (FIT, "align.yaml", "model:", "modle:", "no key 'modle'; did you mean 'model'?"),
        (
            FIT,
            "align.yaml",
            "max_epochs:",
            "max_epoch:",
            "no key 'trainer.max_epoch'; did you mean 'trainer.max_epochs'?",
        ),
        (FIT, "align.yaml", "lr: 0.01", "lrr: 0.01", "model.optimizer.init_args: no key 'lrr'; did you mean 'lr'?"),
        (FIT, "align.yaml", "lr: 0.01", "lr: fast", "model.optimizer.init_args.lr: expected float or Tensor, found 'fast'"),
        (FIT, "align.yaml", "max_length: 64", "max_length: long", "data.max_length: expected int, found 'long'"),
        (FIT, "recipe.yaml", "base_model:", "base_modle:", "no key 'base_modle'; did you mean 'base_model'?"),
        (FIT, "recipe.yaml", "train:", "trian:", "no key 'data.trian'; did you mean 'data.train'?"),
        (FIT, "recipe.yaml", "phrase: more short", "phrse: short", "objectives[1]: no key 'phrse'; did you mean 'phrase'?"),
        (FIT, "recipe.yaml", "class_path:", "classpath:", "objectives[0].reward: no key 'classpath'; did you mean 'class_path'?"),
        (FIT, "recipe.yaml", "- name: short\n  phrase", "- phrase", "objectives[1]: key 'name' is missing"),
        (RUN, "recipe.yaml", "sample_weights:", "sample_weight:", "no key 'sample_weight'; did you mean 'sample_weights'?"),
        (RUN, "recipe.yaml", "name: tiny", "name: tiny\nseed: x", "seed: expected int, found 'x'"),
        (RUN, "recipe.yaml", "name: tiny", "name: tiny\nname: small", "key 'name' stands in line 1 already"),
        (
            RUN,
            "recipe.yaml",
            "name: tiny",
            "name: tiny\ndtype: float23",
            "dtype: expected one of 'float32', 'bfloat16', found 'float23'; did you mean 'float32'?",
        ),
        (RUN, "recipe.yaml", "name: tiny", "stages: {revew: false}\nname: tiny", "stages: no stage 'revew'; did you mean 'review'?"),
        (RUN, "recipe.yaml", "{raw_prompt}", "{raw_promt}", "template.text: no field {raw_promt}; did you mean 'raw_prompt'?"),
        (RUN, "recipe.yaml", "{raw_prompt}", "", "template.text: the field {raw_prompt} is missing"),
        (
            RUN,
            "recipe.yaml",
            "- 0.25,0.75",
            "- 0.5,0.75",
            "sample_weights: weights '0.5,0.75' are off the simplex: they sum to 1.25, not 1",
        ),
        (
            RUN,
            "recipe.yaml",
            "- 0.25,0.75",
            "- kind=0.25,shrt=0.75",
            "sample_weights: weights 'kind=0.25,shrt=0.75': no objective 'shrt'; did you mean 'short'?",
        ),
        (RUN, "recipe.yaml", "name: short", "name: kind", "objectives: the name 'kind' appears 2 times"),
        (RUN, "recipe.yaml", "name: short", "name: a/b", "objectives: the name 'a/b' holds more than letters, digits and _ . -"),
        (PREPARE, "recipe.yaml", "- train.jsonl", "- trian.jsonl", "data.train: no such file '{dir}/trian.jsonl'"),
        (("filter", "--config", "{dir}/filter.yaml"), "filter.yaml", "best_margin", "best", "on_too_few: expected one of 'stop', 'best_margin', found 'best'"),
    ],
)
def test_wrong_keys_are_found_by_line(
    folder: Path, command: Command, words: tuple[str, ...], file: str, old: str, new: str, message: str
) -> None:
    path = folder / file
    edit(path, old, new)
    key = message.partition(":")[0].rpartition(".")[2] + ":" if not message.startswith(("no key", "key")) else ""
    wrong = new.splitlines()[-1].lstrip("- ") if not key or "[" in key or "init_args" in message else key
    number = {"trian.jsonl": line_of(path, "train:") if "train:" in path.read_text() else 0}.get(wrong)
    fails(command, folder, words, WRONG_USE, f"{path}:{number or line_of(path, wrong)}: {message}")
