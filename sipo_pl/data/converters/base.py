"""The one protocol of converters: raw rows in, pairs out."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Generic, Literal, NamedTuple, TypeVar

from sipo_pl.data.checks import is_empty, prompt_field
from sipo_pl.data.readers import Located
from sipo_pl.data.rows import PairRow, PromptRow, prompt_id
from sipo_pl.recipe import Objective

EMPTY_PROMPT = "rows with an empty prompt"
EMPTY_RESPONSE = "rows with an empty response"
ONE_RESPONSE = "prompts with one response"
IDENTICAL = "pairs of identical responses"

Row = TypeVar("Row")


class Converted(NamedTuple, Generic[Row]):
    """What a converter made of one split.

    Args:
        rows: pairs or prompts, in file order
        dropped: reason to how many were dropped for it; the reason says of what
    """

    rows: list[Row]
    dropped: Counter[str]


class Converter(ABC):
    """Turns the raw rows of one data schema into pairs.

    Subclasses are named by `class_path` in a recipe. Constructors take plain values, such as names of columns.
    """

    prompt_column: str = "prompt"

    @abstractmethod
    def pairs(self, rows: Iterable[Located], objectives: Sequence[Objective]) -> Converted[PairRow]:
        """Return the pairs of a split.

        Args:
            rows: the split's raw rows, in file order, each with its location.
            objectives: the recipe's objectives; each finds its label in the raw rows.

        Raises:
            UserError: naming location and key of what is missing or of a wrong type.
        """

    def prompts(self, rows: Iterable[Located]) -> Converted[PromptRow]:
        """Return the unique prompts of a split, in file order; other columns are not looked at."""
        found: dict[str, PromptRow] = {}
        dropped: Counter[str] = Counter()
        for located in rows:
            prompt = prompt_field(located, self.prompt_column)
            if is_empty(prompt):
                dropped[EMPTY_PROMPT] += 1
                continue
            name = prompt_id(prompt)
            found.setdefault(name, {"prompt_id": name, "prompt": prompt})
        return Converted(list(found.values()), dropped)


def preferred_index(first: float, second: float) -> Literal[0, 1, -1]:
    """Return the index of the larger score, or -1 where they are equal."""
    if first == second:
        return -1
    return 0 if first > second else 1
