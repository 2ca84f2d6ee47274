"""UltraFeedback's schema: several completions of an instruction a row, each rated in four aspects."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sipo_pl.data.checks import number_field, wrong
from sipo_pl.data.converters.base import Converted
from sipo_pl.data.converters.helpsteer import HelpSteer
from sipo_pl.data.readers import Located
from sipo_pl.data.rows import PairRow
from sipo_pl.messages.errors import UserError, nearest
from sipo_pl.recipe.recipe import Objective
from sipo_pl.storage.artifacts import require_key, require_object

ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")
SCORES = ("overall_score", "fine-grained_score")
UNRATED = "completions without a rating"
_NO_RATING = "N/A"


class UltraFeedback(HelpSteer):
    """Every two completions of an instruction become a pair, compared in an objective's aspect.

    An objective's column is instruction_following, honesty, truthfulness, helpfulness (ratings from 1 to 5),
    overall_score or fine-grained_score. A completion that lacks a rating in an objective's aspect is dropped.
    """

    def __init__(self) -> None:
        super().__init__(prompt="instruction")

    def pairs(self, rows: Iterable[Located], objectives: Sequence[Objective]) -> Converted[PairRow]:
        columns = [one.column or one.name for one in objectives]
        for column in columns:
            if column not in (*ASPECTS, *SCORES):
                raise UserError(f"objectives: no aspect {column!r}{nearest(column, (*ASPECTS, *SCORES))}")
        unrated = Counter[str]()
        flat = [row for located in rows for row in self._flat(located, columns, unrated)]
        found = super().pairs(flat, objectives)
        found.dropped.update(unrated)
        return found

    def _flat(self, located: Located, columns: Sequence[str], unrated: Counter[str]) -> list[Located]:
        """Return a row in HelpSteer's schema for each completion that is rated in every column."""
        location, row = located
        completions = require_key(row, "completions", location)
        if not isinstance(completions, list):
            raise wrong(location, "completions", "a list", completions)
        found: list[Located] = []
        for place, completion in enumerate(completions):
            where = f"{location}: completion {place}"
            one = require_object(completion, where)
            ratings = {column: _rating(one, column, where) for column in columns}
            if None in ratings.values():
                unrated[UNRATED] += 1
                continue
            prompt, response = require_key(row, self.prompt_column, location), require_key(one, "response", where)
            found.append((where, {self.prompt_column: prompt, self.response_column: response, **ratings}))
        return found


def _rating(completion: dict[str, Any], column: str, where: str) -> float | None:
    """Return a completion's rating, which the data set holds as text; None where there is none."""
    if column in SCORES:
        return None if completion.get(column) is None else number_field((where, completion), column)
    annotations = require_object(require_key(completion, "annotations", where), where)
    rating = require_object(require_key(annotations, column, where), where).get("Rating")
    if rating is None or rating == _NO_RATING:
        return None
    try:
        return float(rating)
    except (TypeError, ValueError):
        raise wrong(where, f"{column}.Rating", f"a number or {_NO_RATING}", rating) from None
