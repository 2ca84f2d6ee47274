"""A train split of which a given share conflicts."""

import random
from collections.abc import Callable, Sequence
from typing import Generic, Literal, NamedTuple, TypeVar

Pair = TypeVar("Pair")
End = Literal["first", "last"]


class Mixed(NamedTuple, Generic[Pair]):
    """What a mixture is made of.

    Args:
        conflicting: chosen conflicting pairs, in their order
        others: chosen other pairs, in their order
        merged: both, shuffled
    """

    conflicting: list[Pair]
    others: list[Pair]
    merged: list[Pair]


def end_of(part: Sequence[Pair], count: int, take: End) -> list[Pair]:
    """Return the first or the last `count` pairs of a part, in their order."""
    return list(part[:count] if take == "first" else part[len(part) - count :])


def mix(
    conflicting: Sequence[Pair],
    others: Sequence[Pair],
    share: float,
    take: End = "first",
    seed: int = 42,
    taken: Callable[[Sequence[Pair], int, End], list[Pair]] = end_of,
) -> Mixed[Pair]:
    """Mix min(C, M) pairs: int(min(C, M) * share) of the C conflicting ones, the rest of the M others.

    Args:
        conflicting: the C conflicting pairs.
        others: the M pairs that do not conflict.
        share: share of conflicting pairs, from 0 to 1.
        take: which end of either part is taken.
        seed: seed of the shuffle, by which the released mixtures can be made again.
        taken: takes so many pairs from an end of a part, see `end_of`.
    """
    total = min(len(conflicting), len(others))
    count = int(total * share)
    chosen = [taken(part, size, take) for part, size in ((conflicting, count), (others, total - count))]
    merged = [*chosen[0], *chosen[1]]
    random.Random(seed).shuffle(merged)
    return Mixed(chosen[0], chosen[1], merged)
