"""Fits and predictions on several GPUs beside one: losses, rates, memory, a killed device, the same rows.

On two GPUs: python -m benchmarks.devices --out runs/devices --least_rows 1.9 --most_loss 0.05
On a CPU, to try it: python -m benchmarks.devices --out runs/devices --shape tiny --device cpu --seconds 600

A random model, made-up pairs and a recipe are written into `--work`. Every part is one or more commands, as users give
them, and has what is left of `--seconds`: what it found is in the table, what failed or was left out is named below it.
The losses that are compared are those in the TensorBoard files, the mean over all pairs of a step.
"""

import argparse
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import options
from benchmarks.devices_parts import STAGES, Bench
from benchmarks.launcher import fork_where_possible
from benchmarks.measuring import table, versions
from sipo_pl.storage.json_lines import write_json

COLUMNS = (
    "work",
    "GPUs",
    "pairs/s",
    "rows/s",
    "x pairs/s",
    "x rows/s",
    "x rows/s, with the start",
    "peak GiB a GPU",
    "loss, largest difference",
    "loss, mean difference",
    "val/loss",
    "rows that differ",
)
PARTS: dict[str, Callable[[Bench], None]] = {
    "one": Bench.one_device,
    "ddp": Bench.ddp,
    "zero3": Bench.zero3,
    "killed": Bench.killed,
    "predict": Bench.predictions,
    "adapters": Bench.adapters,
    "zero2": Bench.zero2,
    "spread": Bench.spread,
}
# spread makes the predictions once more, one device after the other
USUAL = [name for name in PARTS if name != "spread"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 where every part ran and every target that is given is met."""
    args = _arguments(argv)
    begin = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    setting = options.setting_of(args)
    args.device = setting.device.type
    work = args.work or Path(tempfile.mkdtemp(prefix="devices-"))
    bench = Bench(args, setting, work.resolve(), begin + args.seconds)
    title = f"{setting.title}, {args.devices} devices, steps of {args.step_pairs} pairs"
    try:
        if setting.device.type == "cuda":
            print(f"processes begin by {fork_where_possible()}", flush=True)
        for name in ["setup", *args.only]:
            since = time.monotonic()
            if since > bench.deadline:
                bench.lost.append(f"{name}: left out, the time was over")
                continue
            try:
                (Bench.set_up if name == "setup" else PARTS[name])(bench)
            except Exception as error:  # what was found so far is worth more than a clean end
                traceback.print_exc()
                bench.lost.append(f"{name}: {str(error).strip()[-2000:]}")
            bench.notes[f"seconds of {name}"] = round(time.monotonic() - since, 1)
            print(f"{name}: {time.monotonic() - since:.1f} s", flush=True)
            _write(args.out, title, bench)
    finally:
        if args.work is None:
            shutil.rmtree(work, ignore_errors=True)
    missed = options.finish(args, title, COLUMNS, bench.found, lost=bench.lost, notes=bench.notes)
    return int(bool(missed or bench.lost))


def _write(folder: Path, title: str, bench: Bench) -> None:
    """Write what was found so far, as a table and as numbers."""
    shown = table(COLUMNS, [[row.get(name, "") for name in COLUMNS] for row in bench.found])
    notes = "\n".join(f"- {name}: {value}" for name, value in bench.notes.items())
    lost = "\n".join(f"- lost: {line}" for line in bench.lost)
    text = f"{title}; {versions()}\n\n{shown}\n\n{notes}\n{lost}\n"
    (folder / "devices.md").write_text(text, encoding="utf-8")
    found: dict[str, Any] = {"rows": bench.found, "notes": bench.notes, "lost": bench.lost, "curves": bench.curves}
    write_json(folder / "devices.json", {"setting": title, "versions": versions(), **found})


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = options.parser(__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for devices.md and devices.json")
    add("--work", type=Path, help="empty folder for model and runs, some GB; a temporary one where not given")
    add("--devices", type=int, default=2, help="how many GPUs, or processes on a CPU")
    add("--only", nargs="+", choices=PARTS, default=USUAL, help="parts, in this order; all need `one`")
    add("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="predictions that all devices make too")
    add("--seconds", type=float, default=540.0, help="after which no part begins and every command is killed")
    add("--zero", help="strategy class in place of DeepSpeed's, which needs GPUs")
    add("--pairs", type=int, default=1280, help="of the training split")
    add("--step_pairs", type=int, default=128, help="of an optimizer step over all devices, and of the validation")
    add("--epochs", type=int, default=4, help="of each fit")
    add("--rate", type=float, default=2e-4, help="learning rate")
    add("--warm_steps", type=int, default=8, help="steps at the beginning that pairs/s leave out")
    add("--batch_tokens", type=int, default=20480, help="tokens of a forward of a fit")
    add("--prompt_words", type=int, default=30, help="of a made-up prompt")
    add("--response_words", type=int, nargs=2, default=[40, 90], help="least and most of a made-up response")
    add("--units", type=int, default=12, help="units of a prediction")
    add("--unit_prompts", type=int, default=8, help="prompts of a unit")
    add("--unit_rows", type=int, default=128, help="rows of a unit of sampling, all decoded at once")
    add("--tokens", type=int, default=128, help="longest text that is decoded; they end after half as many on average")
    add("--score_tokens", type=int, default=65536, help="tokens of a forward of scoring")
    options.add_targets(parser, rows="x rows/s")
    options.add_limits(parser, loss="loss, largest difference", differ="rows that differ")
    parser.set_defaults(shape="1b", most_differ=0.0)
    args = options.parse(parser, argv)
    if args.shape == "smollm2":
        parser.error("--shape: smollm2 is no random model")
    return args


if __name__ == "__main__":
    raise SystemExit(main())
