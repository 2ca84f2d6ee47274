"""What is decoded, how, and what comes of it."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sipo_pl.interop.numbers import NonNegativeFloat, PositiveInt, PositiveShare
from sipo_pl.messages.errors import UserError

FinishReason = Literal["eos", "length"]


@dataclass(frozen=True)
class Decoding:
    """How responses are decoded.

    Args:
        temperature: divides the fused scores; zero is greedy
        top_p: share of probability that the likeliest tokens must hold to be drawn from; one is all
        beams: texts of a row that are followed at once, without temperature; one is greedy
        max_length: longest prompt + response in tokens
        max_new_tokens: longest response in tokens; whatever max_length leaves where not given
        batch_rows: rows decoded at once, each beam a row; none is as many as a GPU has memory for, and 64 on a CPU
    """

    temperature: NonNegativeFloat = 0.0
    top_p: PositiveShare = 1.0
    beams: PositiveInt = 1
    max_length: PositiveInt = 512
    max_new_tokens: PositiveInt | None = None
    batch_rows: PositiveInt | None = 64

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"decoding.temperature: {self.temperature:g} is not in [0, inf); zero is greedy")
        if not 0 < self.top_p <= 1:
            raise UserError(f"decoding.top_p: {self.top_p:g} is not in (0, 1]")
        counts = {name: getattr(self, name) for name in ("beams", "max_length", "max_new_tokens", "batch_rows")}
        if wrong := [name for name, count in counts.items() if count is not None and count < 1]:
            raise UserError(f"decoding.{wrong[0]}: {counts[wrong[0]]} is less than one")
        if self.beams > 1 and self.temperature > 0:
            raise UserError(f"decoding.beams: {self.beams} beams are not sampled; set decoding.temperature to 0")

    def limit(self, prompt_length: int) -> int:
        """Return the most tokens, EOS included, that a response to a prompt of so many tokens may have."""
        room = max(0, self.max_length - prompt_length)
        return room if self.max_new_tokens is None else min(room, self.max_new_tokens)


class Request(NamedTuple):
    """One response to be decoded.

    Args:
        key: identifies the row; seeds its noise
        prompt_ids: tokens of the rendered prompt
        weights: one weight per group of the policies; groups beyond have none
    """

    key: str
    prompt_ids: tuple[int, ...]
    weights: tuple[float, ...]


class Generated(NamedTuple):
    """A decoded response.

    Args:
        token_ids: without the token that ended it
        finish_reason: "eos", or "length" where it was cut
        end_id: the token that ended it; None where it was cut
    """

    token_ids: list[int]
    finish_reason: FinishReason
    end_id: int | None = None

    @property
    def whole(self) -> list[int]:
        """Return its tokens with the one that ended it."""
        return self.token_ids if self.end_id is None else [*self.token_ids, self.end_id]


def end_ids(eos_id: int | Collection[int]) -> frozenset[int]:
    """Return the tokens of which any ends a response, given one or several of them."""
    return frozenset([eos_id] if isinstance(eos_id, int) else eos_id)
