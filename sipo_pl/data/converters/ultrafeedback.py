"""UltraFeedback's schema: several completions of an instruction a row, each rated in four aspects."""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from sipo_pl.data.checks import number_field, wrong
from sipo_pl.data.converters.base import Converted
from sipo_pl.data.converters.helpsteer import HelpSteer
from sipo_pl.data.readers import Located
from sipo_pl.data.rows import PairRow
from sipo_pl.messages.errors import SettingError, UserError, nearest
from sipo_pl.recipe.recipe import Objective
from sipo_pl.storage.json_lines import require_key, require_object

ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")
OVERALL, FINE = SCORES = ("overall_score", "fine-grained_score")
FALSE_TENS = ("drop", "one", "keep")
UNRATED = "completions without a rating"
DROPPED_TENS = "completions whose 10 means 1"
_NO_RATING = "N/A"
_TENS, _TEN = "tens", 10.0
_MIDDLE = 3.0  # of ratings from 1 to 5


log = logging.getLogger("sipo_pl")


class UltraFeedback(HelpSteer):
    """Every two completions of an instruction become a pair, compared in an objective's aspect.

    An objective's column is instruction_following, honesty, truthfulness, helpfulness (ratings from 1 to 5),
    overall_score or fine-grained_score. A completion that lacks a rating in an objective's aspect is dropped.

    The data set holds many a 1 as 10. Those of overall_score are told by the other ratings, whose mean is nearer to the
    worst than to the best.

    Args:
        false_tens: completions that are rated with such a 10: drop leaves them out, one reads a 1, keep a 10
        max_pairs: pairs of an instruction at most, drawn from all; 10,000 and an error beyond where not given
    """

    def __init__(self, false_tens: Literal["drop", "one", "keep"] = "drop", max_pairs: int | None = None) -> None:
        if false_tens not in FALSE_TENS:
            raise SettingError("false_tens", f"no way {false_tens!r}{nearest(str(false_tens), FALSE_TENS)}")
        super().__init__(prompt="instruction", max_pairs=max_pairs)
        self.false_tens = false_tens

    def pairs(self, rows: Iterable[Located], objectives: Sequence[Objective]) -> Converted[PairRow]:
        columns = [one.column or one.name for one in objectives]
        for column in columns:
            if column not in (*ASPECTS, *SCORES):
                raise UserError(f"objectives: no aspect {column!r}{nearest(column, (*ASPECTS, *SCORES))}")
        left = Counter[str]()
        flat = [row for located in rows for row in self._flat(located, columns, left)]
        if tens := left.pop(_TENS, 0):
            fate = {"drop": "left out", "one": "read as 1", "keep": "read as 10"}[self.false_tens]
            log.warning(
                "prepare: %d completions are rated 10 where their other ratings are low, or five is the most, which "
                "this data set has where a 1 is meant: %s (data.converter.init_args.false_tens); the column "
                "fine-grained_score is not concerned",
                tens,
                fate,
            )
        found = super().pairs(flat, objectives)
        found.dropped.update(left)
        return found

    def _flat(self, located: Located, columns: Sequence[str], left: Counter[str]) -> list[Located]:
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
                left[UNRATED] += 1
                continue
            if tens := _false_tens(one, ratings, where):
                left[_TENS] += 1
                if self.false_tens == "drop":
                    left[DROPPED_TENS] += 1
                    continue
                if self.false_tens == "one":
                    ratings |= dict.fromkeys(tens, 1.0)
            prompt, response = require_key(row, self.prompt_column, location), require_key(one, "response", where)
            found.append((where, {self.prompt_column: prompt, self.response_column: response, **ratings}))
        return found


def _false_tens(completion: dict[str, Any], ratings: Mapping[str, float | None], where: str) -> list[str]:
    """Return the columns whose 10 is a 1: of an aspect, which has 5 at most, or a score that no aspect bears out."""
    tens = [column for column, rating in ratings.items() if rating == _TEN]
    return [one for one in tens if one in ASPECTS or (one == OVERALL and _mean_rating(completion, where) < _MIDDLE)]


def _mean_rating(completion: dict[str, Any], where: str) -> float:
    """Return the mean of what a completion is rated with beside its overall score; the best where there is nothing."""
    if (fine := _rating(completion, FINE, where)) is not None:
        return fine
    annotations = completion.get("annotations")
    rated = [_rating(completion, one, where) for one in ASPECTS if isinstance(annotations, dict) and one in annotations]
    numbers = [one for one in rated if one is not None]
    return sum(numbers) / len(numbers) if numbers else math.inf


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
