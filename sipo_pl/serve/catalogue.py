"""What a server serves: the names of its models, which are weights of one run, and the run's measured front."""

import time
from dataclasses import dataclass, field
from typing import Any

from sipo_pl.messages.errors import UsageError, UserError
from sipo_pl.method.weights import Point, corners, point_name
from sipo_pl.report.cells import BASE, weights_of
from sipo_pl.serve.errors import ApiError, invalid
from sipo_pl.use.api import Policies
from sipo_pl.use.scores import Scores, read_scores

AT = "@"


@dataclass(frozen=True)
class Catalogue:
    """The models of a server.

    Args:
        policies: the policies of the run
        name: of the run
        weights: of requests that name none; none where they must
        scores: what the run's evaluation measured, if it did
        created: when the server began, in seconds since 1970
    """

    policies: Policies
    name: str
    weights: Point | None
    scores: Scores | None
    created: int = field(default_factory=lambda: int(time.time()))

    def point(self, model: str, weights: Any = None) -> Point:
        """Return the weights that a request asks for.

        Args:
            model: the run's name, alone or with weights: ``run@0.7,0.3``.
            weights: the request's own field.

        Raises:
            ApiError: another model, no weights, weights twice, or such as are off the simplex.
        """
        name, at, named = model.rpartition(AT) if AT in model else (model, "", "")
        if name != self.name:
            served = f"{self.name} and {self.name}{AT}{point_name(self._example)}"
            raise ApiError(404, f"no model {model[:100]!r}; served are {served}", code="model_not_found", param="model")
        if at and weights is not None:
            raise invalid("weights: given twice, in the model's name too", "weights")
        asked = named if at else weights
        if asked is None:
            if self.weights is None:
                raise invalid(
                    f"weights: none given; ask for the model {self.name}{AT}{point_name(self._example)}, or give "
                    f"weights for {list(self.policies.objectives)}",
                    "weights",
                )
            return self.weights
        try:
            return self.policies.weights(asked)
        except UserError as error:
            raise invalid(str(error)[:500], "model" if at else "weights") from None

    def called(self, point: Point) -> str:
        """Return the name of the model at a point."""
        return f"{self.name}{AT}{point_name(point)}"

    @property
    def _example(self) -> Point:
        count = len(self.policies.objectives)
        return self.weights or tuple(1 / count for _ in range(count))

    def listing(self) -> list[dict[str, Any]]:
        """Return the models that are listed: the run, and the run at its measured weights."""
        return [self.entry(self.name, self.weights), *(self.entry(self.called(one), one) for one in self._measured)]

    def entry(self, name: str, point: Point | None) -> dict[str, Any]:
        """Return what is told of a model."""
        named = dict(zip(self.policies.objectives, point, strict=True)) if point else None
        return {"id": name, "object": "model", "created": self.created, "owned_by": "sipo_pl", "weights": named}

    @property
    def _measured(self) -> list[Point]:
        return [tuple(weights_of(name)) for name in self.scores.rows if name != BASE] if self.scores else []

    def front(self) -> dict[str, Any]:
        """Return what the page shows: objectives, weights to begin with, and the measured means of each point."""
        source = self.policies.source
        phrases = {one.name: one.phrase for one in source.recipe[0].objectives} if source.recipe else {}
        return {
            "model": self.name,
            "objectives": [{"name": name, "phrase": phrases.get(name, "")} for name in self.policies.objectives],
            "weights": list(self._example),
            "front": self.scores
            and {
                "prompts": self.scores.prompts,
                "points": [
                    {"weights": list(point), "rewards": self.scores.rows[name]}
                    for name, point in zip((n for n in self.scores.rows if n != BASE), self._measured, strict=True)
                ],
                "base": self.scores.rows.get(BASE),
            },
        }


def make_catalogue(policies: Policies, name: str | None, weights: str | None) -> Catalogue:
    """Return the models of a run.

    Args:
        policies: loaded.
        name: of the run; its folder's where not given.
        weights: of requests that name none; those of an export where not given.

    Raises:
        UsageError: weights off the simplex, or a name that cannot be one.
    """
    source = policies.source
    name = name or source.folder.resolve().name
    if AT in name or not name.strip():
        raise UsageError(f"name: {name!r} cannot be a model's name; {AT} parts name and weights")
    point = policies.weights(weights) if weights is not None else source.weights
    scores = read_scores(*source.recipe, point or corners(len(source.names))[0]) if source.recipe else None
    return Catalogue(policies, name, point, scores)
