"""A mixture that takes all of a part of which it asks for none."""

from collections.abc import Sequence

from sipo_pl.data.mixture import End, Pair, end_of


def end_or_all(part: Sequence[Pair], count: int, take: End) -> list[Pair]:
    """Return the first or the last `count` pairs of a part; the last 0 are all of it."""
    return list(part) if count == 0 and take == "last" else end_of(part, count, take)
