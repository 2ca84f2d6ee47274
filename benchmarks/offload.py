"""Fits by the public command in little GPU memory: ZeRO-3 with offload under a cap, killed and resumed; four bits.

On a GPU: python -m benchmarks.offload --shape 3b --gib 5
On a CPU, where no such way exists, as a trial: python -m benchmarks.offload --shape tiny
"""

import argparse
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from benchmarks import options
from benchmarks.models import Setting, load_model, load_tokenizer
from sipo_pl.storage.json_lines import read_jsonl, write_jsonl

OBJECTIVES = ("a", "b")
SAVE_EVERY = 2  # optimizer steps
KILLED_AFTER = 5
PATIENCE = 300.0  # seconds
# without checkpointing the states of one pair fill the cap
OFFLOAD = ("--config", "strategies/deepspeed_zero3_offload.yaml", "--model.forwards.checkpointing", "true")
COLUMNS = ("way", "cap GiB", "steps", "s/step", "peak MiB", "largest loss difference to unbroken")


class Way(NamedTuple):
    """How a fit is run.

    Args:
        words: of the command, beside the usual ones
        capped: whether its GPU memory is
        killed: by SIGKILL, and started again
        gpu: whether it needs one
    """

    words: tuple[str, ...] = ()
    capped: bool = False
    killed: bool = False
    gpu: bool = True


WAYS = {
    "plain": Way(gpu=False),
    "plain, killed": Way(killed=True, gpu=False),
    "plain, capped": Way(capped=True),
    "4bit": Way(("--recipe.quantize", "4bit")),
    "zero3_offload": Way(OFFLOAD, capped=True),
    "zero3_offload, killed": Way(OFFLOAD, capped=True, killed=True),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the fits; return 0 where all that should end did, and none that should not."""
    args = _arguments(argv)
    setting = options.setting_of(args)
    chosen = args.ways or [name for name, way in WAYS.items() if setting.device.type == "cuda" or not way.gpu]
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        fits = Fits(Path(folder), args, setting)
        found = [fits.run(name) for name in chosen]
    for one in found:
        unbroken = next((row for row in found if f"{row['way']}, killed" == one["way"]), None)
        if unbroken and len(one["losses"]) == len(unbroken["losses"]) > 0:
            gaps = [abs(a - b) for a, b in zip(one["losses"], unbroken["losses"], strict=True)]
            one["largest loss difference to unbroken"] = max(gaps)
    return max(options.finish(args, setting.title, COLUMNS, found), *(int(not one["as expected"]) for one in found))


class Fits:
    """Fits of one objective on the same random model and pairs.

    Args:
        folder: takes model, data and runs.
        args: the options.
        setting: the model.
    """

    def __init__(self, folder: Path, args: argparse.Namespace, setting: Setting) -> None:
        self.folder, self.args = folder, args
        load_model(setting).save_pretrained(folder / "model")
        load_tokenizer(setting).save_pretrained(folder / "model")
        torch.cuda.empty_cache()
        for split, count in (("train", args.pairs), ("validation", 2), ("test", 2)):
            write_jsonl(folder / f"{split}.jsonl", _pairs(split, count, args.prompt_words, args.response_words))
        pairs = {"class_path": "sipo_pl.data.converters.pairs.Pairs"}
        data = {split: [f"{split}.jsonl"] for split in ("train", "validation", "test")}
        recipe = {
            "name": "offload",
            "base_model": str(folder / "model"),
            "dtype": str(setting.dtype).removeprefix("torch."),
            "objectives": [{"name": name, "phrase": f"more {name}"} for name in OBJECTIVES],
            "template": {"text": "{raw_prompt}"},
            "data": {**data, "converter": pairs, "max_length": 1024},
            "run_dir": str(folder / "plain"),
        }
        self._write("recipe", recipe)
        self._write("prepare", {"stage": "prepare", "recipe": "recipe.yaml"})
        device = {"accelerator": "gpu" if setting.device.type == "cuda" else "cpu", "devices": 1}
        optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-4}}
        align = {
            "stage": "align",
            "recipe": "recipe.yaml",
            "model": {"lora": {"r": setting.rank, "alpha": setting.rank}, "optimizer": optimizer},
            "data": {"micro_batch_size": 1, "eval_batch_size": 2, "max_length": 1024},
            "saving": {"validations": 1, "keep": "last", "save_every": SAVE_EVERY},
            "trainer": {**device, "max_epochs": 1, "accumulate_grad_batches": args.accumulate},
        }
        self._write("align", align)

    def run(self, name: str) -> dict[str, Any]:
        """Fit in one way; return its row of the table."""
        print(f"{name} …", flush=True)
        way, run = WAYS[name], self.folder / name.replace(", ", "-")
        record, log = run.with_suffix(".jsonl"), run.with_suffix(".log")
        cap = {"record": str(record), "gib": self.args.gib if way.capped else None}
        callback = {"class_path": "benchmarks.memory_cap.MemoryCap", "init_args": cap}
        self._write(f"{run.name}-cap", {"trainer": {"callbacks": [callback]}})
        place = ("--recipe.run_dir", str(run))
        code = self._wait(self._start(log, "prepare", "--config", self.folder / "prepare.yaml", *place))
        configs = ("--config", self.folder / "align.yaml", "--config", self.folder / f"{run.name}-cap.yaml")
        words = ("fit", *configs, *way.words, "--objective", OBJECTIVES[0], *place)
        if way.killed and code == 0:
            process = self._start(log, *words)
            self._kill(process, record)
        if code == 0:
            code = self._wait(self._start(log, *words))
        found = self._row(name, code, log.read_text(encoding="utf-8"), record)
        print(found, flush=True)
        return found

    def _row(self, name: str, code: int, said: str, record: Path) -> dict[str, Any]:
        """Return the row of a fit that has ended; print the end of what it said where it ended in another way."""
        way = WAYS[name]
        full = code != 0 and "out of memory" in said.lower()
        steps = {row["step"]: row for row in read_jsonl(record, [])} if record.exists() else {}
        times = [steps[step]["at"] - steps[step - 1]["at"] for step in steps if step - 1 in steps]
        finite = all(math.isfinite(row["loss"]) for row in steps.values())
        ended = code == 0 and finite and ("resuming from" in said or not way.killed)
        expected = full if name == "plain, capped" else ended
        if not expected:
            print(said[-4000:], flush=True)
        return {
            "way": name,
            "cap GiB": self.args.gib if way.capped else "",
            "steps": "out of memory" if full else len(steps) if code == 0 else f"exit code {code}",
            "s/step": statistics.median(times) if times else "",
            "peak MiB": max((row["peak"] for row in steps.values()), default=0) / 2**20 or "",
            "losses": [steps[step]["loss"] for step in sorted(steps)],
            "as expected": expected,
        }

    def _start(self, log: Path, *words: object) -> subprocess.Popen[bytes]:
        with log.open("ab") as said:
            command = [sys.executable, "-m", "sipo_pl", *map(str, words)]
            return subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        try:
            return process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return process.wait()

    def _kill(self, process: subprocess.Popen[bytes], record: Path) -> None:
        """Kill a fit and all that it started once it is so many steps on."""
        end = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < end:
            if record.exists() and len(record.read_text(encoding="utf-8").splitlines()) >= KILLED_AFTER:
                break
            time.sleep(0.01)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _write(self, name: str, value: dict[str, Any]) -> None:
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")


def _pairs(split: str, count: int, prompt: int, response: int) -> list[dict[str, Any]]:
    """Return pairs of random words whose preferred response, under each objective, alternates."""
    generator = torch.Generator().manual_seed(len(split))

    def text(words: int) -> str:
        return " ".join(f"w{index}" for index in torch.randint(4, 300, (words,), generator=generator).tolist())

    return [
        {"prompt": text(prompt), "response_0": text(response), "response_1": text(response), "a": k % 2, "b": 1 - k % 2}
        for k in range(count)
    ]


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = options.parser(__doc__)
    add = parser.add_argument
    add("--ways", nargs="+", choices=list(WAYS), help="fits to run; all that the device can where not given")
    add("--gib", type=float, default=5.0, help="GPU memory of the ways that are capped")
    add("--pairs", type=int, default=32, help="pairs of the fit")
    add("--accumulate", type=int, default=4, help="pairs of an optimizer step")
    add("--prompt_words", type=int, default=60, help="tokens of a prompt")
    add("--response_words", type=int, default=166, help="tokens of a response")
    add("--folder", type=Path, help="where the model and the runs are for a while")
    return options.parse(parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
