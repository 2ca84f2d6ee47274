"""Whether cost is linear in rows and in policies, and memory flat over a ten times longer run.

On a CPU: python -m benchmarks.scaling --out docs
On a GPU: python -m benchmarks.scaling --shape 7b --rows 128 256 384 512 --batch_rows 128 --policies 1 2 3 4 6
"""

import argparse
import contextlib
import resource
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import options
from benchmarks.measuring import interleaved
from benchmarks.models import Ours
from benchmarks.texts import random_prompts, random_rows
from sipo_pl.engine.decoding.generation import generate
from sipo_pl.engine.decoding.options import Decoding, Request
from sipo_pl.engine.lora.adapters import Factors
from sipo_pl.method.divergences import ReverseKL
from sipo_pl.rewards.implicit import implicit_rewards
from sipo_pl.storage.files import atomic_path

COLUMNS = ("work", "grows with", "sizes", "seconds", "slope", "R2", "peak MiB 1x", "peak MiB 10x", "growth")
LONGER = 10
NO_EOS = -1
Work = Callable[[int, int], None]  # rows, policies


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 where every target that is given is met."""
    args = _arguments(argv)
    setting = options.setting_of(args)
    ours = Ours(setting)
    drawn = ours.random_factors(max(*args.policies, args.count))
    works = {"decode": partial(_decode, args, ours, drawn), "score": partial(_score, args, ours, drawn)}
    found = []
    for name, work in works.items():
        found.append({"work": name} | _memory(args, work, setting.device))
        for axis, sizes in (("rows", args.rows), ("policies", args.policies)):
            found.append({"work": name} | _line(args, work, axis, sizes, setting.device))
    if args.out is not None:
        _plot(args.out, [one for one in found if "R2" in one], setting.title)
    return options.finish(args, setting.title, COLUMNS, found)


def _decode(args: argparse.Namespace, ours: Ours, drawn: Sequence[Factors], rows: int, policies: int) -> None:
    prompts = random_prompts(rows, *args.prompt_tokens, ours.model.config.vocab_size)
    requests = [Request(str(i), prompt, (1 / policies,) * policies) for i, prompt in enumerate(prompts)]
    decoding = Decoding(max_length=4096, max_new_tokens=args.tokens, batch_rows=args.batch_rows)
    generate(ours.policies(drawn[:policies]), requests, decoding, ReverseKL(), NO_EOS, 0)


def _score(args: argparse.Namespace, ours: Ours, drawn: Sequence[Factors], rows: int, policies: int) -> None:
    length = (args.tokens, args.tokens)
    texts = random_rows(rows, 1, args.prompt_tokens, length, ours.model.config.vocab_size)
    # a budget that grows with the groups holds the rows of a forward
    budget = args.batch_rows * (max(args.prompt_tokens) + args.tokens) * (policies + 1)
    implicit_rewards(ours.policies(drawn[:policies]), policies, texts, ReverseKL(), 0.1, budget)


def _line(
    args: argparse.Namespace, work: Work, axis: str, sizes: Sequence[int], device: torch.device
) -> dict[str, Any]:
    """Time a work at several sizes and fit a line."""
    at = {size: (size, args.count) if axis == "rows" else (args.rows[0], size) for size in sizes}
    work(*at[sizes[0]])
    medians = interleaved({str(size): partial(work, *given) for size, given in at.items()}, device, args.repeats)
    seconds = list(medians.values())
    slope, start = np.polyfit(sizes, seconds, 1)
    rest = np.square(np.array(seconds) - (slope * np.array(sizes) + start)).sum()
    explained = 1 - rest / np.square(np.array(seconds) - np.mean(seconds)).sum()
    return {"grows with": axis, "sizes": list(sizes), "seconds": seconds, "slope": float(slope), "R2": float(explained)}


def _memory(args: argparse.Namespace, work: Work, device: torch.device) -> dict[str, Any]:
    """Take the peak memory of a run and of one with ten times the rows."""
    work(args.rows[0], args.count)  # what is made once
    peaks = []
    for rows in (args.rows[0], LONGER * args.rows[0]):
        forget_peak(device)
        work(rows, args.count)
        peaks.append(peak(device) / 2**20)
    return {"peak MiB 1x": peaks[0], "peak MiB 10x": peaks[1], "growth": peaks[1] / peaks[0]}


def forget_peak(device: torch.device) -> None:
    """Let `peak` count from now on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):  # Linux only; elsewhere the peak of the process so far counts
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak(device: torch.device) -> float:
    """Return bytes: of the allocator on a GPU, of the resident process on a CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated())
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) * 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


def _plot(folder: Path, found: Sequence[dict[str, Any]], title: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    figure.suptitle(title)
    for axes, one in zip(figure.subplots(2, 2).flat, found, strict=True):
        axes.plot(one["sizes"], one["seconds"], "o")
        start = float(np.mean(one["seconds"]) - one["slope"] * np.mean(one["sizes"]))
        axes.axline((0, start), slope=one["slope"], linewidth=1)
        axes.set(xlabel=one["grows with"], ylabel="seconds", title=f"{one['work']}, R² = {one['R2']:.4f}")
        axes.set(xlim=(0, None), ylim=(0, None))
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "scaling.png") as aside:
        figure.savefig(aside, format="png", dpi=110)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = options.parser(__doc__)
    add = parser.add_argument
    add("--rows", type=int, nargs="+", default=[16, 32, 48, 64], help="sizes; the first is the 1x of memory")
    add("--policies", type=int, nargs="+", default=[1, 2, 3, 4], help="numbers of policies")
    add("--count", type=int, default=2, help="policies while rows vary")
    add("--batch_rows", type=int, default=16, help="rows at once")
    add("--tokens", type=int, default=16, help="of each response")
    add("--prompt_tokens", type=int, nargs=2, default=[32, 32], help="least and most")
    add("--out", type=Path, help="folder for scaling.png")
    options.add_targets(parser, r2="R2")
    options.add_limits(parser, growth="growth")
    return options.parse(parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
