"""Kills a tiny whole run at random moments, again and again, and compares what it makes with an uninterrupted run.

`make crash SEED=1 KILLS=60`. Two of three blows are SIGKILL to all processes, one is SIGTERM to the run. Each is aimed
at a phase, and counted under the phase that the files show afterwards. Exit code 0 only if nothing was lost.
"""

import itertools
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from tiny_run import kill, make_talkative_model, sipo_pl, start, write_recipe, write_yaml

from sipo_pl.artifacts import Manifest

RESUMABLE = 75
AIMS = ("fit", "unit", "write", "any")
LONGEST = {"fit": 0.05, "unit": 0.03, "write": 0.0, "any": 1.5}  # seconds from what was waited for to the blow
PATIENCE = 60.0  # seconds to wait for what is aimed at; then the blow falls anyway
INTERVAL = 2  # optimizer steps between checkpoints
STEPS_VARIABLE = "CRASH_STEPS"  # folder of the step logs


class StepLog(Callback):
    """Appends the number of each optimizer step to a file, before the step's checkpoint."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
        path = Path(os.environ[STEPS_VARIABLE]) / Path(trainer.default_root_dir).name
        with path.open("a") as file:
            file.write(f"{trainer.global_step}\n")


@dataclass
class Figures:
    """What was done to the runs, and what came of it."""

    blows: Counter[str] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    stages: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    units_twice: int = 0
    most_steps_again: int = 0
    different: list[str] = field(default_factory=list)
    wrong_codes: list[int] = field(default_factory=list)

    @property
    def fine(self) -> bool:
        wrong = self.units_twice or self.different or self.wrong_codes
        # a step that is validated is not saved, but the next one, and a step may be cut off after it was logged
        return not wrong and self.most_steps_again <= INTERVAL + 1

    def __str__(self) -> str:
        phases = ", ".join(f"{count} {name}" for name, count in sorted(self.phases.items()))
        return (
            f"{self.blows['SIGKILL']} SIGKILL, {self.blows['SIGTERM']} SIGTERM "
            f"in {len(self.stages)} stages ({phases}); "
            f"{self.runs} runs finished; files that differ {len(self.different)}; units made twice {self.units_twice}; "
            f"optimizer steps made again, at most {self.most_steps_again} (checkpoints every {INTERVAL}); "
            f"wrong exit codes {len(self.wrong_codes)}"
        )


def crash(folder: Path, model: Path, whole: Path, seed: int, blows: int) -> Figures:
    """Make runs in `folder` under `blows` blows, each run to its end, and compare each with the run folder `whole`."""
    rng, figures = random.Random(seed), Figures()
    while sum(figures.blows.values()) < blows:
        place = folder / f"run-{figures.runs}"
        recipe, steps = _recipe(place, model), place / "steps"
        steps.mkdir()
        os.environ[STEPS_VARIABLE] = str(steps)
        units: dict[Path, tuple[int, int]] = {}
        code = None
        while code != 0 and sum(figures.blows.values()) < blows:
            code = _blow(recipe, place / "run", rng, figures)
            units = {path: _state(path) for path in (place / "run").glob("*/unit-*.jsonl")} | units
        last = sipo_pl("run", "--config", recipe)
        if last.returncode != 0:
            figures.wrong_codes.append(last.returncode)
            print(last.stderr)
        figures.runs += 1
        figures.units_twice += sum(_state(path) != state for path, state in units.items())
        figures.most_steps_again = max(figures.most_steps_again, *map(_steps_again, steps.iterdir()))
        figures.different += differences(place / "run", whole)
    return figures


def _recipe(folder: Path, model: Path) -> Path:
    folder.mkdir()
    recipe = write_recipe(folder, model)
    for stage in ("align", "realign"):
        path = folder / f"{stage}.yaml"
        values = yaml.safe_load(path.read_text())
        values["saving"]["save_every"] = INTERVAL
        values["trainer"]["callbacks"] = [{"class_path": "crash.StepLog"}]
        write_yaml(path, values)
    return recipe


def _blow(recipe: Path, run: Path, rng: random.Random, figures: Figures) -> int | None:
    """Start the run, stop it once, and count how; return its exit code where it ended by itself."""
    how = signal.SIGTERM if rng.random() < 1 / 3 else signal.SIGKILL
    aim = rng.choice(AIMS)
    begun, before = time.time(), _progress(run, aim)
    process = start("run", "--config", recipe)
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end and _progress(run, aim) <= before:
        time.sleep(0.0005 if aim == "write" else 0.005)
    time.sleep(rng.random() * LONGEST[aim])
    if process.poll() is not None:
        return process.returncode
    if how is signal.SIGKILL:
        kill(process)
    else:
        process.send_signal(how)
        code = process.wait(timeout=300)
        if code not in (0, RESUMABLE, -signal.SIGTERM):  # the last: it had not yet begun
            figures.wrong_codes.append(code)
    stage, phase = _phase(run, begun)
    figures.blows[how.name] += 1
    figures.phases[phase] += 1
    figures.stages[stage] += 1
    print(f"{sum(figures.blows.values())}: {how.name} in {stage}, {phase}", flush=True)
    return None


def _progress(run: Path, aim: str) -> int:
    """Return a number that grows when what is aimed at begins."""
    if aim == "fit":
        return sum(path.stat().st_mtime_ns for path in run.glob("*align-*/checkpoints/before.ckpt") if path.exists())
    if aim == "any":
        log = run / "run.log"
        return len(re.findall(r"\[\d+/\d+\] \S+$", log.read_text(), re.MULTILINE)) if log.exists() else 0
    return len(list(run.glob("*/unit-*.jsonl" if aim == "unit" else "**/.*.tmp")))


def _phase(run: Path, since: float) -> tuple[str, str]:
    """Return the stage that was cut off and the phase it was in, as its files show."""
    manifests = [(path.parent, Manifest.read(path.parent)) for path in run.glob("*/manifest.json")]
    begun = [folder for folder, manifest in manifests if manifest is not None and not manifest.complete]
    if any(path.stat().st_mtime > since for path in run.glob("**/.*.tmp")):
        return (begun[0].name if begun else "run"), "during a write"
    if not begun:
        return "between stages", "between stages"
    folder = begun[0]
    if (folder / "checkpoints").exists():
        return folder.name, "mid-epoch"
    return folder.name, "mid-unit" if list(folder.glob("unit-*.jsonl")) else "at a stage's start"


def _state(path: Path) -> tuple[int, int]:
    return path.stat().st_ino, path.stat().st_mtime_ns


def _steps_again(log: Path) -> int:
    """Return how many optimizer steps a restart made again, at most."""
    steps, most = [int(line) for line in log.read_text().split()], 0
    for last, step in itertools.pairwise(steps):
        most = max(most, last - step + 1 if step < last else 0)
    return most


def differences(run: Path, whole: Path) -> list[str]:
    """Return the results of a run that differ from those of the whole one: rows, tensors, metrics, and their counts."""
    found = []
    for manifest_file in sorted(whole.glob("*/manifest.json")):
        name = manifest_file.parent.name
        ours, theirs = Manifest.read(run / name), Manifest.read(manifest_file.parent)
        assert theirs is not None
        if ours is None or not ours.complete or (ours.rows, ours.notes) != (theirs.rows, theirs.notes):
            found.append(name)
            continue
        found += [f"{name}/{file}" for file in theirs.files if not _equal(run / name / file, whole / name / file)]
    return found


def _equal(ours: Path, theirs: Path) -> bool:
    return ours.exists() and ours.read_bytes() == theirs.read_bytes()


def main(seed: int, blows: int) -> int:
    """Make the whole run, then the others; say the figures and return the exit code."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_talkative_model(folder / "model")
        (folder / "whole").mkdir()
        os.environ[STEPS_VARIABLE] = str(folder / "whole")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        whole = sipo_pl("run", "--config", _recipe(folder / "whole/recipe", model))
        if whole.returncode != 0:
            print(whole.stderr)
            return 1
        figures = crash(folder, model, folder / "whole/recipe/run", seed, blows)
    print(json.dumps({"phases": figures.phases, "stages": figures.stages, "different": figures.different}))
    print(f"seed {seed}: {figures}: {'nothing lost' if figures.fine else 'FAILED'}")
    return 0 if figures.fine else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
