"""Which pairs and prompts go into which split; what is kept stays in file order, what is dropped is counted."""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sipo_pl.data.conflicts import has_tie
from sipo_pl.data.rows import PairRow, PromptRow
from sipo_pl.messages.errors import UserError

RowT = TypeVar("RowT", PairRow, PromptRow)


@dataclass
class Split(Generic[RowT]):
    """Rows of a split on their way through the filters.

    Args:
        name: train, validation or test
        rows: what is left
        dropped: reason to how many were dropped for it
    """

    name: str
    rows: list[RowT]
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def prompt_ids(self) -> set[str]:
        return {row["prompt_id"] for row in self.rows}

    def keep(self, rows: list[RowT], reason: str) -> int:
        """Go on with `rows`, a part of the rows; count the others under `reason` and return how many they are."""
        lost = len(self.rows) - len(rows)
        if lost:
            self.dropped[reason] += lost
        self.rows = rows
        return lost

    def check(self) -> None:
        """Raise UserError where nothing is left, naming what took how many."""
        if not self.rows:
            taken = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items())
            raise UserError(f"data.{self.name}: nothing is left; dropped: {taken or 'none'}")


def unique_prompts(pairs: Sequence[PairRow]) -> list[PromptRow]:
    """Return the prompts of `pairs`, each once, in order of appearance."""
    found: dict[str, PromptRow] = {}
    for row in pairs:
        found.setdefault(row["prompt_id"], {"prompt_id": row["prompt_id"], "prompt": row["prompt"]})
    return list(found.values())


def draw_prompts(prompts: Sequence[PromptRow], count: int, seed: int) -> list[PromptRow]:
    """Draw `count` of `prompts` without replacement; the same seed and prompts give the same draw.

    Raises:
        ValueError: if there are fewer than `count`.
    """
    import numpy as np

    drawn = np.random.default_rng(seed).choice(len(prompts), size=count, replace=False)
    return [prompts[index] for index in sorted(drawn.tolist())]


def draw_validation(slots: Sequence[int], count: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Draw a validation split: a permutation of `count` places, of which the first ceil(count * share) are validation.

    Args:
        slots: place of each row among the `count`; places of dropped rows are missing.
        count: how many places there are.
        share: share of validation.
        seed: seed of the permutation.

    Returns:
        Indices into `slots` of train and of validation, in the order of the permutation.
    """
    import numpy as np

    index_of = {slot: index for index, slot in enumerate(slots)}
    order = np.random.default_rng(seed).permutation(count).tolist()
    border = math.ceil(count * share)
    parts = (order[border:], order[:border])
    train, validation = ([index_of[slot] for slot in part if slot in index_of] for part in parts)
    return train, validation


def without_prompts(pairs: Sequence[PairRow], prompt_ids: Collection[str]) -> list[PairRow]:
    """Return the pairs of other prompts."""
    return [row for row in pairs if row["prompt_id"] not in prompt_ids]


def limit_train(pairs: Sequence[PairRow], conflicting: Sequence[bool], limit: int) -> list[PairRow]:
    """Return `limit` pairs of which half conflict, where there are enough of either kind; the first of each kind.

    Args:
        pairs: in file order.
        conflicting: whether each of them conflicts.
        limit: how many.
    """
    half = min(sum(conflicting), math.ceil(limit / 2))
    others = min(len(pairs) - sum(conflicting), limit - half)
    room = {True: limit - others, False: others}  # too few others leave more room for conflicting pairs
    return [row for row, kind in zip(pairs, conflicting, strict=True) if _take(room, kind)]


def limit_validation(pairs: Sequence[PairRow], names: Sequence[str], limit: int) -> list[PairRow]:
    """Return the first `limit` pairs that every objective decides, and where those are too few the first others."""
    untied = [not has_tie(row, names) for row in pairs]
    decided = min(sum(untied), limit)
    room = {True: decided, False: limit - decided}
    return [row for row, kind in zip(pairs, untied, strict=True) if _take(room, kind)]


def _take(room: dict[bool, int], kind: bool) -> bool:
    room[kind] -= 1
    return room[kind] >= 0
