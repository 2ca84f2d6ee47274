"""Training pairs, their micro-batches, and the loader of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sipo_pl.data.step_loader import StepLoader
from sipo_pl.text.prompt import TextRow
from sipo_pl.text.templates import Encoded
from sipo_pl.text.token_batch import TokenBatch, collate

RowKey = tuple[tuple[int, ...], int]  # tokens and prompt length of a row


@dataclass(frozen=True)
class TrainingPair:
    """A tokenised pair.

    Args:
        pair_id: its id
        chosen: prompt with the preferred response
        rejected: prompt with the other response
        signs: objective -> +1 where it prefers `chosen`, -1 where it prefers `rejected`, 0 where it ties
        texts: both rows as text, which rewards read
    """

    pair_id: str
    chosen: Encoded
    rejected: Encoded
    signs: Mapping[str, int] = field(default_factory=dict)
    texts: tuple[TextRow, ...] = ()

    @property
    def rows(self) -> tuple[Encoded, Encoded]:
        return (self.chosen, self.rejected)


class PairBatch(NamedTuple):
    """A micro-batch of P pairs, chosen rows first.

    Args:
        pair_ids: (P,)
        rows: 2 P rows
        reference_logps: (2 P,), float32
        step_pairs: pairs of the whole optimizer step, over micro-batches and devices; the loss is their mean
        longest: tokens of the longest row of the micro-batch
        signs: (P, N), float32, +1 where an objective prefers the chosen row, -1 the rejected one, 0 a tie
        scores: (2 P, N), float32, of the rows under every objective; None where the loss needs none
        spare: the pairs count nothing, see `StepLoader`
    """

    pair_ids: list[str]
    rows: list[Encoded]
    reference_logps: Tensor
    step_pairs: int
    longest: int
    signs: Tensor
    scores: Tensor | None
    spare: bool = False

    @property
    def row_ids(self) -> list[str]:
        """Return what names the rows in errors."""
        return self.pair_ids

    @property
    def token_count(self) -> int:
        return sum(len(row.input_ids) for row in self.rows)

    @property
    def tokens(self) -> TokenBatch:
        """The rows padded on the right."""
        return collate(self.rows)

    @property
    def pairs(self) -> list[tuple[Encoded, Encoded]]:
        """Return chosen and rejected row of each pair."""
        count = len(self.pair_ids)
        return list(zip(self.rows[:count], self.rows[count:], strict=True))

    def take(self, indices: Sequence[int]) -> "PairBatch":
        """Return the batch of some of its pairs, for a forward of their own."""
        rows = [*indices, *(len(self.pair_ids) + index for index in indices)]
        return self._replace(
            pair_ids=[self.pair_ids[index] for index in indices],
            rows=[self.rows[row] for row in rows],
            reference_logps=self.reference_logps[rows],
            signs=self.signs[list(indices)],
            scores=None if self.scores is None else self.scores[rows],
        )

    def to(self, device: torch.device) -> "PairBatch":
        """Return the same with its tensors on a device."""
        scores = None if self.scores is None else self.scores.to(device)
        return self._replace(
            reference_logps=self.reference_logps.to(device), signs=self.signs.to(device), scores=scores
        )


class FrozenValues(NamedTuple):
    """What is computed of every row once, before training.

    Args:
        reference: row -> log-probability under the reference
        objectives: names, in the order of `scores`
        scores: row -> its score under every objective; None where the loss needs none
    """

    reference: Mapping[RowKey, float]
    objectives: Sequence[str] = ()
    scores: Mapping[RowKey, Sequence[float]] | None = None


def collate_pairs(pairs: Sequence[TrainingPair], values: FrozenValues, step_pairs: int) -> PairBatch:
    """Build a micro-batch: chosen rows, then rejected rows."""
    rows = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    logps = torch.tensor([values.reference[row_key(row)] for row in rows], dtype=torch.float32)
    signs = torch.tensor([[pair.signs[name] for name in values.objectives] for pair in pairs], dtype=torch.float32)
    scores = None
    if values.scores is not None:
        scores = torch.tensor([values.scores[row_key(row)] for row in rows], dtype=torch.float32)
    longest = max(len(row.input_ids) for row in rows)
    return PairBatch([pair.pair_id for pair in pairs], rows, logps, step_pairs, longest, signs, scores)


def row_key(row: Encoded) -> RowKey:
    """Return what identifies a tokenised row among reference log-probabilities."""
    return (tuple(row.input_ids), row.prompt_length)


class PairLoader(StepLoader[TrainingPair, PairBatch]):
    """Iterates micro-batches of pairs with their reference log-probabilities, see `StepLoader`."""

    def __init__(self, pairs: Sequence[TrainingPair], *arguments: Any, **keywords: Any) -> None:
        super().__init__(pairs, *arguments, **keywords)
        self.values = FrozenValues({})

    @property
    def pairs(self) -> Sequence[TrainingPair]:
        return self.rows

    def collate(self, rows: Sequence[TrainingPair], step: Sequence[TrainingPair]) -> PairBatch:
        return collate_pairs(rows, self.values, len(step))
