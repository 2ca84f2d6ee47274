"""The parts of `devices.py`: which commands each runs, and what it compares."""

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks import devices_read as read
from benchmarks.devices_setup import OBJECTIVES, make_model, write_recipe
from benchmarks.launcher import Ranks, SelfStarted, is_gone
from benchmarks.models import Setting
from sipo_pl.run.devices import VISIBLE
from sipo_pl.storage.manifest import Manifest

STAGE = f"align-{OBJECTIVES[0]}"
STAGES = ("sample", "review", "rewrite", "score")
CLOCK = "--trainer.callbacks+=benchmarks.devices_read.UnitClock"
ENDS_WITHIN = 60.0  # seconds that a command may take to end after one of its devices was killed


class Bench:
    """What was found so far, and where.

    Args:
        args: see `devices.py`
        setting: the model and where it runs
        work: takes the model and the runs
        deadline: after which all ends, as `time.monotonic` has it
    """

    def __init__(self, args: argparse.Namespace, setting: Setting, work: Path, deadline: float) -> None:
        self.args, self.setting, self.work, self.deadline = args, setting, work, deadline
        self.found: list[dict[str, Any]] = []
        self.notes: dict[str, Any] = {}
        self.curves: dict[str, dict[int, read.Step]] = {}
        self.lost: list[str] = []

    @property
    def left(self) -> float:
        return max(1.0, self.deadline - time.monotonic())

    def set_up(self) -> None:
        """Write the model, the data and the recipe."""
        self.work.mkdir(parents=True, exist_ok=True)
        make_model(self.work / "model", self.setting, self.args.tokens // 2)
        write_recipe(self.work, self.args, str(self.setting.dtype).removeprefix("torch."))

    # fits

    def one_device(self) -> None:
        """Fit both policies, one on each of two devices at the same time."""
        words = ["run", "--config", self.work / "recipe.yaml", "--set", f"recipe.run_dir={self.work / 'one'}"]
        words += ["--only", "prepare", "align", "--side_by_side", "2"]
        since = time.monotonic()
        subprocess.run([sys.executable, "-m", "sipo_pl", *map(str, words)], timeout=self.left, check=False)
        self.notes["seconds of prepare and two fits side by side"] = round(time.monotonic() - since, 1)
        said = (self.work / "one/run.log").read_text(encoding="utf-8")
        for objective in OBJECTIVES:
            manifest = Manifest.read(self.work / f"one/align-{objective}")
            if manifest is None or not manifest.complete:
                self.lost.append(f"one: side by side made no {objective}: {said[-1000:]}")
                said += self._ran(self._fit("one", 1, "auto", objective=objective))
        self._note_fit("align", "one", 1, said)

    def ddp(self) -> None:
        """Fit on all devices under DDP."""
        self._fit_beside("align, DDP", "ddp", "ddp")

    def zero2(self) -> None:
        """Fit on all devices under ZeRO-2."""
        self._fit_beside("align, ZeRO-2", "zero2", *self._zero(2))

    def zero3(self) -> None:
        """Fit on all devices under ZeRO-3."""
        self._fit_beside("align, ZeRO-3", "zero3", *self._zero(3))

    def killed(self) -> None:
        """Kill a device of a fit under ZeRO-3 after half of its steps, and let the same command go on."""
        self._begin("killed")
        strategy, settings = self._zero(3)
        every = max(1, self.args.pairs // self.args.step_pairs * self.args.epochs // 4)
        words = [*self._fit_words("killed"), "--saving.save_every", every]
        here = {"PYTHONPATH": os.pathsep.join(sys.path)}
        one = SelfStarted([*words, "--trainer.strategy", strategy, *settings], self.work / "said/killed.txt", **here)
        checkpoints = self.work / "killed" / STAGE / "checkpoints"
        try:
            one.wait_until((checkpoints / "before.ckpt").exists, self.left)
            second = one.second
            assert second is not None, one.said
            os.kill(second, signal.SIGKILL)
            since = time.monotonic()
            code = one.wait(ENDS_WITHIN)
            took = time.monotonic() - since
        finally:
            one.close()
        self.notes["killed: exit code"], self.notes["killed: seconds to its end"] = code, round(took, 1)
        self.notes["killed: no process left"] = is_gone(second)
        said = self._ran(Ranks(self.args.devices, words, self.work / "said/resumed", strategy, settings))
        assert "resuming from" in said, said
        row = self._note_fit("align, ZeRO-3, killed and gone on", "killed", self.args.devices, said, rate=False)
        if "zero3" in self.curves:
            gaps = read.loss_differences(self.curves["killed"], self.curves["zero3"])
            row["steps"], self.notes["killed: largest loss difference to ZeRO-3 as a whole"] = len(gaps), max(gaps)

    def adapters(self) -> None:
        """Load the adapters of DDP and of the killed ZeRO-3 in plain peft."""
        made = [name for name in ("one", "ddp", "zero2", "zero3", "killed") if (self._adapter(name)).is_dir()]
        for other in made[1:]:
            pair = [self._adapter(made[0]), self._adapter(other)]
            found = read.compare_adapters(self.work / "model", pair, self.setting.device.type)
            self.notes[f"plain peft, logits of {other} beside {made[0]}"] = found

    def _adapter(self, run: str) -> Path:
        return self.work / run / STAGE / "adapter"

    def _zero(self, stage: int) -> tuple[str, list[str]]:
        if self.args.zero:
            return self.args.zero, ["--trainer.strategy.stage", str(stage)]
        return f"deepspeed_stage_{stage}", []

    def _fit_words(self, run: str, objective: str = OBJECTIVES[0]) -> list[object]:
        words = ["fit", "--config", self.work / "align.yaml", "--objective", objective]
        return [*words, "--recipe.run_dir", self.work / run]

    def _fit(
        self, run: str, devices: int, strategy: str, settings: Sequence[str] = (), objective: str = OBJECTIVES[0]
    ) -> Ranks:
        said = self.work / "said" / f"{run}-{objective}"
        return Ranks(devices, self._fit_words(run, objective), said, strategy, settings)

    def _begin(self, run: str) -> None:
        """Give a run what another one has prepared, the reference log-probabilities among it."""
        for name in ("prepare", "cache"):
            shutil.copytree(self.work / "one" / name, self.work / run / name)

    def _fit_beside(self, name: str, run: str, strategy: str, settings: Sequence[str] = ()) -> None:
        self._begin(run)
        said = self._ran(self._fit(run, self.args.devices, strategy, settings))
        self._note_fit(name, run, self.args.devices, said)

    def _note_fit(self, name: str, run: str, devices: int, said: str, rate: bool = True) -> dict[str, Any]:
        """Add a fit's row to the table; `rate` where it ran as a whole."""
        stage = self.work / run / STAGE
        steps = self.curves[run] = read.curve(stage)
        manifest = Manifest.read(stage)
        assert manifest is not None
        row: dict[str, Any] = {"work": name, "GPUs": devices, "steps": manifest.notes["steps"]}
        self.found.append(row)
        row["val/loss"] = manifest.notes["final val/loss"]
        row["peak GiB a GPU"] = read.peak_gib(said, STAGE)
        if rate:
            row["pairs/s"] = read.pairs_per_second(steps, self.args.step_pairs, self.args.warm_steps)
        if run != "one":
            gaps = read.loss_differences(steps, self.curves["one"])
            row["loss, largest difference"], row["loss, mean difference"] = max(gaps), statistics.fmean(gaps)
            if rate:
                row["x pairs/s"] = row["pairs/s"] / self.found[0]["pairs/s"]
        return row

    # predictions

    def predictions(self) -> None:
        """Predict on one device, with a fit of other forwards beside it, then on all."""
        last = str(self.args.devices - 1)
        beside = self._rounding_fit()
        one = {stage: self._predict("one", stage, 1, **{VISIBLE: last}) for stage in STAGES}
        if beside is not None:
            self._note_fit("align, forwards half as long", "halves", 1, self._ran(beside), rate=False)
        for name in ("prepare", *(f"align-{objective}" for objective in OBJECTIVES)):
            shutil.copytree(self.work / "one" / name, self.work / "many" / name)
        for stage in STAGES:
            if stage not in self.args.stages:
                shutil.copytree(self.work / "one" / stage, self.work / "many" / stage)
                continue
            many = self._predict("many", stage, self.args.devices)
            rates = [read.rows_per_second(self.work / run / stage) for run in ("one", "many")]
            one[stage]["rows/s"], many["rows/s"] = (rate.steady for rate in rates)
            many["x rows/s"] = rates[1].steady / rates[0].steady
            many["x rows/s, with the start"] = rates[1].whole / rates[0].whole
            many["rows that differ"] = read.rows_that_differ(self.work / "many" / stage, self.work / "one" / stage)

    def spread(self) -> None:
        """Predict on all devices with the layers of one base model spread over them."""
        for stage in ("prepare", *(f"align-{objective}" for objective in OBJECTIVES), *STAGES):
            if stage not in self.args.stages:
                shutil.copytree(self.work / "one" / stage, self.work / "spread" / stage)
        for stage in STAGES:
            if stage in self.args.stages:
                row = self._predict("spread", stage, 1, "--recipe.device_map", "auto")
                row |= {"work": f"{stage}, layers spread", "GPUs": self.args.devices}
                row["rows/s"] = read.rows_per_second(self.work / "spread" / stage).steady
                row["rows that differ"] = read.rows_that_differ(self.work / "spread" / stage, self.work / "one" / stage)

    def _rounding_fit(self) -> Ranks | None:
        """Begin a fit on the first device that differs from the one there in rounding alone."""
        if self.setting.device.type != "cuda":
            return None  # it would take the cores that the predictions are measured on
        self._begin("halves")
        words = [*self._fit_words("halves"), "--model.forwards.batch_tokens", self.args.batch_tokens // 2]
        return Ranks(1, words, self.work / "said/halves", "auto", **{VISIBLE: "0"})

    def _predict(self, run: str, stage: str, devices: int, *more: str, **environment: str) -> dict[str, Any]:
        words = ["predict", "--config", self.work / f"{stage}.yaml", CLOCK, "--recipe.run_dir", self.work / run, *more]
        strategy = "auto" if devices == 1 else "ddp"
        said = self._ran(Ranks(devices, words, self.work / "said" / f"{run}-{stage}", strategy, **environment))
        manifest = Manifest.read(self.work / run / stage)
        assert manifest is not None
        row = {"work": stage, "GPUs": devices, "rows": manifest.rows}
        row["peak GiB a GPU"] = read.peak_gib(said, stage)
        self.found.append(row)
        return row

    def _ran(self, ranks: Ranks) -> str:
        """Wait for a command, and return what it said; AssertionError where it failed."""
        codes = ranks.wait(self.left)
        assert not any(codes), f"exit codes {codes}\n{ranks.said[-3000:]}"
        with suppress(IndexError):
            print(ranks.said.splitlines()[-1], flush=True)
        return ranks.said
