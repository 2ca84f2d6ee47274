"""Interleaved timings, the machine's own rates, and tables."""

import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import peft
import torch
import transformers

Run = Callable[[], Any]


def clock(run: Run, device: torch.device) -> float:
    """Return the seconds that a call takes, its work on the device included."""
    _wait(device)
    start = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - start


def interleaved(runs: Mapping[str, Run], device: torch.device, repeats: int) -> dict[str, float]:
    """Return the median seconds of each call over `repeats` rounds, in each of which all are called in turn."""
    return medians({name: partial(clock, run, device) for name, run in runs.items()}, repeats)


def medians(measures: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Return the median of what each measure returns over `repeats` rounds, in each of which all are taken in turn."""
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(repeats):
        for name, measure in measures.items():
            taken[name].append(measure())
    return {name: statistics.median(values) for name, values in taken.items()}


def fastest(sizes: Sequence[int], run: Callable[[int], Any], device: torch.device) -> int:
    """Return the size at which `run`, which does the same work at each, needs the least time.

    With one size there is nothing to measure.
    """
    if len(sizes) == 1:
        return sizes[0]
    seconds = {size: clock(lambda size=size: run(size), device) for size in sizes}  # type: ignore[misc]
    return min(seconds, key=lambda size: seconds[size])


def copy_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the bytes per second of a large copy, read and written bytes both counted."""
    size = 2**31 if device.type == "cuda" else 2**27
    source = torch.ones(size // dtype.itemsize, dtype=dtype, device=device)
    target = torch.empty_like(source)
    return 2 * size / _best(lambda: target.copy_(source), device)


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the operations per second of a large matrix product of random numbers."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / _best(lambda: a @ b, device)


def versions() -> str:
    """Return the versions that a table is of."""
    return (
        f"Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"peft {peft.__version__}"
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows as a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _best(run: Run, device: torch.device, repeats: int = 5) -> float:
    run()
    return min(clock(run, device) for _ in range(repeats))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
