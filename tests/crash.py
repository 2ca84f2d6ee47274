"""Stops a tiny whole run again and again, in every stage, and compares what it makes with an uninterrupted run.

`make crash SEED=1 KILLS=40`. Beside the SIGKILLs there are half as many SIGTERMs and a few SIGINTs and SIGUSR1s. A blow
is aimed at a random moment of a stage, of a unit, of an epoch or of a write, and counted under the phase that the
stage's own log and files show afterwards. The last line tells the figures; exit code 0 only if nothing was lost.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from tiny_run import make_talkative_model, sipo_pl, start, write_recipe, write_yaml

from sipo_pl.storage.json_lines import read_json, read_jsonl
from sipo_pl.storage.manifest import Manifest

RESUMABLE = 75
INTERVAL = 2  # optimizer steps between checkpoints
TRACE_VARIABLE = "CRASH_TRACE"  # folder of the stages' own logs
FITS = ("align", "realign")
PREDICTIONS = ("sample", "review", "rewrite", "score", "evaluate", "measure")
LONG = {"size": 8, "epochs": 4, "unit_prompts": 1}  # of a full campaign, so that there is much to be cut off
LEAST = {"mid-epoch": 10, "mid-unit": 10, "during a write": 5}  # kills of a full campaign
LATEST = {"epoch": 0.03, "unit": 0.01, "write": 0.0}  # seconds from what is waited for to the blow
PATIENCE = 1200.0  # seconds
GRACE = 100  # looks, 0.05 s each, at the end of which the processes of a run that was killed must be gone
ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

Process = subprocess.Popen[bytes]


class Trace(Callback):
    """Writes down what a stage is at: optimizer steps with their rows and loss, the begin and end of units."""

    def _write(self, trainer: Trainer, **event: Any) -> None:
        with (Path(os.environ[TRACE_VARIABLE]) / f"{Path(trainer.default_root_dir).name}.jsonl").open("a") as file:
            file.write(json.dumps(event) + "\n")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seen, self._rows = trainer.global_step, list[str]()
        self._write(trainer, at="epoch", begins=trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._rows += batch.row_ids
        if trainer.global_step > self._seen:
            loss = float(outputs["loss"]).hex()
            self._write(trainer, at="epoch", step=trainer.global_step, rows=self._rows, loss=loss)
            self._seen, self._rows = trainer.global_step, []

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, at="end")

    def on_predict_batch_start(self, trainer: Trainer, *arguments: Any) -> None:
        self._write(trainer, at="unit")

    def on_predict_batch_end(self, trainer: Trainer, *arguments: Any) -> None:
        self._write(trainer, at="unit written")


class Blow(NamedTuple):
    """How and when a run is to be stopped.

    Args:
        how: the signal
        to_all: send it to all processes of the run, not to the run alone
        stage: folder of the stage
        aim: epoch, unit, write, or any moment of the stage
    """

    how: signal.Signals
    to_all: bool
    stage: str
    aim: str


@dataclass
class Figures:
    """What was done to the runs, and what came of it."""

    blows: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)  # by phase
    stages: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    units_twice: int = 0
    most_again: int = 0  # optimizer steps after a kill
    most_again_asked: int = 0  # optimizer steps after another signal
    other_steps: int = 0
    different: list[str] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    wrong_codes: list[str] = field(default_factory=list)
    outlived: int = 0

    @property
    def fine(self) -> bool:
        wrong = (self.units_twice, self.most_again_asked, self.other_steps, self.different, self.lost, self.doubled)
        return not any((*wrong, self.wrong_codes, self.outlived)) and self.most_again <= INTERVAL

    def enough(self, kills: int) -> bool:
        """Return whether a campaign of `kills` kills is done."""
        hit = all(self.kills[phase] >= count for phase, count in LEAST.items())
        return hit and self.blows["SIGKILL"] >= kills and self.blows["SIGTERM"] >= kills / 2

    def __str__(self) -> str:
        blows = ", ".join(f"{count} {name}" for name, count in self.blows.most_common())
        kills = ", ".join(f"{count} {name}" for name, count in self.kills.most_common())
        return (
            f"{blows} in {len(self.stages)} stages (SIGKILL: {kills}); {self.runs} runs finished; "
            f"files that differ {len(self.different)}, rows lost {self.lost}, doubled {self.doubled}, "
            f"units made twice {self.units_twice}, optimizer steps made again at most {self.most_again} "
            f"(checkpoints every {INTERVAL}) and {self.most_again_asked} after a request to stop, "
            f"steps of other rows or loss {self.other_steps}, wrong exit codes {len(self.wrong_codes)}, "
            f"processes that outlived their run {self.outlived}"
        )


class Campaign:
    """Runs of one recipe under blows.

    Args:
        whole: run folder of an uninterrupted run; its trace, where it has one, is beside it
        model: folder of the base model
        seed: draws the moments
    """

    def __init__(self, whole: Path, model: Path, seed: int) -> None:
        self.whole, self.model, self.moments = whole, model, random.Random(seed)
        self.durations: dict[str, float] = read_json(whole / "timings.json")
        self.figures = Figures()

    def run(self, folder: Path, plan: Iterable[Blow], **settings: int) -> None:
        """Make a run in `folder` under the blows of `plan`, then to its end, and compare it with the whole one.

        Args:
            folder: gets the recipe, the run and the trace.
            plan: in the order of the stages; a blow at a stage that is complete is left out.
            settings: see `make_recipe`.
        """
        recipe, run = make_recipe(folder, self.model, **settings), folder / "run"
        units: dict[Path, tuple[int, int]] = {}
        for blow in plan:
            if not _complete(run / blow.stage):
                self._strike(blow, recipe, run)
                units = {path: _state(path) for path in run.glob("*/unit-*.jsonl")} | units
        last = sipo_pl("run", "--config", recipe)
        if last.returncode != 0:
            self.figures.wrong_codes.append(f"{last.returncode} at the end")
            print(last.stderr)
        self.figures.runs += 1
        self.figures.units_twice += sum(_state(path) != state for path, state in units.items())
        for trace in sorted((folder / "trace").iterdir()):
            self._compare_steps(trace, self.whole.parent / "trace" / trace.name)
        for theirs in sorted(self.whole.glob("*/manifest.json")):
            self._compare_files(run / theirs.parent.name, theirs.parent)

    def _strike(self, blow: Blow, recipe: Path, run: Path) -> None:
        """Start the run, stop it once, and count how; where it went on to another stage, that one is hit."""
        trace = recipe.parent / "trace"
        sizes = {path.name: path.stat().st_size for path in trace.iterdir()}
        lines = _begun_stages(run)
        process = start("run", "--config", recipe)
        self._wait(blow, process, run, trace, sizes, len(lines))
        if process.poll() is not None:
            if process.returncode != 0:
                self.figures.wrong_codes.append(f"{process.returncode} before a blow at {blow.stage}")
            return
        if blow.to_all:
            os.killpg(process.pid, blow.how)
        else:
            process.send_signal(blow.how)
        code = process.wait(timeout=PATIENCE)
        self._count(blow, code, _outlive(process.pid), run, trace, sizes)

    def _wait(self, blow: Blow, process: Process, run: Path, trace: Path, sizes: dict[str, int], before: int) -> None:
        """Wait until the moment of a blow, or until its stage is complete."""
        end, left = time.monotonic() + PATIENCE, self.moments.randrange(4)
        latest = LATEST.get(blow.aim, self.durations[blow.stage])
        file, begins = trace / f"{blow.stage}.jsonl", False
        while process.poll() is None and time.monotonic() < end and not _complete(run / blow.stage):
            begins = begins or blow.stage in _begun_stages(run)[before:]
            if blow.aim == "write":
                reached = begins and _caught_writing(process, run / blow.stage)
            elif blow.aim == "any":
                reached = begins
            else:
                events = _events(file, sizes.get(file.name, 0))
                reached = sum(event["at"] == blow.aim for event in events) > left
            if reached:
                break
            time.sleep(0.0005 if begins else 0.01)
        moment = time.monotonic() + self.moments.random() * latest
        while time.monotonic() < moment and not _complete(run / blow.stage):
            time.sleep(0.0005)

    def _count(self, blow: Blow, code: int, outlived: int, run: Path, trace: Path, sizes: dict[str, int]) -> None:
        figures, name = self.figures, blow.how.name
        stage = _begun_stages(run)[-1]
        expected = -blow.how if blow.how is signal.SIGKILL else RESUMABLE
        if code != expected and not (code == 0 and _complete(run / "report")):  # it had just ended
            figures.wrong_codes.append(f"{code} after {name} in {stage}")
        figures.outlived += outlived
        file = trace / f"{stage}.jsonl"
        phase = _phase(run / stage, _events(file, sizes.get(file.name, 0)))
        figures.blows[name] += 1
        figures.stages[stage] += 1
        if blow.how is signal.SIGKILL:
            figures.kills[phase] += 1
        if file.exists():
            with file.open("a") as opened:
                opened.write(json.dumps({"at": "blow", "how": name}) + "\n")
        number, target = figures.blows.total(), "all processes" if blow.to_all else "the run"
        print(f"{number}: {name} to {target} in {stage}, {phase}: exit code {code}", flush=True)

    def _compare_steps(self, trace: Path, whole: Path) -> None:
        """Compare rows and loss of every optimizer step, and count the steps that were made again."""
        known = {event["step"]: event for event in _events(whole) if "step" in event} if whole.exists() else {}
        figures, last, blows, seen = self.figures, 0, set[str](), set[int]()
        for event in _events(trace):
            if "how" in event:
                blows.add(event["how"])
            elif "begins" in event:
                again, last = last - event["begins"], event["begins"]
                if blows and "SIGKILL" not in blows:  # all of them since the last step could save it
                    figures.most_again_asked = max(figures.most_again_asked, again)
                else:
                    figures.most_again = max(figures.most_again, again)
            elif "step" in event:
                last = event["step"]
                blows.clear()
                seen.add(last)
                figures.other_steps += known.setdefault(last, event) != event
        figures.other_steps += len(known.keys() - seen)

    def _compare_files(self, ours: Path, theirs: Path) -> None:
        """Compare the results of a stage: rows, tensors, metrics, and what its manifest tells of them."""
        mine, expected = Manifest.read(ours), Manifest.read(theirs)
        assert expected is not None
        if mine is None or not mine.complete or (mine.rows, _told(mine)) != (expected.rows, _told(expected)):
            self.figures.different.append(ours.name)
            return
        for name in expected.files:
            if not (ours / name).exists() or (ours / name).read_bytes() != (theirs / name).read_bytes():
                self.figures.different.append(f"{ours.name}/{name}")
            if name.endswith(".jsonl"):
                found, wanted = _identities(ours / name), _identities(theirs / name)
                self.figures.lost += (wanted - found).total()
                self.figures.doubled += (found - wanted).total()


def _told(manifest: Manifest) -> dict[str, Any]:
    """Return what a manifest tells, less the date of its run."""
    return {name: value for name, value in manifest.notes.items() if name != "date"}


def make_recipe(folder: Path, model: Path, size: int = 1, epochs: int = 3, unit_prompts: int = 2) -> Path:
    """Write the recipe whose stages write down what they are at, and tell them where; return its path."""
    folder.mkdir(exist_ok=True)
    recipe = write_recipe(folder, model, size=size)
    for stage in (*FITS, *PREDICTIONS):
        path = folder / f"{stage}.yaml"
        values = yaml.safe_load(path.read_text())
        values["trainer"] = {**values["trainer"], "callbacks": [{"class_path": "crash.Trace"}]}
        if stage in FITS:
            values["saving"]["save_every"] = INTERVAL
            values["trainer"]["max_epochs"] = epochs
        elif "data" in values:
            values["data"]["unit_prompts"] = unit_prompts
        write_yaml(path, values)
    (folder / "trace").mkdir()
    os.environ[TRACE_VARIABLE] = str(folder / "trace")
    return recipe


def draw_plan(stages: Iterable[str], seed: int) -> Iterator[Blow]:
    """Yield the blows of a run: kills at every stage and phase, then other signals at each."""
    rng = random.Random(seed)
    for stage in stages:
        asking = rng.choice(ASKING)
        if stage.startswith(FITS):
            kills, asked = ["epoch", "epoch", "epoch", "write"], [(signal.SIGTERM, "epoch"), (signal.SIGTERM, "any")]
        elif stage.startswith(PREDICTIONS):
            kills, asked = ["unit", "unit", "write"], [(signal.SIGTERM, "unit"), (asking, "any")]
        else:
            kills, asked = ["write", "any"], [(signal.SIGTERM, "any")]
        blows = [*asked, *((signal.SIGKILL, aim) for aim in kills)]
        rng.shuffle(blows)
        # the later ones may come too late, and the next stage may be hit
        blows.sort(key=lambda blow: ("epoch", "unit", "write", "any").index(blow[1]))
        # what is caught in a write stands still, and a run that is killed alone could not take it along
        yield from (Blow(how, aim == "write" or rng.random() < 0.5, stage, aim) for how, aim in blows)


def _caught_writing(process: Process, folder: Path) -> bool:
    """Stop all processes of a run for a moment and return whether the stage is at a write; then they stay stopped."""
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(0.001)
    caught = any(folder.glob("**/.*.tmp"))
    if not caught:
        os.killpg(process.pid, signal.SIGCONT)
        time.sleep(0.002)
    return caught


def _begun_stages(run: Path) -> list[str]:
    """Return the stages that were begun, as the run's log tells, over all its starts."""
    log = run / "run.log"
    return re.findall(r"\[\d+/\d+\] (\S+)$", log.read_text(), re.MULTILINE) if log.exists() else []


def _events(trace: Path, start: int = 0) -> list[dict[str, Any]]:
    if not trace.exists():
        return []
    with trace.open() as file:
        file.seek(start)
        return [json.loads(line) for line in file if line.endswith("\n")]


def _phase(folder: Path, events: list[dict[str, Any]]) -> str:
    """Return what a stage was at when it ended, as its files and its trace show."""
    if any(folder.glob("**/.*.tmp")):
        return "during a write"
    if _complete(folder):
        return "after a stage"
    names = {"epoch": "mid-epoch", "unit": "mid-unit", "unit written": "between units", "end": "at a stage's end"}
    return names[events[-1]["at"]] if events else "at other moments"


def _complete(folder: Path) -> bool:
    manifest = Manifest.read(folder)
    return manifest is not None and manifest.complete


def _outlive(group: int) -> int:
    """Return how many processes of a group live on after a moment of grace, and end them."""
    for _ in range(GRACE):  # no clock, which would go on while a machine sleeps
        if not (alive := _alive(group)):
            break
        time.sleep(0.05)
    for process in alive:
        os.kill(process, signal.SIGKILL)
    return len(alive)


def _alive(group: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                found.append(int(path.parent.name))
    return found


def _state(path: Path) -> tuple[int, int]:
    return path.stat().st_ino, path.stat().st_mtime_ns


def _identities(path: Path) -> Counter[str]:
    """Return how often each row of a file is there."""
    keys = ("sample_id", "text_id", "pair_id", "prompt_id")
    return Counter(next((str(row[key]) for key in keys if key in row), "") for row in read_jsonl(path))


def main(seed: int, kills: int) -> int:
    """Make the whole run, then others under blows until they are enough; say the figures and return the exit code."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_talkative_model(folder / "model")
        said = sipo_pl("run", "--config", make_recipe(folder / "whole", model, **LONG))
        if said.returncode != 0:
            print(said.stderr)
            return 1
        campaign = Campaign(folder / "whole/run", model, seed)
        figures = campaign.figures
        while figures.fine and not figures.enough(kills):
            plan = draw_plan(campaign.durations, seed + figures.runs)
            plan = takewhile(lambda blow: not figures.enough(kills), plan)
            campaign.run(folder / f"run-{figures.runs}", plan, **LONG)
    told = {key: getattr(figures, key) for key in ("stages", "different", "wrong_codes")}
    print(json.dumps(told))
    print(f"seed {seed}: {figures}: {'nothing lost' if figures.fine else 'FAILED'}")
    return 0 if figures.fine else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
