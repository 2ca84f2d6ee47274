"""Score: implicit rewards of candidates, rewrites and the responses of their pairs, each text once."""

from typing import Any

from sipo_pl.data.datamodules.unit_data import Unit
from sipo_pl.data.previous_round import previous_kept
from sipo_pl.data.rows import ScoreRow
from sipo_pl.engine.lora.policies import Policy, interpolated_policies
from sipo_pl.interop.numbers import PositiveInt
from sipo_pl.messages.errors import UsageError, UserError
from sipo_pl.method.weights import point_name
from sipo_pl.prediction.base import PredictionModule
from sipo_pl.recipe.recipe import AlignmentStage, Recipe
from sipo_pl.rewards.implicit import implicit_rewards
from sipo_pl.storage.json_lines import read_jsonl
from sipo_pl.text.marks import is_unmarked
from sipo_pl.text.prompt import text_id
from sipo_pl.text.templates import Encoded


class Score(PredictionModule):
    """Scores texts under the policies and under the policies interpolated at every sampling weight.

    In a round after the first, the responses that the round before kept are scored beside those of the pairs.

    Args:
        recipe: what the stages share
        policies: the stage whose policies are the reward models
        rewrites: score the rewrites beside the samples
        soups: add the policies interpolated in weight space at every sampling weight as reward models
        batch_tokens: tokens of one forward, over all reward models
    """

    row = ScoreRow

    def __init__(
        self,
        recipe: Recipe,
        policies: AlignmentStage = "align",
        rewrites: bool = True,
        soups: bool = True,
        batch_tokens: PositiveInt = 8192,
    ) -> None:
        super().__init__(recipe, policies)
        self.sources = ("sample", "rewrite") if rewrites else ("sample",)
        self.batch_tokens = batch_tokens
        self.soups = recipe.sample_weights.resolve(recipe.objective_names) if soups else []
        bases = {recipe.base_of(one, self.adapter_stage) for one in recipe.objectives}
        if self.soups and len(bases) > 1:
            raise UsageError(
                f"model.soups: policies over {len(bases)} base models cannot be interpolated; "
                "--model.soups false scores without interpolated policies"
            )
        self.models = [f"policy:{name}" for name in recipe.objective_names]
        self.models += [f"soup:{point_name(point)}" for point in self.soups]

    @property
    def recipe_keys(self) -> dict[str, Any]:
        return {**super().recipe_keys, "models": self.models}

    def read_policies(self) -> list[Policy]:
        policies = super().read_policies()
        try:
            soups = interpolated_policies(policies, self.soups)
        except UserError as error:
            layout = self.recipe.layout
            folders = ", ".join(str(layout.adapter(self.adapter_stage, one)) for one in self.recipe.objectives)
            raise UserError(f"{folders}: {error}; --model.soups false scores without interpolated policies") from None
        return [*policies, *soups]

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self._read_responses()

    def _read_responses(self) -> None:
        """Read what candidates are compared with: the responses of the pairs, and the round before's kept ones."""
        self.responses: dict[str, list[str]] = {}
        previous = previous_kept(self.recipe)
        for pair in read_jsonl(self.recipe.layout.pairs("train_conflict")):
            texts = [pair["response_0"], pair["response_1"]]
            texts += [previous[pair["pair_id"]]] if pair["pair_id"] in previous else []
            self.responses.setdefault(pair["prompt_id"], []).extend(texts)

    def _texts(self, unit: Unit) -> dict[str, tuple[dict[str, Any], str]]:
        """Return text_id -> (sample row of the prompt, text) for all texts of the unit's prompts."""
        if not hasattr(self, "responses"):
            self._read_responses()
        prompts = {row["prompt_id"]: row for row in unit.rows["sample"]}
        usable = self.recipe.part(is_unmarked)
        found = [
            (row["prompt_id"], row["text"]) for name in self.sources for row in unit.rows[name] if usable(row["marks"])
        ]
        found += [(prompt_id, text) for prompt_id in prompts for text in self.responses[prompt_id]]
        return {text_id(prompt_id, text): (prompts[prompt_id], text) for prompt_id, text in found}

    def expected_ids(self, unit: Unit) -> list[str]:
        return list(self._texts(unit))

    def prepare(self, unit: Unit) -> tuple[dict[str, tuple[dict[str, Any], str]], list[Encoded]]:
        """Return the unit's texts, see `_texts`, and their tokens."""
        texts = self._texts(unit)
        return texts, self.template.encode_all([(sample["prompt"], text) for sample, text in texts.values()])

    def predict_step(self, batch: Unit, batch_idx: int) -> list[dict[str, Any]]:
        texts, rows = batch.prepared
        assert self.policy_set is not None
        rewards = implicit_rewards(
            self.policy_set,
            len(self.models),
            rows,
            self.divergence,
            self.recipe.beta,
            self.batch_tokens,
            self.advance,
        )
        finite = rewards.isfinite().all(dim=0).tolist()
        if wrong := [identity for identity, fine in zip(texts, finite, strict=True) if not fine]:
            raise UserError(f"implicit rewards are not finite for {', '.join(wrong[:5])}")  # nan would pass the filter
        return [
            {
                "text_id": identity,
                "prompt_id": sample["prompt_id"],
                "rewards": dict(zip(self.models, column, strict=True)),
            }
            for (identity, (sample, _)), column in zip(texts.items(), rewards.T.tolist(), strict=True)
        ]
