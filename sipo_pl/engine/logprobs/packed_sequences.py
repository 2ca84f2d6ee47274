"""Rows packed into one sequence: a prompt once, its responses behind it, the next prompt, and no padding.

What rows share is computed once, forward and backward: the prompt of chosen and rejected, and a response
that stands in several pairs. Linear layers see the tokens of all rows as one; `packed_attention` keeps the rows apart.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sipo_pl.engine.logprobs.response_logprobs import decoder, row_sums, token_logps
from sipo_pl.text.templates import Encoded

Made = TypeVar("Made")


class Span(NamedTuple):
    """Tokens of a sequence that see one another causally, and all of the tokens above them.

    Args:
        start: place of the first token in the sequence
        stop: place behind the last token
        above: place of the first token above; they stand in a row
        depth: number of tokens above
    """

    start: int
    stop: int
    above: int
    depth: int

    @property
    def length(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Layout:
    """Where the rows stand in sequences of equal length.

    Args:
        length: tokens of a sequence
        spans: of each sequence, in order and without a gap
    """

    length: int
    spans: tuple[tuple[Span, ...], ...]
    _known: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    def repeated(self, count: int) -> "Layout":
        """Return the layout of every sequence `count` times in succession."""
        return Layout(self.length, tuple(spans for spans in self.spans for _ in range(count)))

    @cached_property
    def flat(self) -> list[Span]:
        """All spans, their places counted through all sequences laid end to end."""
        return [
            Span(span.start + k * self.length, span.stop + k * self.length, span.above + k * self.length, span.depth)
            for k, spans in enumerate(self.spans)
            for span in spans
        ]

    def remember(self, name: Hashable, make: Callable[[], Made]) -> Made:
        """Return what `make` returned when it was first asked for by this name: all layers share it."""
        if name not in self._known:
            self._known[name] = make()
        return self._known[name]

    def mask(self, span: Span, window: int | None, device: torch.device, *, explicit: bool) -> Tensor | None:
        """Return which keys, those above first, each token of a span sees, (1, 1, length, depth + length), bool.

        Where that is plainly causal, None, unless it is to be explicit.
        """
        keys = span.depth + span.length
        bound = window if window is not None and window < keys else None
        if span.depth == 0 and bound is None and not explicit:
            return None

        def make() -> Tensor:
            seen = torch.ones(span.length, keys, dtype=torch.bool, device=device).tril(span.depth)
            return (seen if bound is None else seen.triu(span.depth - bound + 1))[None, None]

        return self.remember((span.length, span.depth, bound, device), make)


class Packed(NamedTuple):
    """Rows of one adapter, packed.

    Args:
        input_ids: (1, tokens), int64
        positions: (1, tokens), int64, of each token in its row
        sources: (n,), int64, where in the sequence each response token is predicted
        targets: (n,), int64, the response tokens
        owners: (n,), int64, the distinct row that each belongs to
        places: (rows,), int64, which distinct row each row is
        distinct: number of distinct rows
        layout: for attention
    """

    input_ids: Tensor
    positions: Tensor
    sources: Tensor
    targets: Tensor
    owners: Tensor
    places: Tensor
    distinct: int
    layout: Layout

    def to(self, device: torch.device) -> "Packed":
        """Return the same on a device."""
        return self._replace(
            input_ids=self.input_ids.to(device),
            positions=self.positions.to(device),
            sources=self.sources.to(device),
            targets=self.targets.to(device),
            owners=self.owners.to(device),
            places=self.places.to(device),
        )


def pack(rows: Sequence[Encoded]) -> Packed:
    """Pack rows, at least one; those that share a prompt, or are equal, are computed together."""
    made = _Sequence()
    places = torch.tensor(made.take(rows))
    ids, positions, sources, targets, lengths = (
        torch.tensor(one) for one in (made.ids, made.positions, made.sources, made.targets, made.lengths)
    )
    owners = torch.arange(len(lengths)).repeat_interleave(lengths)
    layout = Layout(len(made.ids), (tuple(made.spans),))
    return Packed(ids[None], positions[None], sources, targets, owners, places, len(lengths), layout)


def packed_length(rows: Iterable[Encoded]) -> int:
    """Return the tokens that rows take when they are packed."""
    return added_length(rows, set())


def added_length(rows: Iterable[Encoded], there: set[Hashable]) -> int:
    """Return the tokens that rows add to packed ones.

    Args:
        rows: prompts with responses.
        there: what stands among the packed ones already; what the rows bring is added to it.
    """
    added = 0
    for row in rows:
        border = max(1, row.prompt_length)  # nothing predicts the first token
        whole = tuple(row.input_ids)
        prompt, response = (border, whole[:border]), (border, whole)
        if prompt not in there:
            added += border
        if response not in there:
            added += len(whole) - border - 1
        there |= {prompt, response}
    return added


def packed_logps(model: PreTrainedModel, packed: Packed) -> Tensor:
    """Return log pi(response | prompt) of rows, summed over response tokens, (rows,), float32.

    Args:
        model: attends by `packed_attention`.
        packed: rows, on the model's device.
    """
    return distinct_logps(model, packed)[packed.places]


def distinct_logps(model: PreTrainedModel, packed: Packed) -> Tensor:
    """Return what `packed_logps` returns, of each distinct row, (distinct,), float32."""
    hidden = decoder(model)(
        input_ids=packed.input_ids, position_ids=packed.positions, use_cache=False, packed=packed.layout
    ).last_hidden_state
    logps = token_logps(model, hidden.flatten(0, 1)[packed.sources], packed.targets)
    return row_sums(logps, packed.owners, packed.distinct)


def _trees(rows: Iterable[Encoded]) -> dict[tuple[int, ...], dict[tuple[int, ...], int]]:
    """Return each prompt with its responses, and the number of each of these among all distinct rows."""
    trees: dict[tuple[int, ...], dict[tuple[int, ...], int]] = {}
    for row in rows:
        border = max(1, row.prompt_length)  # nothing predicts the first token
        responses = trees.setdefault(tuple(row.input_ids[:border]), {})
        responses.setdefault(tuple(row.input_ids[border:]), 0)
    numbers = count()
    return {prompt: {response: next(numbers) for response in responses} for prompt, responses in trees.items()}


class _Sequence:
    """Rows laid end to end."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.spans: list[Span] = []
        self.sources: list[int] = []
        self.targets: list[int] = []
        self.lengths: list[int] = []  # response tokens of each distinct row

    def take(self, rows: Sequence[Encoded]) -> list[int]:
        """Add rows; return which distinct row each of them is."""
        trees = _trees(rows)
        for prompt, responses in trees.items():
            self._add(prompt, list(responses))
        borders = [max(1, row.prompt_length) for row in rows]
        return [
            trees[tuple(row.input_ids[:border])][tuple(row.input_ids[border:])]
            for row, border in zip(rows, borders, strict=True)
        ]

    def _add(self, prompt: Sequence[int], responses: Sequence[Sequence[int]]) -> None:
        """Add a prompt and its responses; the last token of a response is predicted, and never read."""
        top = len(self.ids)
        self._read(prompt, 0)
        for number, response in enumerate(responses):
            first = len(self.ids)
            self._read(response[:-1], len(prompt))
            if number == 0:  # goes on from the prompt
                self.spans.append(Span(top, len(self.ids), top, 0))
            elif len(self.ids) > first:
                self.spans.append(Span(first, len(self.ids), top, len(prompt)))
            self.sources += [top + len(prompt) - 1, *range(first, len(self.ids))]
            self.targets += response
            self.lengths.append(len(response))

    def _read(self, tokens: Sequence[int], position: int) -> None:
        self.ids += tokens
        self.positions += range(position, position + len(tokens))
