"""A whole recipe in small: a model that ends its texts, raw data, one config a stage, and the commands on them."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from tiny import make_tiny_model

NAMES = ("kind", "short", "plain")
WORDS = ["red", "blue", "green", "stone", "bird", "cloud", "walk", "sing", "jump", "over", "under", "tree"]
REPORT_FILES = ("metrics.json", "pareto.png", "pareto.svg", "report.html", "table.md", "table.tex")

_TRAINER = {"accelerator": "cpu", "devices": 1}
_OPTIMIZER = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}
_FIT: dict[str, Any] = {
    "recipe": "recipe.yaml",
    "model": {"lora": {"r": 2, "alpha": 2}, "optimizer": _OPTIMIZER},
    "data": {"micro_batch_size": 1, "eval_batch_size": 8, "max_length": 64},
    "saving": {"validations": 2, "save_every": 1},
    "trainer": {**_TRAINER, "max_epochs": 3, "accumulate_grad_batches": 2, "log_every_n_steps": 1},
}


def _predict(stage: str, *, max_length: int = 64, **model: Any) -> dict[str, Any]:
    decoding = {"temperature": 1.0, "max_length": max_length, "max_new_tokens": 12}
    return {
        "stage": stage,
        "recipe": "recipe.yaml",
        "model": {"decoding": decoding, **model},
        "data": {"unit_prompts": 2},
        "trainer": _TRAINER,
    }


def _small(stage: str, **settings: Any) -> dict[str, Any]:
    return {"stage": stage, "recipe": "recipe.yaml", **settings}


STAGE_CONFIGS: dict[str, dict[str, Any]] = {
    "prepare": _small("prepare"),
    "sft": {"stage": "sft", **_FIT, "data": {**_FIT["data"], "validation_share": 0.2}},
    "align": {"stage": "align", **_FIT},
    "sample": _predict("sample", samples_per_weight=2),
    "review": _predict("review", max_length=1500),
    "rewrite": _predict("rewrite", max_length=2000),
    "score": _small("score", trainer=_TRAINER),
    "combine": _small("combine"),
    "filter": _small("filter", on_too_few="best_margin"),
    "realign": {"stage": "realign", **_FIT, "data": {**_FIT["data"], "source": "filter"}},
    "evaluate": _predict("evaluate", split="test", base=True),
    "measure": _small("measure", trainer=_TRAINER),
    "report": _small("report", resamples=50, samples=3),
}


class Said(NamedTuple):
    """What a command said.

    Args:
        code: its exit code
        out: standard output
        err: standard error
    """

    code: int
    out: str
    err: str


Command = Callable[..., Said]


def make_talkative_model(folder: Path, **tokenizer: Any) -> Path:
    """Write a tiny model that ends a text with every tenth token or so, where a random one hardly ever would."""
    import torch
    from transformers import AutoModelForCausalLM

    make_tiny_model(folder, **tokenizer)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        # a hidden unit that is always on, and raises the logit of EOS
        model.model.embed_tokens.weight[:, 0] = 0.1
        model.lm_head.weight[model.config.eos_token_id, 0] = 0.8
    model.save_pretrained(folder)
    return folder


def write_recipe(folder: Path, model: Path, objectives: int = 2, size: int = 1, **changes: Any) -> Path:
    """Write raw data and the configs of a recipe into `folder`; return the path of its `recipe.yaml`.

    Args:
        folder: where; its runs go to its `run`.
        model: folder of the base model.
        objectives: how many; the first is measured by a text reward, the others by implicit ones.
        size: how many times as many prompts as usual.
        changes: keys of the recipe that replace the usual ones.
    """
    names = NAMES[:objectives]
    rng = random.Random(7)
    for split, prompts in (("train", 6), ("validation", 3), ("test", 3)):
        rows = [row for index in range(size * prompts) for row in _rows(f"{split} {index}", names, rng)]
        write_rows(folder / f"{split}.jsonl", rows)
    recipe = {
        "name": "tiny",
        "base_model": str(model),
        "objectives": [{"name": name, "phrase": f"more {name}"} for name in names],
        "data": {split: [f"{split}.jsonl"] for split in ("train", "validation", "test")},
        "template": {"text": "Q: {raw_prompt} A:"},
        "sample_weights": {"points": [_point(0, objectives), _point(1, objectives)]},
        "evaluate_weights": {"points": [_point(0, objectives)], "corners": True},
        "run_dir": str(folder / "run"),
    }
    recipe["objectives"][0]["reward"] = {"class_path": "sipo_pl.rewards.text.Detail"}  # type: ignore[index]
    write_yaml(folder / "recipe.yaml", {**recipe, **changes})
    for stage, config in STAGE_CONFIGS.items():
        write_yaml(folder / f"{stage}.yaml", config)
    return folder / "recipe.yaml"


def _rows(prompt: str, names: Iterable[str], rng: random.Random) -> list[dict[str, Any]]:
    """Two responses of a prompt: no ties, and the first objective prefers the one that all others do not."""
    texts = [" ".join(rng.sample(WORDS, 2)) for _ in range(2)]
    return [
        {"prompt": prompt, "response": text, **{name: k if i == 0 else 1 - k for i, name in enumerate(names)}}
        for k, text in enumerate(texts)
    ]


def _point(heavy: int, count: int) -> str:
    """Return the weights of a point that gives one objective three quarters and shares the rest among the others."""
    return ",".join("0.75" if index == heavy else str(0.25 / (count - 1)) for index in range(count))


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_yaml(path: Path, value: Any) -> Path:
    """Write a value as YAML."""
    path.write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")
    return path


def edit(path: Path, old: str, new: str) -> None:
    """Replace text that a file holds exactly once."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path} holds {old!r} {text.count(old)} times"
    path.write_text(text.replace(old, new), encoding="utf-8")


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a command: offline, one thread, as plain as a user's."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **more}


def sipo_pl(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does, and return what it said."""
    command = [sys.executable, "-m", "sipo_pl", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300, check=False)


def start(*words: object) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own."""
    command = [sys.executable, "-m", "sipo_pl", *map(str, words)]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment(), stdout=quiet, stderr=quiet, start_new_session=True)


def wait_until(process: subprocess.Popen[bytes], reached: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for a state of the files that a running command writes."""
    end = time.monotonic() + seconds
    while not reached():
        assert process.poll() is None, f"ended with exit code {process.returncode} before it was reached"
        assert time.monotonic() < end, "not reached"
        time.sleep(0.005)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a command and all that it started, as a machine that dies does."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
