"""Conflicts and ties of pairs, and the statistics of prepared data."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sipo_pl.data.rows import PairRow

QUANTILES = (0, 5, 25, 50, 75, 95, 100)  # per cent


def has_tie(row: PairRow, names: Iterable[str]) -> bool:
    """Return whether any of the objectives `names` has no preference."""
    return any(row["preferred"][name] == -1 for name in names)


def tied_everywhere(row: PairRow, names: Iterable[str]) -> bool:
    """Return whether none of the objectives `names` has a preference."""
    return all(row["preferred"][name] == -1 for name in names)


def is_conflict(row: PairRow, names: Sequence[str]) -> bool:
    """Return whether two of the objectives `names` prefer different responses; a pair with a tie is no conflict."""
    return len({row["preferred"][name] for name in names}) > 1 and not has_tie(row, names)


def statistics(
    pairs: Mapping[str, Sequence[PairRow]],
    names: Sequence[str],
    dropped: Mapping[str, Mapping[str, int]],
    tokens: Mapping[str, Mapping[str, Sequence[int]]],
) -> dict[str, Any]:
    """Return the tables of `statistics.json`.

    Args:
        pairs: split to its prepared pairs.
        names: the objectives.
        dropped: split to reason to count.
        tokens: split to part (prompt, response, whole) to the lengths of its texts in tokens.

    Returns:
        Five tables, each split to rows: `splits` (pairs, and how many conflict among those without any tie),
        `conflicts` (for each two objectives, among the pairs that both decide), `ties`, `dropped` and `tokens`.
        A share of nothing is None.
    """
    two = list(itertools.combinations(names, 2))
    return {
        "splits": {split: _counts(rows, names) for split, rows in pairs.items()},
        "conflicts": {
            split: {f"{first} / {second}": _conflicts(rows, first, second) for first, second in two}
            for split, rows in pairs.items()
        },
        "ties": {split: {name: _ties(rows, name) for name in names} for split, rows in pairs.items()},
        "dropped": {split: dict(reasons) for split, reasons in dropped.items()},
        "tokens": {
            split: {part: quantiles(lengths) for part, lengths in parts.items()} for split, parts in tokens.items()
        },
    }


def _counts(rows: Sequence[PairRow], names: Sequence[str]) -> dict[str, Any]:
    untied = sum(not has_tie(row, names) for row in rows)
    conflicts = sum(is_conflict(row, names) for row in rows)
    return {
        "prompts": len({row["prompt_id"] for row in rows}),
        "pairs": len(rows),
        "untied": untied,
        "conflicts": conflicts,
        "conflict_share": _share(conflicts, untied),
    }


def _conflicts(rows: Sequence[PairRow], first: str, second: str) -> dict[str, Any]:
    both = [row for row in rows if not has_tie(row, (first, second))]
    conflicts = sum(is_conflict(row, (first, second)) for row in both)
    return {"untied": len(both), "conflicts": conflicts, "conflict_share": _share(conflicts, len(both))}


def _ties(rows: Sequence[PairRow], name: str) -> dict[str, Any]:
    ties = sum(has_tie(row, (name,)) for row in rows)
    return {"pairs": len(rows), "ties": ties, "tie_share": _share(ties, len(rows))}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def quantiles(values: Sequence[int]) -> dict[str, int]:
    """Return the `QUANTILES` of `values` by nearest rank, so that each is one of the values; none of no values."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return {f"{q}%": ordered[min(last, max(0, math.ceil(q / 100 * len(ordered)) - 1))] for q in QUANTILES if ordered}


def format_statistics(stats: Mapping[str, Any]) -> str:
    """Return the tables of `statistics` as text for a terminal or a log."""
    return "\n\n".join(_format_table(title, stats[title]) for title in stats if any(stats[title].values()))


def _format_table(title: str, table: Mapping[str, Any]) -> str:
    rows = list(_leaves(table))
    if title == "dropped":  # its reasons are too long for columns
        rows = [((*path, reason), {"count": count}) for path, reasons in rows for reason, count in reasons.items()]
    columns = list(dict.fromkeys(column for _, leaf in rows for column in leaf))
    lines = [[title, *columns]]
    lines += [["  ".join(path), *(_cell(leaf.get(column)) for column in columns)] for path, leaf in rows]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])]).rstrip() for cells in lines
    )


def _leaves(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterable[tuple[tuple[str, ...], dict[str, Any]]]:
    for name, value in table.items():
        if any(isinstance(inner, Mapping) for inner in value.values()):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
