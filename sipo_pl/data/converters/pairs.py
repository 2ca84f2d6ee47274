"""A pair a row, with a label of each objective: the preferred index, a sign, or two scores."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from sipo_pl.data.checks import is_empty, number_field, prompt_field, response_field, wrong
from sipo_pl.data.converters.base import (
    EMPTY_PROMPT,
    Converted,
    Converter,
    checked_range,
    preferred_index,
)
from sipo_pl.data.readers import Located
from sipo_pl.data.rows import PairRow
from sipo_pl.messages.errors import UsageError, nearest
from sipo_pl.recipe.recipe import Objective
from sipo_pl.storage.json_lines import require_key
from sipo_pl.storage.unicode_names import composed
from sipo_pl.text.prompt import prompt_id

Label = Literal["index", "sign", "scores"]
INDEX: dict[float, Literal[0, 1, -1]] = {0: 0, 1: 1, -1: -1}
SIGN: dict[float, Literal[0, 1, -1]] = {1: 0, -1: 1, 0: -1}  # +1 prefers response_0
KINDS = ("index", "sign", "scores")
FIELD = "{column}"


class Pairs(Converter):
    """Takes pairs as they are; PKU-SafeRLHF's schema needs no other argument than the objectives' columns.

    The label of an objective stands in its column: with `index` the preferred response, 0, 1, or -1 for a tie; with
    `sign` +1 where response_0 is preferred, -1 where response_1 is, 0 for a tie; with `scores` two columns, whose names
    come of the objective's column. An objective of direction min turns its labels around.

    Args:
        prompt: column of the prompt, text or chat messages
        response_0: column of the first response
        response_1: column of the second response
        label: index, sign or scores; or objective to one of them
        score_columns: columns of the two scores, with the field {column}
        score_range: least and largest score that is expected, such as [0, 4]; any where not given
        id: column of the pair's own id, which must differ among the pairs of a prompt; numbered where not given
    """

    def __init__(
        self,
        prompt: str = "prompt",
        response_0: str = "response_0",
        response_1: str = "response_1",
        label: Label | Mapping[str, Label] = "index",
        score_columns: Sequence[str] = (f"{FIELD}_0", f"{FIELD}_1"),
        score_range: Sequence[float] | None = None,
        id: str | None = None,
    ) -> None:
        for kind in label.values() if isinstance(label, Mapping) else [label]:
            if kind not in KINDS:
                raise UsageError(f"data.converter.init_args.label: no kind {kind!r}{nearest(str(kind), KINDS)}")
        if len(score_columns) != 2 or not all(FIELD in pattern for pattern in score_columns):
            raise UsageError(
                f"data.converter.init_args.score_columns: expected two names that hold {FIELD}, found {score_columns!r}"
            )
        self.prompt_column, self.responses = prompt, (response_0, response_1)
        self.label, self.score_columns = label, score_columns
        self.score_range, self.id_column = checked_range(score_range, "score_range"), id

    def pairs(self, rows: Iterable[Located], objectives: Sequence[Objective]) -> Converted[PairRow]:
        kinds = {objective.name: self._kind(objective, objectives) for objective in objectives}
        pairs: list[PairRow] = []
        slots: list[int] = []
        dropped: Counter[str] = Counter()
        ids = _Ids(self.id_column)
        for slot, located in enumerate(rows):
            row = self._pair(located, objectives, kinds, ids)
            if reason := self._unusable(row):
                dropped[reason] += 1
                continue
            pairs.append(row)
            slots.append(slot)
        return Converted(pairs, dropped, slots)

    def _kind(self, objective: Objective, objectives: Sequence[Objective]) -> Label:
        if not isinstance(self.label, Mapping):
            return self.label
        labels = {composed(name): kind for name, kind in self.label.items()}
        for name in labels:
            if name not in (known := [one.name for one in objectives]):
                raise UsageError(f"data.converter.init_args.label: no objective {name!r}{nearest(name, known)}")
        return labels.get(objective.name, "index")

    def _pair(
        self, located: Located, objectives: Sequence[Objective], kinds: Mapping[str, Label], ids: "_Ids"
    ) -> PairRow:
        prompt = prompt_field(located, self.prompt_column)
        first, second = (response_field(located, column, prompt) for column in self.responses)
        name = prompt_id(prompt)
        row: PairRow = {
            "pair_id": ids.of(located, name),
            "prompt_id": name,
            "prompt": prompt,
            "response_0": first,
            "response_1": second,
            "preferred": {},
        }
        for objective in objectives:
            if kinds[objective.name] == "scores":
                scores = self._scores(located, objective)
                row.setdefault("scores", {})[objective.name] = scores
                row["preferred"][objective.name] = preferred_index(*scores)
            else:
                table = INDEX if kinds[objective.name] == "index" else SIGN
                row["preferred"][objective.name] = _label(located, objective, table)
        return row

    def _unusable(self, row: PairRow) -> str | None:
        if is_empty(row["prompt"]):
            return EMPTY_PROMPT
        return self.pairing.flaw(row["response_0"], row["response_1"])

    def _scores(self, located: Located, objective: Objective) -> list[float]:
        column = objective.column or objective.name
        names = [pattern.replace(FIELD, column) for pattern in self.score_columns]
        scores = [number_field(located, name, self.score_range) for name in names]
        return scores if objective.direction == "max" else [0.0 - score for score in scores]


class _Ids:
    """Gives each pair its id: below its prompt's, the column's value or a number."""

    def __init__(self, column: str | None) -> None:
        self.column = column
        self.counts: Counter[str] = Counter()
        self.places: dict[str, str] = {}

    def of(self, located: Located, name: str) -> str:
        if self.column is None:
            self.counts[name] += 1
            return f"{name}/{self.counts[name] - 1}"
        location, row = located
        own = require_key(row, self.column, location)
        if isinstance(own, bool) or not isinstance(own, str | int):
            raise wrong(location, self.column, "an id, text or a whole number", own)
        found = f"{name}/{own}"
        if found in self.places:
            raise wrong(
                location, self.column, f"an id that no other pair of the prompt has ({self.places[found]})", own
            )
        self.places[found] = location
        return found


def _label(located: Located, objective: Objective, table: Mapping[float, Literal[0, 1, -1]]) -> Literal[0, 1, -1]:
    column = objective.column or objective.name
    value = number_field(located, column)
    if value not in table:
        expected = ", ".join(f"{one:g}" for one in sorted(table)[1:])
        raise wrong(located[0], column, f"{expected} or -1", require_key(located[1], column, located[0]))
    index = table[value]
    return index if index == -1 or objective.direction == "max" else (0 if index else 1)
