"""Judge: the answers of all compared methods under each objective's reward, and against the baseline's answers."""

from typing import Any

from sipo_pl.data.datamodules.unit_data import Unit
from sipo_pl.data.rows import JudgedRow
from sipo_pl.prediction.measure import Measure
from sipo_pl.recipe.components import instantiate
from sipo_pl.recipe.methods import BASELINE
from sipo_pl.recipe.recipe import Component, Recipe
from sipo_pl.rewards.local_judge import Contest, LocalJudge


class Judge(Measure):
    """Measures the answers of the compared methods.

    Args:
        recipe: what the stages share
        judge: class_path and init_args of a judge that compares each answer with the baseline's to the same prompt
    """

    row = JudgedRow
    kept = ("sample_id", "prompt_id", "method", "point", "tokens", "kl", "finish_reason", "marks")

    def __init__(self, recipe: Recipe, judge: Component | None = None) -> None:
        super().__init__(recipe)
        self.sources = ("answer",)
        self.judge = instantiate(judge, LocalJudge, "model.judge") if judge else None

    @property
    def recipe_keys(self) -> dict[str, Any]:
        return {**super().recipe_keys, **({"judge": dict(self.judge.hashes)} if self.judge else {})}

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if self.judge:
            self.judge.scorer.memory_budget, self.judge.scorer.now = self.memory_budget, self.recipe.date
            self.judge.load()

    def teardown(self, stage: str) -> None:
        super().teardown(stage)
        if self.judge:
            self.judge.free()

    def predict_step(self, batch: Unit, batch_idx: int) -> list[dict[str, Any]]:
        rows = super().predict_step(batch, batch_idx)
        if self.judge:
            answers = batch.rows["answer"]
            baseline = {(row["prompt_id"], row["k"]): row["text"] for row in answers if row["method"] == BASELINE}
            contests = [Contest(a["prompt"], a["text"], baseline[a["prompt_id"], a["k"]]) for a in answers]
            for row, wins in zip(rows, self.judge.win_rates(contests), strict=True):
                row["wins"] = wins
        return rows
