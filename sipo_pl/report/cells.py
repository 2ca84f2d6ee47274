"""Measured rows, grouped by phase and point over the prompts that all of them share.

Phases: `base` is the base model, `before` the front of the first alignment, `after` that of the re-alignment. Of
several rounds `after` is the last; `round 1` and so on are the ones before it.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sipo_pl.messages.errors import UserError

log = logging.getLogger("sipo_pl")

BASE = "base"
ENDS = ("before", "after")
ROUND = "round "  # a phase between the ends, with its number

JsonRow = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """Measurements of one phase and point, row by row of the prompts that all cells share.

    Args:
        rewards: mean over a prompt's responses, (prompts, objectives)
        words: mean over a prompt's responses, (prompts,)
        finished: share of responses that ended by themselves
        collapsed: share of responses that repeat themselves
    """

    rewards: NDArray[np.float64]
    words: NDArray[np.float64]
    finished: float
    collapsed: float


@dataclass(frozen=True)
class Cells:
    """All measurements of a run.

    Args:
        objectives: names, in the recipe's order
        prompts: ids of the prompts that every phase and point has, sorted
        cells: phase and point to its measurements, phases in order, points by descending first weight
    """

    objectives: tuple[str, ...]
    prompts: tuple[str, ...]
    cells: dict[tuple[str, str], Cell]

    @property
    def phases(self) -> list[str]:
        """Return the phases that were measured, in order."""
        return list(dict.fromkeys(phase for phase, _ in self.cells))

    def points(self, phase: str) -> list[str]:
        """Return the points that were measured in `phase`."""
        return [point for found, point in self.cells if found == phase]

    def shared_points(self) -> list[str]:
        """Return the points that were measured both before and after."""
        return [point for point in self.points("before") if ("after", point) in self.cells]

    def rewards(self, phase: str, points: Sequence[str]) -> NDArray[np.float64]:
        """Return the rewards of some points, (prompts, points, objectives)."""
        return np.stack([self.cells[phase, point].rewards for point in points], axis=1)


def measured_cells(
    objectives: Sequence[str],
    before: Iterable[JsonRow],
    after: Iterable[JsonRow],
    earlier: Mapping[int, Iterable[JsonRow]] = MappingProxyType({}),
) -> Cells:
    """Group measured rows; prompts that some phase or point lacks are left out, with a warning.

    Args:
        objectives: names, in the recipe's order.
        before: measured rows of the base and of the first alignment.
        after: measured rows of the re-alignment, that of the last round.
        earlier: round to measured rows, of the rounds before the last.

    Raises:
        UserError: no rows, a row without an objective's reward, or no prompt that every phase and point has.
    """
    groups: dict[tuple[str, str], dict[str, list[JsonRow]]] = {}
    rounds = {f"{ROUND}{number}": rows for number, rows in earlier.items()}
    for phase, rows in {"before": before, **rounds, "after": after}.items():
        for row in rows:
            if missing := [name for name in objectives if name not in row["rewards"]]:
                raise UserError(
                    f"measured row {row['sample_id']!r} ({phase} re-alignment): no reward of {', '.join(missing)}, "
                    f"found {', '.join(row['rewards']) or 'none'}"
                )
            key = (BASE, BASE) if row["point"] == BASE else (phase, row["point"])
            groups.setdefault(key, {}).setdefault(row["prompt_id"], []).append(row)
    if not groups:
        raise UserError("measure-align and measure-realign hold no rows, so there is nothing to report")
    prompts = sorted(set.intersection(*(set(group) for group in groups.values())))
    if not prompts:
        raise UserError("no prompt was measured at every weight and in every phase, so nothing can be compared")
    if dropped := len(set.union(*(set(group) for group in groups.values()))) - len(prompts):
        log.warning("report: %d prompts were not measured everywhere and are left out", dropped)
    return Cells(
        tuple(objectives),
        tuple(prompts),
        {key: _cell(objectives, [groups[key][prompt] for prompt in prompts]) for key in sorted(groups, key=_order)},
    )


def weights_of(point: str) -> tuple[float, ...]:
    """Return the weights that a point's name tells; none for the base, and for one answer at all weights."""
    return () if point in (BASE, "") else tuple(float(weight) for weight in point.split(","))


def _order(key: tuple[str, str]) -> tuple[float, tuple[float, ...]]:
    phase, point = key
    fixed = {BASE: -1.0, "before": 0.0, "after": math.inf}
    place = fixed[phase] if phase in fixed else float(phase.removeprefix(ROUND))
    return place, tuple(-weight for weight in weights_of(point))


def _cell(objectives: Sequence[str], by_prompt: Sequence[Sequence[JsonRow]]) -> Cell:
    rows = [row for group in by_prompt for row in group]
    rewards = [np.mean([[row["rewards"][name] for name in objectives] for row in group], axis=0) for group in by_prompt]
    return Cell(
        np.array(rewards, dtype=np.float64),
        np.array([np.mean([row["words"] for row in group]) for group in by_prompt], dtype=np.float64),
        sum(row["finish_reason"] == "eos" for row in rows) / len(rows),
        sum("collapsed" in row["marks"] for row in rows) / len(rows),
    )
