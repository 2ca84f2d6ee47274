"""Rewrite: each reviewed candidate written anew by the same fusion of policies that sampled it."""

from typing import Any

from sipo_pl.data.datamodules.unit_data import Unit
from sipo_pl.data.rows import RewriteRow
from sipo_pl.engine.decoding.options import Decoding, Request
from sipo_pl.method.weights import point_name
from sipo_pl.prediction.base import GenerationModule
from sipo_pl.recipe.recipe import AlignmentStage, Recipe
from sipo_pl.text.marks import MarkRules, mark_duplicates
from sipo_pl.text.prompts.build import CritiquePrompts


class Rewrite(GenerationModule):
    """Rewrites the reviewed candidates at the weight of their own sampling.

    Args:
        recipe: what the stages share
        policies: the stage whose policies write
        prompt_file: text file of the prompt, with the fields of the shipped one in `sipo_pl/text/prompts/`, which is
            taken where not given
        decoding: how text is decoded
        marks: when a text is marked as collapsed
    """

    row = RewriteRow
    sources = ("sample", "review")

    def __init__(
        self,
        recipe: Recipe,
        policies: AlignmentStage = "align",
        prompt_file: str | None = None,
        decoding: Decoding = Decoding(max_length=1600),  # noqa: B008 (frozen)
        marks: MarkRules = MarkRules(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__(recipe, policies, decoding, marks)
        critique = recipe.part(CritiquePrompts)
        self.critique = critique(recipe.objectives, recipe.template.kind, rewrite_file=prompt_file)
        points = recipe.sample_weights.resolve(recipe.objective_names)
        self.points = {point_name(point): point for point in points}

    @property
    def recipe_keys(self) -> dict[str, Any]:
        return {**super().recipe_keys, "prompt": self.critique.fingerprint}

    def expected_ids(self, unit: Unit) -> list[str]:
        return [row["sample_id"] for row in unit.rows["review"]]

    def predict_step(self, batch: Unit, batch_idx: int) -> list[dict[str, Any]]:
        samples = {row["sample_id"]: row for row in batch.rows["sample"]}
        requests, prompts = [], []
        for review in batch.rows["review"]:
            sample = samples[review["sample_id"]]
            prompt = self.critique.rewrite_prompt(sample["prompt"], sample["text"], review["review"])
            ids = tuple(self.template.prompt_ids(prompt))
            requests.append(Request(f"{sample['sample_id']}#rewrite", ids, self.points[sample["point"]]))
            prompts.append(prompt)
        rows = []
        for review, prompt, generated in zip(batch.rows["review"], prompts, self.decode(requests), strict=True):
            text = self.critique.cut_rewrite(self.answer(prompt, generated))
            rows.append(
                {
                    "sample_id": review["sample_id"],
                    "prompt_id": review["prompt_id"],
                    "text": text,
                    **self.text_row(generated, text),
                }
            )
        mark_duplicates(rows)
        return rows
