"""Lengths of pairs and prompts in tokens, as the model will see them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sipo_pl.data.rows import PairRow, PromptRow

if TYPE_CHECKING:
    from sipo_pl.text.templates import PromptTemplate


class TextLength(NamedTuple):
    """Tokens of one text.

    Args:
        prompt: tokens of the rendered prompt
        response: tokens of the response, EOS included
    """

    prompt: int
    response: int

    @property
    def whole(self) -> int:
        return self.prompt + self.response


class Lengths:
    """Measures rows; a text that several pairs share is tokenised once.

    Args:
        template: renders and tokenises, as in training and decoding.
    """

    def __init__(self, template: "PromptTemplate") -> None:
        self._template = template
        self.largest_token = 0  # of all that was measured
        self._prompts: dict[str, int] = {}
        self._texts: dict[tuple[str, str], TextLength] = {}

    def read(self, rows: Sequence[PairRow]) -> None:
        """Tokenise the texts of many rows at once, so that they are known when they are asked for."""
        new = {
            (row["prompt_id"], response): (row["prompt"], response)
            for row in rows
            for response in (row["response_0"], row["response_1"])
            if (row["prompt_id"], response) not in self._texts
        }
        for key, encoded in zip(new, self._template.encode_all(list(new.values())), strict=True):
            self._texts[key] = TextLength(encoded.prompt_length, encoded.response_length)
            self.largest_token = max([self.largest_token, *encoded.input_ids])

    def prompt(self, row: PromptRow | PairRow) -> int:
        """Return the tokens of the row's rendered prompt."""
        name = row["prompt_id"]
        if name not in self._prompts:
            ids = self._template.prompt_ids(row["prompt"])
            self._prompts[name] = len(ids)
            self.largest_token = max([self.largest_token, *ids])
        return self._prompts[name]

    def sides(self, row: PairRow) -> tuple[TextLength, TextLength]:
        """Return the lengths of the prompt with response 0 and with response 1."""
        self.read([row])
        first, second = (self._texts[row["prompt_id"], row[name]] for name in ("response_0", "response_1"))
        return first, second

    def fits(self, row: PairRow, max_length: int) -> bool:
        """Return whether the prompt fits with either response."""
        return max(side.whole for side in self.sides(row)) <= max_length

    def table(self, pairs: Sequence[PairRow]) -> dict[str, list[int]]:
        """Return the lengths of prompts, of responses and of both together, each text once, however shared."""
        prompts = {row["prompt_id"]: self.prompt(row) for row in pairs}
        texts = {
            (row["prompt_id"], response): length
            for row in pairs
            for response, length in zip((row["response_0"], row["response_1"]), self.sides(row), strict=True)
        }
        return {
            "prompt": list(prompts.values()),
            "response": [length.response for length in texts.values()],
            "whole": [length.whole for length in texts.values()],
        }
