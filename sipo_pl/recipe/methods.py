"""The methods that a comparison knows, and which policies answer for each at every weight. Quick to import."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sipo_pl.method.weights import corners, point_name
from sipo_pl.recipe.recipe import Recipe

BASELINE = "sft"  # what the others are compared with, prompt by prompt
CONTROL = "dpo"  # whose policies must beat the baseline on their own objectives before anything else is believed


@dataclass(frozen=True)
class Method:
    """A way to get from preferences to responses at a weight.

    Args:
        title: how tables and pictures call it
        kind: base answers with the base model; corners with one policy an objective, at the corners only; fused fuses
            those policies in decoding, or those of its own fits; soup and sum interpolate them in weight space, A and B
            apart or their product; weighted has a policy for each weight; single has one policy for all weights;
            realigned fuses SIPO's
        fit: config of the fits that it needs beside the alignments
        builds_on_alignment: whether its fits need the policies that are aligned on one objective each
    """

    title: str
    kind: Literal["base", "corners", "fused", "soup", "sum", "weighted", "single", "realigned"]
    fit: str | None = None
    builds_on_alignment: bool = False


METHODS = {
    "sft": Method("SFT", "base"),
    "dpo": Method("DPO per objective", "corners"),
    "soup": Method("Soup of A and B", "soup"),
    "soup_exact": Method("Soup, exact", "sum"),
    "mod": Method("MOD", "fused"),
    "mod_long": Method("MOD, trained longer", "fused", "align_long"),
    "modpo": Method("MODPO", "weighted", "modpo", builds_on_alignment=True),
    "dpo_lw": Method("DPO-LW", "weighted", "dpo_lw"),
    "consistency": Method("Reward Consistency", "single", "consistency"),
    "raco": Method("RACO", "weighted", "raco"),
    "sipo": Method("SIPO", "realigned", builds_on_alignment=True),
}


class PolicySource(NamedTuple):
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
    mix: tuple[tuple[PolicySource, float], ...]


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
        return [Entrant(name, "", ((PolicySource(name, ""), 1.0),))]
    at = corners(len(objectives)) if kind == "corners" else points
    return [Entrant(name, point_name(point), _mix(name, point, objectives)) for point in at]


def _mix(name: str, point: tuple[float, ...], objectives: Sequence[str]) -> tuple[tuple[PolicySource, float], ...]:
    kind = METHODS[name].kind
    stage = {"realigned": "realign", "fused": METHODS[name].fit or "align"}.get(kind, "align")
    if kind in ("fused", "realigned", "corners") or 1.0 in point:
        return tuple(
            (PolicySource(stage, one), weight) for one, weight in zip(objectives, point, strict=True) if weight
        )
    return ((PolicySource(kind if kind in ("soup", "sum") else name, point_name(point)), 1.0),)


def fitted(recipe: Recipe, method: str) -> list[str]:
    """Return what a method trains policies of its own for: points, objectives, or "" for one policy at all points."""
    sources = [source for one in entrants(recipe) if one.method == method for source, _ in one.mix]
    return list(dict.fromkeys(source.of for source in sources if source.kind == METHODS[method].fit))
