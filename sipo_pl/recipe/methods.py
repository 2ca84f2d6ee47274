"""Which policies answer for each compared method at every weight. Quick to import."""

from collections.abc import Sequence
from typing import NamedTuple

from sipo_pl.method.weights import corners, point_name
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.registry import METHODS

BASELINE = "sft"  # what the others are compared with, prompt by prompt
CONTROL = "dpo"  # whose policies must beat the baseline on their own objectives before anything else is believed


class Source(NamedTuple):
    """What a policy is made of.

    Args:
        kind: align, realign, soup, sum, or the config of a fit
        of: the objective, or the point
    """

    kind: str
    of: str


class Entrant(NamedTuple):
    """A method at a point.

    Args:
        method: its name
        point: the weight, as `point_name` writes it; "" where the method has the same answer for all
        mix: the policies that are fused, with their weights; none is the base model
    """

    method: str
    point: str
    mix: tuple[tuple[Source, float], ...]


def entrants(recipe: Recipe) -> list[Entrant]:
    """Return every method of a recipe at every point that it has an answer for.

    At a corner of the simplex all methods with a knob have the one policy that was aligned on that corner's objective,
    but for SIPO and the longer MOD: MOD and soups are that policy, and the losses of the others are its loss.
    """
    points = recipe.evaluate_weights.resolve(recipe.objective_names)
    return [entrant for name in recipe.methods for entrant in _of_method(name, points, recipe.objective_names)]


def _of_method(name: str, points: Sequence[tuple[float, ...]], objectives: Sequence[str]) -> list[Entrant]:
    kind = METHODS[name].kind
    if kind == "base":
        return [Entrant(name, "", ())]
    if kind == "single":
        return [Entrant(name, "", ((Source(name, ""), 1.0),))]
    at = corners(len(objectives)) if kind == "corners" else points
    return [Entrant(name, point_name(point), _mix(name, point, objectives)) for point in at]


def _mix(name: str, point: tuple[float, ...], objectives: Sequence[str]) -> tuple[tuple[Source, float], ...]:
    kind = METHODS[name].kind
    stage = {"realigned": "realign", "fused": METHODS[name].fit or "align"}.get(kind, "align")
    if kind in ("fused", "realigned", "corners") or 1.0 in point:
        return tuple((Source(stage, one), weight) for one, weight in zip(objectives, point, strict=True) if weight)
    return ((Source(kind if kind in ("soup", "sum") else name, point_name(point)), 1.0),)


def fitted(recipe: Recipe, method: str) -> list[str]:
    """Return what a method trains policies of its own for: points, objectives, or "" for one policy at all points."""
    sources = [source for one in entrants(recipe) if one.method == method for source, _ in one.mix]
    return list(dict.fromkeys(source.of for source in sources if source.kind == METHODS[method].fit))
