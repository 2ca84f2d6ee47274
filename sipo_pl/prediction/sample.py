"""MOD sampling: responses to prompts by decoding-time fusion of the policies, at every weight."""

from pathlib import Path
from typing import Any, Literal

from sipo_pl.data.datamodules.unit_data import PROMPTS, Unit
from sipo_pl.data.rows import SampleRow
from sipo_pl.engine.decoding.options import Decoding, Request
from sipo_pl.engine.lora.policies import Policy, interpolated_policies
from sipo_pl.interop.numbers import PositiveInt
from sipo_pl.messages.errors import UsageError
from sipo_pl.method.weights import corners, point_name
from sipo_pl.prediction.base import GenerationModule
from sipo_pl.recipe.recipe import AlignmentStage, Recipe
from sipo_pl.text.marks import MarkRules, mark_duplicates

BASE_POINT = "base"


class Sample(GenerationModule):
    """Samples responses: candidates for conflicting prompts, or answers to the test prompts.

    Args:
        recipe: what the stages share
        policies: the stage whose policies are fused; in a later round, align is what the round starts from
        split: train_conflict samples candidates at recipe.sample_weights, test answers at recipe.evaluate_weights
        max_rows: only the first so many conflicting pairs, or test prompts; all where not given
        samples_per_weight: responses for each prompt and weight; more than one needs a temperature
        base: also answer with the base model alone
        soups: answer by the policies interpolated in weight space at every weight (rewarded soups) in place of fusion
        decoding: how text is decoded
        marks: when a text is marked as collapsed
    """

    row = SampleRow

    def __init__(
        self,
        recipe: Recipe,
        policies: AlignmentStage = "align",
        split: Literal["train_conflict", "test"] = "train_conflict",
        max_rows: PositiveInt | None = None,
        samples_per_weight: PositiveInt = 1,
        base: bool = False,
        soups: bool = False,
        decoding: Decoding = Decoding(),  # noqa: B008 (frozen)
        marks: MarkRules = MarkRules(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__(recipe, policies, decoding, marks)
        if samples_per_weight > 1 and decoding.temperature == 0:
            raise UsageError("samples_per_weight: greedy decoding gives one response; set decoding.temperature above 0")
        self.split, self.max_rows, self.samples_per_weight = split, max_rows, samples_per_weight
        plan = recipe.sample_weights if split == "train_conflict" else recipe.evaluate_weights
        self.weights, self.soups = plan.resolve(recipe.objective_names), soups
        # a request's weights cover the groups: the policies, or each point's soup, then the recipe's base model
        groups = corners(len(self.weights)) if soups else self.weights
        names = [point_name(point) for point in self.weights]
        self.points = {name: (*group, 0.0) for name, group in zip(names, groups, strict=True)}
        if base:
            self.points[BASE_POINT] = (*(0.0 for _ in groups[0]), 1.0)

    @property
    def needs_base(self) -> bool:
        return BASE_POINT in self.points

    @property
    def prompts(self) -> Path:  # type: ignore[override]
        layout = self.recipe.layout
        return layout.test_prompts if self.split == "test" else layout.pairs("train_conflict")

    @property
    def recipe_keys(self) -> dict[str, Any]:
        return {**super().recipe_keys, "points": self.points, "round": self.recipe.round}

    def read_policies(self) -> list[Policy]:
        policies = super().read_policies()
        return self.recipe.part(interpolated_policies)(policies, self.weights) if self.soups else policies

    def _plan(self, unit: Unit) -> list[dict[str, Any]]:
        return [
            {
                "sample_id": f"{row['prompt_id']}/{self.recipe.round}/{point}/{k}",
                "prompt_id": row["prompt_id"],
                "prompt": row["prompt"],
                "point": point,
                "k": k,
            }
            for row in unit.rows[PROMPTS]
            for point in self.points
            for k in range(self.samples_per_weight)
        ]

    def expected_ids(self, unit: Unit) -> list[str]:
        return [row["sample_id"] for row in self._plan(unit)]

    def predict_step(self, batch: Unit, batch_idx: int) -> list[dict[str, Any]]:
        rows = self._plan(batch)
        prompt_ids = {row["prompt_id"]: tuple(self.template.prompt_ids(row["prompt"])) for row in batch.rows[PROMPTS]}
        requests = [Request(row["sample_id"], prompt_ids[row["prompt_id"]], self.points[row["point"]]) for row in rows]
        for row, generated in zip(rows, self.decode(requests), strict=True):
            row["text"] = self.answer(row["prompt"], generated)
            row.update(self.text_row(generated, row["text"]))
        mark_duplicates(rows)
        return rows
