"""HelpSteer3-Preference's schema: a conversation, two responses, and how strongly annotators prefer one."""

from collections.abc import Iterable, Iterator, Sequence

from sipo_pl.data.checks import number_field, wrong
from sipo_pl.data.converters.base import Converted
from sipo_pl.data.converters.pairs import Pairs
from sipo_pl.data.readers import Located
from sipo_pl.data.rows import PairRow, PromptRow
from sipo_pl.messages.errors import UsageError
from sipo_pl.recipe.recipe import Objective
from sipo_pl.storage.json_lines import require_key

STRONGEST = 3
INDIVIDUAL = "individual_preference"
_COLUMNS = {"prompt": "context", "response_0": "response1", "response_1": "response2"}


class HelpSteer3(Pairs):
    """Pairs with a strength from -3, response1 is much better, to 3, response2 is.

    An objective's column is `overall_preference`, or `individual_preference.0` for that of the first annotator, and so
    on; a pair that an annotator did not see is a tie. Others than preferences come of an objective's `label`.

    Args:
        least: strength from which a preference counts, 1 to 3; a weaker one is a tie
        domains: take rows of these domains only, such as [general, stem]; all where not given
    """

    def __init__(self, least: int = 1, domains: Sequence[str] | None = None) -> None:
        if least not in range(1, STRONGEST + 1):
            raise UsageError(f"data.converter.init_args.least: expected 1 to {STRONGEST}, found {least!r}")
        super().__init__(label="sign")
        self.least, self.domains = least, domains

    def pairs(self, rows: Iterable[Located], objectives: Sequence[Objective]) -> Converted[PairRow]:
        return super().pairs(self._signed(rows, objectives), objectives)

    def prompts(self, rows: Iterable[Located]) -> Converted[PromptRow]:
        return super().prompts(self._signed(rows, ()))

    def _signed(self, rows: Iterable[Located], objectives: Sequence[Objective]) -> Iterator[Located]:
        """Yield the rows of the domains in the schema of `Pairs`, with +1 where response1 is preferred."""
        for location, row in rows:
            if self.domains is not None and require_key(row, "domain", location) not in self.domains:
                continue
            needed = _COLUMNS if objectives else {"prompt": _COLUMNS["prompt"]}
            found = {name: require_key(row, column, location) for name, column in needed.items()}
            for one in objectives:
                column = one.column or one.name
                strength = self._strength((location, row), column)
                found[column] = 0 if abs(strength) < self.least else -1 if strength > 0 else 1
            yield location, found

    def _strength(self, located: Located, column: str) -> float:
        name, _, place = column.partition(".")
        within = (-STRONGEST, STRONGEST)
        if name != INDIVIDUAL:
            return number_field(located, column, within)
        location, row = located
        annotators = require_key(row, INDIVIDUAL, location)
        if not isinstance(annotators, list) or not place.isdecimal():
            raise wrong(location, column, "a list of annotators and one's place in it", annotators)
        if int(place) >= len(annotators):
            return 0.0
        return number_field((f"{location}: {column}", annotators[int(place)]), "score", within)
