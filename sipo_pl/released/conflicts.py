"""Conflicts to which a tie counts."""

from collections.abc import Sequence

from sipo_pl.data.rows import PairRow


def is_conflict_or_tie(row: PairRow, names: Sequence[str]) -> bool:
    """Return whether the objectives `names` differ about a pair; a tie differs from a preference."""
    return len({row["preferred"][name] for name in names}) > 1
