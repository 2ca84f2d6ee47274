"""The one protocol of converters: raw rows in, pairs out."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar

from sipo_pl.data.checks import is_empty, prompt_field
from sipo_pl.data.readers import Located
from sipo_pl.data.rows import PairRow, PromptRow
from sipo_pl.messages.errors import UsageError, UserError
from sipo_pl.recipe.recipe import Objective
from sipo_pl.text.prompt import Prompt, prompt_id

EMPTY_PROMPT = "rows with an empty prompt"
EMPTY_RESPONSE = "rows with an empty response"
ONE_RESPONSE = "prompts with one response"
IDENTICAL = "pairs of identical responses"

RowT = TypeVar("RowT")


class Converted(NamedTuple, Generic[RowT]):
    """What a converter made of one split.

    Args:
        rows: pairs or prompts, in file order
        dropped: reason to how many were dropped for it; the reason says of what
        slots: place of each row among all that the files hold, dropped ones included, where a raw row is a pair; else
            None, and nothing but `rows` counts in a draw
    """

    rows: list[RowT]
    dropped: Counter[str]
    slots: list[int] | None = None


def by_prompt(prompt_ids: Sequence[str]) -> Sequence[Hashable]:
    """Return the group of each row, given the ids of the rows' prompts in file order; rows of one group are paired."""
    return prompt_ids


def flaw(*responses: str) -> str | None:
    """Return why a response, or the two of a pair, cannot be learned from; None where they can."""
    if not all(response.strip() for response in responses):
        return EMPTY_RESPONSE
    return IDENTICAL if len(set(responses)) < len(responses) else None


@dataclass(frozen=True)
class Pairing:
    """Which responses of a split become pairs.

    Args:
        groups: see `by_prompt`
        flaw: see `flaw`
    """

    groups: Callable[[Sequence[str]], Sequence[Hashable]] = by_prompt
    flaw: Callable[..., str | None] = flaw


class Converter:
    """Turns the raw rows of one data schema into pairs.

    Subclasses are named by `class_path` in a recipe and override `pairs`, or `joined` where each objective has files of
    its own. Constructors take plain values, such as names of columns, and raise UsageError where those are wrong.
    """

    prompt_column: str = "prompt"
    pairing: Pairing = Pairing()  # as the recipe has it, once a stage uses the converter

    def pairs(self, rows: Iterable[Located], objectives: Sequence[Objective]) -> Converted[PairRow]:
        """Return the pairs of a split.

        Args:
            rows: the split's raw rows, in file order, each with its location.
            objectives: the recipe's objectives; each finds its label in the raw rows.

        Raises:
            UserError: naming location and key of what is missing or of a wrong type.
        """
        example = ", ".join(f"{objective.name}: [{objective.name}.jsonl]" for objective in objectives)
        raise UserError(f"data: the converter {type(self).__name__} takes files by objective, such as {{{example}}}")

    def joined(self, rows: Mapping[str, Iterable[Located]], objectives: Sequence[Objective]) -> Converted[PairRow]:
        """Return the pairs of a split whose files are given by objective; else like `pairs`.

        Args:
            rows: objective to its raw rows.
            objectives: the recipe's objectives.
        """
        raise UserError(f"data: the converter {type(self).__name__} takes a list of files, not files by objective")

    def prompts(self, rows: Iterable[Located]) -> Converted[PromptRow]:
        """Return the unique prompts of a split, in file order; other columns are not looked at."""
        return distinct_prompts(prompt_field(located, self.prompt_column) for located in rows)


def distinct_prompts(prompts: Iterable[Prompt]) -> Converted[PromptRow]:
    """Return each prompt once, in order of appearance, and count the empty ones."""
    found: dict[str, PromptRow] = {}
    dropped: Counter[str] = Counter()
    for prompt in prompts:
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


def checked_range(score_range: Sequence[float] | None, name: str) -> tuple[float, float] | None:
    """Return the least and the largest score of a converter's argument.

    Raises:
        UsageError: not two numbers in order.
    """
    if score_range is None:
        return None
    numbers = [one for one in score_range if isinstance(one, int | float)] if isinstance(score_range, list) else []
    if len(numbers) != 2 or numbers != score_range or numbers[0] >= numbers[1]:
        raise UsageError(f"data.converter.init_args.{name}: expected [least, largest], found {score_range!r}")
    return numbers[0], numbers[1]
