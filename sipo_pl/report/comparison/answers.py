"""Judged answers as arrays, method by method and point by point, over the same prompts in the same order."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sipo_pl.messages.errors import UserError
from sipo_pl.report.cells import JsonRow

Key = tuple[str, str]  # method, point


@dataclass(frozen=True)
class Answers:
    """Answers of a method at a point, prompt by prompt; means over the responses to a prompt.

    Args:
        rewards: (prompts, objectives)
        words: (prompts,)
        kl: divergence from the base model in nats a response, (prompts,)
        wins: probability of being preferred to the baseline's answer, (prompts,); None where nobody judged
        finished: share of responses that ended by themselves
        collapsed: share of responses that repeat themselves
    """

    rewards: NDArray[np.float64]
    words: NDArray[np.float64]
    kl: NDArray[np.float64]
    wins: NDArray[np.float64] | None
    finished: float
    collapsed: float


def read_answers(rows: Iterable[JsonRow], objectives: Sequence[str]) -> dict[Key, Answers]:
    """Group judged rows by method and point, in order of appearance.

    Raises:
        UserError: no rows, or methods that answered different prompts.
    """
    groups: dict[Key, dict[str, list[JsonRow]]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["point"]), {}).setdefault(row["prompt_id"], []).append(row)
    if not groups:
        raise UserError("judge holds no rows, so there is nothing to compare")
    prompts = sorted(next(iter(groups.values())))
    for (method, point), group in groups.items():
        if sorted(group) != prompts:
            raise UserError(f"{method} at {point or 'all weights'}: answers to other prompts than the first method's")
    return {key: _answers([group[name] for name in prompts], objectives) for key, group in groups.items()}


def rewards_by_method(answers: Mapping[Key, Answers]) -> dict[str, NDArray[np.float64]]:
    """Return each method's rewards, (prompts, points, objectives), its points in order of appearance."""
    return {
        name: np.stack([one.rewards for (method, _), one in answers.items() if method == name], axis=1)
        for name in dict.fromkeys(method for method, _ in answers)
    }


def _answers(by_prompt: Sequence[Sequence[JsonRow]], objectives: Sequence[str]) -> Answers:
    def means(value: Any) -> NDArray[np.float64]:
        return np.array([np.mean([value(row) for row in rows], axis=0) for rows in by_prompt], dtype=np.float64)

    rows = [row for group in by_prompt for row in group]
    return Answers(
        means(lambda row: [row["rewards"][name] for name in objectives]),
        means(lambda row: row["words"]),
        means(lambda row: row["kl"]),
        means(lambda row: row["wins"]) if all("wins" in row for row in rows) else None,
        sum(row["finish_reason"] == "eos" for row in rows) / len(rows),
        sum("collapsed" in row["marks"] for row in rows) / len(rows),
    )
