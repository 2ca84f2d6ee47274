"""What a run measured, for the cards of what is exported from it."""

from collections.abc import Sequence
from dataclasses import dataclass

from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.recipe import AlignmentStage, Recipe
from sipo_pl.report.cells import BASE, Cells, measured_cells, weights_of
from sipo_pl.report.inputs import read_inputs

PHASE = {"align": "before", "realign": "after"}
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Scores:
    """Mean rewards over the test prompts.

    Args:
        prompts: how many there were
        rows: name of a point, "base" for the base model -> mean reward of each objective
        words: name of a point -> mean words of an answer
        chosen: the name of the point that was asked for; none where it was not measured
    """

    prompts: int
    rows: dict[str, list[float]]
    words: dict[str, float]
    chosen: str | None


def read_scores(recipe: Recipe, kept: AlignmentStage, weights: Sequence[float]) -> Scores | None:
    """Return what the evaluation of a run's policies measured; none where there was no evaluation."""
    inputs = read_inputs(recipe)
    before, after = inputs.rows["measure-align"], inputs.rows["measure-realign"]
    try:
        cells = measured_cells(recipe.objective_names, before, after, inputs.earlier)
    except UserError:
        return None
    return _scores(cells, PHASE[kept], weights)


def _scores(cells: Cells, phase: str, weights: Sequence[float]) -> Scores | None:
    points = cells.points(phase)
    if not points:
        return None
    found = {point: cells.cells[phase, point] for point in points}
    if (BASE, BASE) in cells.cells:
        found = {BASE: cells.cells[BASE, BASE], **found}
    near = (point for point in points if _same(weights_of(point), weights))
    return Scores(
        len(cells.prompts),
        {point: [float(mean) for mean in cell.rewards.mean(axis=0)] for point, cell in found.items()},
        {point: float(cell.words.mean()) for point, cell in found.items()},
        next(near, None),
    )


def _same(first: Sequence[float], second: Sequence[float]) -> bool:
    return all(abs(a - b) < TOLERANCE for a, b in zip(first, second, strict=True))
