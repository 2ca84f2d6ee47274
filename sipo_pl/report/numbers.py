"""The numbers of a report: plain JSON values, the same bytes for the same rows.

Intervals are 95 % intervals over prompts, as ``{"estimate", "low", "high"}``: of means by Student's t with a correction
for skewness, of the hypervolume by a bootstrap. Each draws with a fresh generator of the same seed, so that none
depends on what else is computed.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sipo_pl.messages.errors import UserError
from sipo_pl.method.weights import corners, point_name
from sipo_pl.metrics.bootstrap import paired_bootstrap, statistic_interval
from sipo_pl.metrics.front import pareto_front
from sipo_pl.metrics.hypervolume import fixed_frame, hypervolume
from sipo_pl.metrics.intervals import LEVEL, Interval, mean_difference, mean_interval, told
from sipo_pl.report.cells import BASE, ROUND, Cell, Cells

SAME_LENGTH = 0.2
DIGITS = 8


def summarise(cells: Cells, *, seed: int, resamples: int) -> dict[str, Any]:
    """Return what `metrics.json` says about the fronts.

    Args:
        cells: what was measured.
        seed: seed of the bootstrap.
        resamples: draws of the bootstrap.

    Returns:
        `points`, an entry per phase and point; `corners`, each corner's paired difference from the base; `changes`,
        each point's paired difference between the phases, over all prompts and over those whose two responses differ
        by at most a fifth in words; `hypervolume` with its frame, see `fixed_frame`, and with each round's step where
        there are several. What was not measured is null.

    Raises:
        UserError: the phases have no weight in common.
    """
    summary = _Summary(cells, seed, resamples)
    return {
        "objectives": list(cells.objectives),
        "prompts": len(cells.prompts),
        "bootstrap": {"resamples": resamples, "level": LEVEL, "seed": seed},
        "points": [entry for phase in cells.phases for entry in summary.points(phase)],
        "corners": [entry for phase in cells.phases for entry in summary.corners(phase)],
        "changes": [summary.change(point) for point in cells.shared_points()],
        "hypervolume": summary.hypervolume(),
    }


class _Summary:
    def __init__(self, cells: Cells, seed: int, resamples: int) -> None:
        self.cells, self.seed, self.resamples = cells, seed, resamples

    def points(self, phase: str) -> Iterable[dict[str, Any]]:
        names = self.cells.points(phase)
        front = pareto_front(self._means(phase)) if names else ()
        for point, on_front in zip(names, front, strict=True):
            cell = self.cells.cells[phase, point]
            yield {
                "phase": phase,
                "point": point,
                "prompts": len(cell.rewards),
                "mean": self._by_objective(mean_interval(cell.rewards)),
                "words": _round(cell.words.mean()),
                "finished": _round(cell.finished),
                "collapsed": _round(cell.collapsed),
                "on_front": None if phase == BASE else bool(on_front),
            }

    def corners(self, phase: str) -> Iterable[dict[str, Any]]:
        cells, names = self.cells.cells, self.cells.objectives
        for name, corner in zip(names, corners(len(names)), strict=True):
            point = point_name(corner)
            if (BASE, BASE) in cells and phase != BASE and (phase, point) in cells:
                difference = self._difference(cells[BASE, BASE].rewards, cells[phase, point].rewards)
                yield {
                    "phase": phase,
                    "objective": name,
                    "point": point,
                    "difference": difference,
                    "beats_base": told(difference[name], len(cells[phase, point].rewards)) > 0,
                }

    def change(self, point: str) -> dict[str, Any]:
        before, after = self.cells.cells["before", point], self.cells.cells["after", point]
        return {
            "point": point,
            "difference": self._difference(before.rewards, after.rewards),
            "length_matched": self._length_matched(before, after),
        }

    def _length_matched(self, before: Cell, after: Cell) -> dict[str, Any]:
        alike = np.abs(after.words - before.words) <= SAME_LENGTH * np.maximum(before.words, after.words)
        if not alike.any():
            return {"prompts": 0, "before": None, "after": None, "difference": None}
        return {
            "prompts": int(alike.sum()),
            "before": self._numbers(before.rewards[alike].mean(axis=0)),
            "after": self._numbers(after.rewards[alike].mean(axis=0)),
            "difference": self._difference(before.rewards[alike], after.rewards[alike]),
        }

    def hypervolume(self) -> dict[str, Any]:
        cells = self.cells
        fixed_by = [phase for phase in (BASE, "before") if cells.points(phase)] or ["after"]
        frame = fixed_frame(np.concatenate([self._means(phase) for phase in fixed_by]))

        def volume(means: NDArray[np.float64]) -> float:
            return hypervolume(means, frame.reference, frame.scale)

        found: dict[str, Interval] = {}
        points = cells.shared_points()
        if points:
            before, after = cells.rewards("before", points), cells.rewards("after", points)
            found = paired_bootstrap(before, after, volume, self._rng(), resamples=self.resamples)._asdict()
        else:
            measured = [phase for phase in ("before", "after") if cells.points(phase)]
            if len(measured) > 1:
                raise UserError("measure-align and measure-realign have no weight in common: nothing can be compared")
            for phase in measured:
                points = cells.points(phase)
                rewards = cells.rewards(phase, points)
                found[phase] = statistic_interval(rewards, volume, self._rng(), resamples=self.resamples)
        return {
            "reference": self._numbers(frame.reference),
            "range": self._numbers(frame.scale),
            "fixed_by": fixed_by,
            "points": points,
            **{name: _entry(*found[name]) if name in found else None for name in ("before", "after", "change")},
            **self._rounds(points, volume),
        }

    def _rounds(
        self, points: Sequence[str], volume: Callable[[NDArray[np.float64]], float]
    ) -> dict[str, list[dict[str, Any]]]:
        """Return the hypervolume after each round and its change since the one before; nothing of a single round."""
        cells, entries = self.cells, []
        between = [phase for phase in cells.phases if phase.startswith(ROUND)]
        steps = [phase for phase in ("before", *between, "after") if cells.points(phase)]
        for last, phase in itertools.pairwise(steps if between else ()):
            before, after = cells.rewards(last, points), cells.rewards(phase, points)
            found = paired_bootstrap(before, after, volume, self._rng(), resamples=self.resamples)
            entry = {"phase": phase, "since": last, "volume": _entry(*found.after), "change": _entry(*found.change)}
            entries.append(entry)
        return {"rounds": entries} if entries else {}

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def _means(self, phase: str) -> NDArray[np.float64]:
        return self.cells.rewards(phase, self.cells.points(phase)).mean(axis=0)

    def _difference(self, before: NDArray[np.float64], after: NDArray[np.float64]) -> dict[str, Any]:
        return self._by_objective(mean_difference(before, after))

    def _by_objective(self, interval: Interval) -> dict[str, Any]:
        return {name: _entry(*ends) for name, ends in zip(self.cells.objectives, np.stack(interval, -1), strict=True)}

    def _numbers(self, values: NDArray[np.float64]) -> dict[str, float]:
        return {name: _round(value) for name, value in zip(self.cells.objectives, values, strict=True)}


def _entry(estimate: Any, low: Any, high: Any) -> dict[str, float]:
    return {"estimate": _round(estimate), "low": _round(low), "high": _round(high)}


def _round(value: Any) -> float:
    return float(f"{float(value):.{DIGITS}g}")
