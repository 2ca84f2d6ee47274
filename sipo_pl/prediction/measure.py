"""Measure: the evaluation's responses under each objective's reward."""

import math
from typing import Any

from sipo_pl.data.datamodules.unit_data import Unit
from sipo_pl.data.rows import MeasuredRow
from sipo_pl.interop.numbers import PositiveInt
from sipo_pl.messages.errors import UserError
from sipo_pl.prediction.base import PredictionModule
from sipo_pl.recipe.recipe import AlignmentStage, PolicyStage, Recipe
from sipo_pl.rewards.implicit import implicit_rewards
from sipo_pl.rewards.panel import objective_rewards
from sipo_pl.rewards.text import words
from sipo_pl.text.prompt import TextRow


class Measure(PredictionModule):
    """Measures the responses of an evaluation.

    An objective without a reward of its own is measured by the implicit reward of its first-round policy: a proxy, that
    tells whether the responses moved the way the policy was taught, not whether they are better.

    Args:
        recipe: what the stages share
        policies: the stage whose evaluation is measured
        batch_tokens: tokens of one forward, over all policies, where implicit rewards are used
    """

    row: type = MeasuredRow
    kept: tuple[str, ...] = ("sample_id", "prompt_id", "point", "finish_reason", "marks")  # of a response's row

    def __init__(self, recipe: Recipe, policies: AlignmentStage = "align", batch_tokens: PositiveInt = 8192) -> None:
        super().__init__(recipe, policies)
        self.sources = (f"evaluate-{policies}",)
        self.batch_tokens = batch_tokens
        self.panel = objective_rewards(recipe)

    @property
    def recipe_keys(self) -> dict[str, Any]:
        rewards = {one.name: self.panel.keys(one.name) if one.reward else None for one in self.recipe.objectives}
        return {**super().recipe_keys, "rewards": rewards}

    @property
    def needs_policies(self) -> bool:
        return len(self.panel.names) < len(self.recipe.objectives)

    @property
    def adapter_stage(self) -> PolicyStage:
        return "first"  # the ruler stays the same before and after, and in every round

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.panel.load(self.memory_budget)

    def teardown(self, stage: str) -> None:
        self.panel.free()

    def expected_ids(self, unit: Unit) -> list[str]:
        return [row["sample_id"] for row in unit.rows[self.sources[0]]]

    def predict_step(self, batch: Unit, batch_idx: int) -> list[dict[str, Any]]:
        samples = batch.rows[self.sources[0]]
        texts = [TextRow(row["prompt"], row["text"]) for row in samples]
        columns = self.panel.score(texts)
        if self.policy_set is not None:
            rows = self.template.encode_all([(text.prompt, text.response) for text in texts])
            implicit = implicit_rewards(
                self.policy_set,
                len(self.recipe.objectives),
                rows,
                self.divergence,
                self.recipe.beta,
                self.batch_tokens,
            )
            for name, column in zip(self.recipe.objective_names, implicit.tolist(), strict=True):
                columns.setdefault(name, column)
        self.advance(len(samples), 0)
        names = self.recipe.objective_names
        return [self._row(sample, {name: columns[name][i] for name in names}) for i, sample in enumerate(samples)]

    def _row(self, sample: dict[str, Any], rewards: dict[str, float]) -> dict[str, Any]:
        for name, value in rewards.items():
            if not math.isfinite(value):
                raise UserError(f"reward of objective {name!r} is {value} for {sample['sample_id']}")
        return {**{key: sample[key] for key in self.kept}, "rewards": rewards, "words": len(words(sample["text"]))}
