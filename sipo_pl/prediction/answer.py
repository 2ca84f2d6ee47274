"""Answer: every compared method answers the test prompts at every weight, from one load of the base model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from sipo_pl.data.datamodules.unit_data import PROMPTS, Unit
from sipo_pl.data.rows import AnswerRow
from sipo_pl.engine.decoding.kl import kl_to_base
from sipo_pl.engine.decoding.options import Decoding, Generated, Request
from sipo_pl.engine.lora.adapters import Factors, interpolate, read_adapter, weighted_sum
from sipo_pl.engine.lora.policies import Policy
from sipo_pl.interop.numbers import PositiveInt
from sipo_pl.messages.errors import UsageError
from sipo_pl.method.weights import parse_point
from sipo_pl.prediction.base import GenerationModule
from sipo_pl.recipe.methods import Entrant, PolicySource, entrants
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.registry import METHODS
from sipo_pl.text.marks import MarkRules, mark_duplicates
from sipo_pl.text.templates import Encoded

Mix = tuple[tuple[PolicySource, float], ...]


class Answer(GenerationModule):
    """Answers the test prompts by every method of the recipe, at every weight of recipe.evaluate_weights.

    What several methods have in common, such as the policies at the corners, answers once for all of them.

    Args:
        recipe: what the stages share
        max_rows: only the first so many test prompts; all where not given
        samples_per_weight: responses for each prompt and weight; more than one needs a temperature
        decoding: how text is decoded
        marks: when a text is marked as collapsed
        batch_tokens: tokens of one forward, over all policies, where the divergence from the base model is measured
    """

    row = AnswerRow

    def __init__(
        self,
        recipe: Recipe,
        max_rows: PositiveInt | None = None,
        samples_per_weight: PositiveInt = 1,
        decoding: Decoding = Decoding(),  # noqa: B008 (frozen)
        marks: MarkRules = MarkRules(),  # noqa: B008 (frozen)
        batch_tokens: PositiveInt = 8192,
    ) -> None:
        super().__init__(recipe, "align", decoding, marks)
        if not recipe.methods:
            raise UsageError("recipe.methods: names no methods to be compared")
        if samples_per_weight > 1 and decoding.temperature == 0:
            raise UsageError("samples_per_weight: greedy decoding gives one response; set decoding.temperature above 0")
        self.max_rows, self.samples_per_weight, self.batch_tokens = max_rows, samples_per_weight, batch_tokens
        self.last = replace(recipe, round=recipe.rounds)
        self.entrants: list[Entrant] = entrants(recipe)
        self.mixes: list[Mix] = list(dict.fromkeys(one.mix for one in self.entrants))
        self.used: list[PolicySource] = list(dict.fromkeys(source for mix in self.mixes for source, _ in mix))

    @property
    def prompts(self) -> Path:  # type: ignore[override]
        return self.recipe.layout.test_prompts

    @property
    def needs_base(self) -> bool:
        return True

    @property
    def recipe_keys(self) -> dict[str, Any]:
        return {**super().recipe_keys, "methods": {f"{one.method} {one.point}": one.mix for one in self.entrants}}

    @property
    def inputs(self) -> dict[str, tuple[Path, str]]:
        run_dir = self.recipe.layout.run_dir
        folders = dict.fromkeys(folder for source in self.used for folder in self._folders(source))
        return {_shown(folder, run_dir): (folder, "sipo_pl run") for folder in folders}

    def _folders(self, source: PolicySource) -> list[Path]:
        """Return the adapters that a policy is made of."""
        layout, objectives = self.recipe.layout, self.recipe.objectives
        if source.kind in ("soup", "sum"):
            return [layout.adapter("first", one) for one in objectives]
        if source.kind == "realign":
            return [self.last.layout.adapter("realign", self.last.objective(source.of))]
        if source.kind == "align":
            return [layout.adapter("first", self.recipe.objective(source.of))]
        return [layout.weighted(source.kind, source.of)]

    def read_policies(self) -> list[Policy]:
        read: dict[Path, Factors] = {}
        for source in self.used:
            for folder in self._folders(source):
                if folder not in read:
                    read[folder] = read_adapter(folder, self._base_of(source)).factors
        return [self._policy(source, read) for source in self.used]

    def _base_of(self, source: PolicySource) -> str:
        """Return the base model under a policy."""
        if source.kind == "realign":
            return self.last.base_of(self.last.objective(source.of), "realign")
        return self.recipe.policy_base

    def _policy(self, source: PolicySource, read: dict[Path, Factors]) -> Policy:
        folders = self._folders(source)
        if source.kind in ("soup", "sum"):
            point = parse_point(source.of, self.recipe.objective_names)
            join = interpolate if source.kind == "soup" else weighted_sum
            return Policy(self._base_of(source), join([read[folder] for folder in folders], point))
        return Policy(self._base_of(source), read[folders[0]], folders[0])

    def expected_ids(self, unit: Unit) -> list[str]:
        return [row["sample_id"] for row in self._plan(unit)]

    def _plan(self, unit: Unit) -> list[dict[str, Any]]:
        return [
            {
                "sample_id": f"{row['prompt_id']}/{one.method}/{one.point}/{k}",
                "prompt_id": row["prompt_id"],
                "prompt": row["prompt"],
                "method": one.method,
                "point": one.point,
                "k": k,
            }
            for row in unit.rows[PROMPTS]
            for one in self.entrants
            for k in range(self.samples_per_weight)
        ]

    def predict_step(self, batch: Unit, batch_idx: int) -> list[dict[str, Any]]:
        prompt_ids = {row["prompt_id"]: tuple(self.template.prompt_ids(row["prompt"])) for row in batch.rows[PROMPTS]}
        requests = {
            (name, mix, k): Request(f"{name}/{_mix_name(mix)}/{k}", ids, self._weights(mix))
            for name, ids in prompt_ids.items()
            for mix in self.mixes
            for k in range(self.samples_per_weight)
        }
        made = dict(zip(requests, self.decode(list(requests.values())), strict=True))
        far = dict(zip(requests, self._kl(list(requests.values()), list(made.values())), strict=True))
        mixes = {(one.method, one.point): one.mix for one in self.entrants}
        rows = self._plan(batch)
        for row in rows:
            key = (row["prompt_id"], mixes[row["method"], row["point"]], row["k"])
            row["text"] = self.answer(row["prompt"], made[key])
            row.update(self.text_row(made[key], row["text"]))
            row["kl"] = far[key]
        for method in METHODS:  # methods that share a policy may say the same
            mark_duplicates([row for row in rows if row["method"] == method])
        return rows

    def _weights(self, mix: Mix) -> tuple[float, ...]:
        """Return the weights of a mix over the groups: the policies, then the recipe's base model."""
        weights = dict(mix)
        return (*(weights.get(source, 0.0) for source in self.used), 0.0 if mix else 1.0)

    def _kl(self, requests: list[Request], generated: list[Generated]) -> list[float]:
        assert self.policy_set is not None
        rows = []
        for request, one in zip(requests, generated, strict=True):
            rows.append(Encoded([*request.prompt_ids, *one.whole], len(request.prompt_ids)))
        weights = [request.weights for request in requests]
        return kl_to_base(self.policy_set, len(self.used), rows, weights, self.divergence, self.batch_tokens)


def _shown(folder: Path, run_dir: Path) -> str:
    return str(folder.relative_to(run_dir) if folder.is_relative_to(run_dir) else folder)


def _mix_name(mix: Mix) -> str:
    return "+".join(f"{weight:g} {source.kind} {source.of}" for source, weight in mix) or "base"
