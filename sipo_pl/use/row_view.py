"""A row of a stage's data as the model sees it: its tokens, what of them is learned, and what was left out and why."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sipo_pl.messages.errors import UsageError
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.text.prompt import Prompt
from sipo_pl.text.templates import PromptTemplate

SplitName = Literal["train", "validation"]


@dataclass(frozen=True)
class SeenText:
    """Tokens of one text.

    Args:
        name: what it is
        ids: its tokens
        prompt_length: how many of them are the prompt's and not learned; all of a prompt that is answered
        alone: tokens of the prompt by itself, which differ at their end where the response merged with it
    """

    name: str
    ids: list[int]
    prompt_length: int
    alone: list[int]

    @property
    def merged(self) -> int:
        """Return how many of the prompt's last tokens the response changed."""
        return len(self.alone) - self.prompt_length

    @property
    def changed(self) -> int:
        """Return how many of the response's first tokens hold what those tokens held, one at least where any did."""
        return min(self.merged, len(self.ids) - self.prompt_length)


@dataclass(frozen=True)
class SeenRow:
    """A row of a stage's data.

    Args:
        path: file of the rows
        row_id: its id
        count: rows of the file
        texts: what the model sees of it
        notes: what else a reader should know, such as why it is left out
        left_out: reason -> rows of the file that are left out for it
    """

    path: Path
    row_id: str
    count: int
    texts: list[SeenText]
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Inspection:
    """What is asked for.

    Args:
        recipe: what the stages share
        template: renders and tokenises
        settings: of the stage, defaults among them
        row: index of the row
        objective: whose preferences, for align
        split: of the prepared pairs, for align
    """

    recipe: Recipe
    template: PromptTemplate
    settings: dict[str, Any]
    row: int
    objective: str
    split: SplitName = "train"

    def text(self, name: str, prompt: Prompt, response: str) -> SeenText:
        encoded = self.template.encode(prompt, response)
        return SeenText(name, encoded.input_ids, encoded.prompt_length, self.template.prompt_ids(prompt))

    def prompt(self, name: str, ids: Sequence[int]) -> SeenText:
        return SeenText(name, list(ids), len(ids), list(ids))

    @property
    def max_length(self) -> int:
        """Return the longest row that the stage's data takes."""
        return int(self.settings["data"]["max_length"])

    def pick(self, rows: Sequence[dict[str, Any]], path: Path) -> dict[str, Any]:
        """Return the row that was asked for."""
        if not 0 <= self.row < len(rows):
            raise UsageError(f"--row {self.row}: {path} has rows 0 to {len(rows) - 1}")
        return rows[self.row]
