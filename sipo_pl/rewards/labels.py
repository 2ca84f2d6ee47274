"""Preferences of pairs by rewards, where the raw data has no column for an objective."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from sipo_pl.data.converters.base import preferred_index
from sipo_pl.data.rows import PairRow
from sipo_pl.recipe.recipe import Objective
from sipo_pl.rewards.panel import RewardPanel
from sipo_pl.text.prompt import TextRow

RESPONSES: tuple[Literal["response_0", "response_1"], ...] = ("response_0", "response_1")


def label_pairs(pairs: Sequence[PairRow], objectives: Sequence[Objective], panel: RewardPanel, cache: Path) -> None:
    """Add, in place, scores and preferences of the objectives that the rewards of a panel label.

    Every distinct text is scored once, by all rewards in one pass.

    Args:
        pairs: pairs that lack those objectives.
        objectives: all objectives, in the recipe's order, which the rows' keys follow.
        panel: a reward for each objective that is to be labelled.
        cache: folder of what was scored, see `RewardPanel.score_all`.
    """
    found = {
        (row["prompt_id"], text): row["prompt"] for row in pairs for text in (row["response_0"], row["response_1"])
    }
    texts = [TextRow(prompt, text) for (_, text), prompt in found.items()]
    columns = panel.score_all(texts, cache, "label")
    places = {key: place for place, key in enumerate(found)}
    for row in pairs:
        at = [places[row["prompt_id"], row[key]] for key in RESPONSES]
        preferred, scores = dict(row["preferred"]), dict(row.get("scores", {}))
        for one in objectives:
            if one.name in panel.names:
                sign = 1.0 if one.direction == "max" else -1.0
                scores[one.name] = [sign * columns[one.name][place] for place in at]
                preferred[one.name] = preferred_index(*scores[one.name])
        row["preferred"] = {one.name: preferred[one.name] for one in objectives}
        row["scores"] = {one.name: scores[one.name] for one in objectives if one.name in scores}
