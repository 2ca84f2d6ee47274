"""Review: one policy reads each candidate and suggests, in the objectives' words, how to better it."""

from typing import Any

from sipo_pl.data.datamodules.unit_data import Unit
from sipo_pl.data.rows import ReviewRow
from sipo_pl.engine.decoding.options import Decoding, Request
from sipo_pl.prediction.base import GenerationModule
from sipo_pl.recipe.recipe import AlignmentStage, Recipe
from sipo_pl.text.marks import MarkRules, is_unmarked
from sipo_pl.text.prompts.build import CritiquePrompts


class Review(GenerationModule):
    """Reviews the sampled candidates with objective 1's policy, without fusion.

    Args:
        recipe: what the stages share
        policies: the stage whose policies write
        skip_marked: leave out candidates that are marked, such as cut or duplicate ones
        prompt_file: text file of the prompt, with the fields of the shipped one in `sipo_pl/text/prompts/`, which is
            taken where not given
        decoding: how text is decoded
        marks: when a text is marked as collapsed
    """

    row = ReviewRow
    sources = ("sample",)

    def __init__(
        self,
        recipe: Recipe,
        policies: AlignmentStage = "align",
        skip_marked: bool = True,
        prompt_file: str | None = None,
        decoding: Decoding = Decoding(max_length=1200),  # noqa: B008 (frozen)
        marks: MarkRules = MarkRules(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__(recipe, policies, decoding, marks)
        critique = recipe.part(CritiquePrompts)
        self.critique = critique(recipe.objectives, recipe.template.kind, review_file=prompt_file)
        self.skip_marked = skip_marked

    def _samples(self, unit: Unit) -> list[dict[str, Any]]:
        usable = self.recipe.part(is_unmarked)
        return [row for row in unit.rows["sample"] if not self.skip_marked or usable(row["marks"])]

    @property
    def recipe_keys(self) -> dict[str, Any]:
        return {**super().recipe_keys, "prompt": self.critique.fingerprint}

    def expected_ids(self, unit: Unit) -> list[str]:
        return [row["sample_id"] for row in self._samples(unit)]

    def predict_step(self, batch: Unit, batch_idx: int) -> list[dict[str, Any]]:
        samples = self._samples(batch)
        weights = (1.0,)  # objective 1's policy alone
        asked = [self.critique.review_prompt(sample["prompt"], sample["text"]) for sample in samples]
        requests = [
            Request(f"{sample['sample_id']}#review", tuple(self.template.continuation_ids(prompt, start)), weights)
            for sample, (prompt, start) in zip(samples, asked, strict=True)
        ]
        rows = []
        for sample, (prompt, lead_in), generated in zip(samples, asked, self.decode(requests), strict=True):
            whole = self.answer(prompt, generated, lead_in)
            start = lead_in if whole.startswith(lead_in) else ""  # which a search for marks may have missed
            written = self.critique.cut_review(whole.removeprefix(lead_in))
            rows.append(
                {
                    "sample_id": sample["sample_id"],
                    "prompt_id": sample["prompt_id"],
                    "review": (start + written).strip(),
                    **self.text_row(generated, written),
                }
            )
        return rows
