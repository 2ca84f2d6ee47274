"""What each stage takes, as arithmetic on counts, sizes, settings and rates."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sipo_pl.recipe.components import import_class
from sipo_pl.registry import STAGES
from sipo_pl.run.estimate.counts import Counts
from sipo_pl.run.estimate.rates import Rates
from sipo_pl.run.estimate.size import ModelSize

GIB = 2**30
MEASURED_LAYERS = 32  # of the model that fixed costs were measured with
ROW_BYTES, TOKEN_BYTES = 300, 4.5  # of a row on disk


@dataclass(frozen=True)
class Cost:
    """What a stage takes.

    Args:
        rows: rows in training, an epoch, or rows that are made or scored
        tokens: that pass through the model; in decoding, those that are made
        seconds: on all its devices together
        memory: GiB on each device
        disk: bytes
    """

    rows: int
    tokens: float
    seconds: float
    memory: float
    disk: float


@dataclass(frozen=True)
class Setting:
    """What stages share.

    Args:
        counts: of the data
        size: of the base model
        rates: of a device
        dtype: of the base model
        quantized: its weights are in four bits
        objectives: how many
        sampled: weights at which candidates are sampled
        evaluated: weights at which the front is measured
        rewrites: whether candidates are rewritten
        spread: a prediction has its model on all devices at once
        mixes: fusions of policies that answer in a comparison
        entrants: compared methods, each at every weight that it answers for
    """

    counts: Counts
    size: ModelSize
    rates: Rates
    dtype: str
    quantized: bool
    objectives: int
    sampled: int
    evaluated: int
    rewrites: bool
    spread: bool = False
    mixes: int = 0
    entrants: int = 0


def value(config: Mapping[str, Any], key: str, default: Any) -> Any:
    """Return the value of a dotted key of a stage's config; the default where it has none."""
    found: Any = config
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return default if found is None else found


def cost_of(stage: str, config: Mapping[str, Any], setting: Setting, devices: int = 1) -> Cost | None:
    """Return what a stage takes, by the function that its entry in the registry names; None where that is seconds.

    Args:
        stage: the name of its config, such as align.
        config: its settings.
        setting: what stages share.
        devices: that share it.
    """
    path = STAGES[stage].cost
    if path is None:
        return None
    cost: Callable[[Mapping[str, Any], Setting, int], Cost] = import_class(path)
    return cost(config, setting, devices)


def rows_bytes(rows: int, tokens: float) -> float:
    """Return the bytes of rows on disk, each of so many tokens."""
    return rows * (ROW_BYTES + TOKEN_BYTES * tokens)
