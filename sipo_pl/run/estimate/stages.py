"""What each stage takes, as arithmetic on counts, sizes, settings and rates."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
        judged: whether a model measures any of the objectives, not formulas alone
        configs: settings of the run's stages, by their names; some stages work on what others make
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
    judged: bool = True
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def of(self, stage: str, key: str, default: Any) -> Any:
        """Return a setting of one of the run's stages; the default where it has none."""
        return value(self.configs.get(stage, {}), key, default)

    @property
    def sampled_prompts(self) -> int:
        """Return how many prompts candidates are sampled for."""
        return self.counts.conflict_prompts(self.of("sample", "model.max_rows", None))

    @property
    def candidates(self) -> int:
        """Return how many candidates are sampled."""
        return self.sampled_prompts * self.sampled * int(self.of("sample", "model.samples_per_weight", 1))

    @property
    def sampled_pairs(self) -> int:
        """Return how many conflicting pairs have the prompts that candidates are sampled for."""
        every = self.counts.conflict_prompts(None)
        return round(self.counts.conflicts * self.sampled_prompts / max(1, every))

    def test_prompts(self, stage: str) -> int:
        """Return how many test prompts a stage answers."""
        return min(self.counts.test, self.of(stage, "model.max_rows", self.counts.test))


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
