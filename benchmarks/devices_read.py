"""What `devices.py` reads of runs: curves, memory, when units were written, and how two runs differ."""

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from sipo_pl.data.units import unit_files

CLOCK = "clock-{rank}.json"


class Step(NamedTuple):
    """A step of a fit, as its trainer logged it.

    Args:
        time: when, in seconds
        loss: mean over its pairs
    """

    time: float
    loss: float


class UnitClock(Callback):
    """Notes beside a stage's units when this device began and when it was done with each, as seconds and rows."""

    def __init__(self) -> None:
        self.start, self.ends, self.file = 0.0, list[tuple[float, int]](), Path()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = time.time()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.ends.append((time.time(), len(outputs)))
        self.file = batch.folder / CLOCK.format(rank=trainer.global_rank)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.file.write_text(json.dumps({"start": self.start, "ends": self.ends}), encoding="utf-8")


def curve(stage: Path) -> dict[int, Step]:
    """Return the steps of a fit, of a stage's folder; of one that was logged twice, the later."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util.tensor_util import make_ndarray

    found: dict[int, Step] = {}
    for file in sorted((stage / "tensorboard").glob("events.*")):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.tag == "loss":
                    found[event.step] = Step(event.wall_time, float(make_ndarray(value.tensor)))
    return dict(sorted(found.items()))


def pairs_per_second(steps: dict[int, Step], pairs: int, skipped: int) -> float:
    """Return the rate of a fit after its first steps.

    Args:
        steps: see `curve`.
        pairs: of a step.
        skipped: steps at its beginning that are left out.
    """
    times = [step.time for step in steps.values()][skipped - 1 :]
    return pairs * (len(times) - 1) / (times[-1] - times[0])


def loss_differences(found: dict[int, Step], expected: dict[int, Step]) -> list[float]:
    """Return the absolute difference in the loss of each step that both logged."""
    return [abs(found[step].loss - expected[step].loss) for step in expected if step in found]


def peak_gib(said: str, stage: str) -> float | str:
    """Return what a stage said of its peak memory; nothing where it said nothing, as on a CPU."""
    found = re.findall(rf"{stage}: peak memory (\S+) GiB", said)
    return float(found[-1]) if found else ""


class Rate(NamedTuple):
    """How fast a prediction was.

    Args:
        whole: rows a second, from the first device's beginning to the last one's end
        steady: the sum over devices of their rows a second after their first unit, with which come compiled kernels and
            captured graphs, to the last one's end
    """

    whole: float
    steady: float


def rows_per_second(stage: Path) -> Rate:
    """Return the rate of a prediction whose devices kept `UnitClock`s."""
    clocks = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(stage.glob("clock-*.json"))]
    end = max(clock["ends"][-1][0] for clock in clocks)
    total = sum(rows for clock in clocks for _, rows in clock["ends"])
    steady = sum(sum(rows for _, rows in clock["ends"][1:]) / max(end - clock["ends"][0][0], 1e-9) for clock in clocks)
    return Rate(total / (end - min(clock["start"] for clock in clocks)), steady)


def rows_that_differ(found: Path, expected: Path) -> int:
    """Return how many rows of two prediction folders are not the same bytes, missing ones included."""
    lines = [
        [line for file in unit_files(folder) for line in file.read_bytes().splitlines()] for folder in (found, expected)
    ]
    same = sum(one == other for one, other in zip(*lines, strict=False))
    return max(map(len, lines)) - same


def compare_adapters(base: Path, adapters: Sequence[Path], device: str) -> dict[str, float]:
    """Load two adapters in plain peft; return how far their logits are apart, and how far they are from the base's.

    Args:
        base: folder of the base model, with a file of texts beside it.
        adapters: folders of two.
        device: to compute on.
    """
    tokenizer = AutoTokenizer.from_pretrained(base)
    lines = (base.parent / "validation.jsonl").read_text(encoding="utf-8").splitlines()[:8]
    texts = [row["prompt"] + row["response"] for row in map(json.loads, lines)]
    model = AutoModelForCausalLM.from_pretrained(base).to(device).eval()
    ids = [tokenizer(text, return_tensors="pt").input_ids.to(device) for text in texts]

    @torch.inference_mode()
    def logits(one: Any) -> torch.Tensor:
        return torch.cat([one(input_ids=row).logits.float().log_softmax(-1)[0] for row in ids])

    plain = logits(model)
    made = PeftModel.from_pretrained(model, adapters[0], adapter_name="0")
    made.load_adapter(adapters[1], adapter_name="1")
    each = []
    for name in ("0", "1"):
        made.set_adapter(name)
        each.append(logits(made))
    return {
        "finite": float(all(one.isfinite().all() for one in each)),
        "mean_difference": float((each[0] - each[1]).abs().mean()),
        "mean_change_from_base": float((each[0] - plain).abs().mean()),
    }
