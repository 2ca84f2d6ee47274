"""Reads the golden cases and compares numbers with them."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from golden_table import note

FOLDER = Path(__file__).parent
MODEL = str(FOLDER / "model")
NUMBERS = 1e-4  # relative, for log-probabilities, rewards, training losses and gradients in float32
PURE = 1e-5  # for losses of given log-probabilities


def cases(name: str) -> Any:
    """Return what the golden file `name` holds."""
    return json.loads(gzip.decompress((FOLDER / "cases" / f"{name}.json.gz").read_bytes()))


def adapters(names: Iterable[str]) -> list[str]:
    """Return the folders of golden adapters."""
    return [str(FOLDER / "adapters" / name) for name in names]


def check(family: str, found: Any, expected: Any, tolerance: float = NUMBERS, floor: float = 1.0) -> None:
    """Assert that two equally shaped lists of numbers agree, relative to `floor` where numbers are smaller."""
    off = deviation(found, expected, floor)
    note(family, _count(expected), off)
    assert off < tolerance, f"{family}: {off:.3g}"


def deviation(found: Any, expected: Any, floor: float = 1.0) -> float:
    """Return the largest relative difference of two equally shaped lists."""
    if isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        return max((deviation(a, b, floor) for a, b in zip(found, expected, strict=True)), default=0.0)
    return abs(found - expected) / max(abs(expected), floor)


def _count(values: Any) -> int:
    return sum(map(_count, values)) if isinstance(values, list | tuple) else 1
