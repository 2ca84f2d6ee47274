"""What alignment and re-alignment share: a loss of preference pairs and its reference."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from transformers import PreTrainedModel

from sipo_pl.data.datamodules.preference_data import PreferenceData
from sipo_pl.data.loader import FrozenValues, PairBatch, RowKey, row_key
from sipo_pl.engine.logprobs.reference_cache import Devices, ReferenceCache, reference_logps
from sipo_pl.engine.logprobs.token_budget import forwards_of
from sipo_pl.engine.lora.adapters import check_fit, read_adapter
from sipo_pl.engine.lora.policies import BASE, policy_input
from sipo_pl.interop.numbers import NonNegativeFloat, PositiveFloat, PositiveInt
from sipo_pl.messages.errors import UsageError, UserError
from sipo_pl.messages.progress import Progress
from sipo_pl.method.losses import LossContext, LossOutput, PairLogps, PreferenceLoss, compare, reward_metrics
from sipo_pl.recipe.divergence import recipe_divergence
from sipo_pl.recipe.recipe import Component, Recipe
from sipo_pl.storage.adapter_config import WEIGHTS_FILE
from sipo_pl.storage.hash_memory import file_hash
from sipo_pl.storage.hashes import HASH_PARTS
from sipo_pl.storage.model_hashes import weights_hash
from sipo_pl.text.templates import Encoded
from sipo_pl.training.lora_fit import Forwards, LoRAFit, LoRASettings
from sipo_pl.training.margins import Margins

log = logging.getLogger("sipo_pl")


class PreferenceModule(LoRAFit):
    """Trains LoRA ranks on preference pairs.

    Args:
        recipe: what the stages share
        objective: whose policy is trained
        optimizer: class_path and init_args of a torch optimizer
        loss: loss of a pair
        lora: the ranks in training
        warmup: share of the optimizer steps that warm up, before a cosine to zero
        reference_batch_rows: rows in one forward when reference log-probabilities are computed
        tolerance: largest difference in log-probability per token between untrained policy and cached reference
        margins: objective -> class_path and init_args of the reward that scores its margins for MODPO; its aligned
            policy's implicit reward where not given; the trained one's is not read, so that one config can name a
            reward for every objective, whose policies need not be there then
        forwards: how the forwards are computed
    """

    def __init__(
        self,
        recipe: Recipe,
        objective: str,
        optimizer: OptimizerCallable,
        loss: PreferenceLoss,
        lora: LoRASettings = LoRASettings(),  # noqa: B008 (never changed)
        warmup: NonNegativeFloat = 0.1,
        reference_batch_rows: PositiveInt = 16,
        tolerance: PositiveFloat = 1e-2,
        margins: dict[str, Component] | None = None,
        forwards: Forwards = Forwards(),  # noqa: B008 (never changed)
    ) -> None:
        super().__init__(recipe, optimizer, lora, warmup, forwards)
        self.objective, self.loss = recipe.objective(objective), loss
        self.reference_batch_rows, self.tolerance = reference_batch_rows, tolerance
        names = recipe.objective_names
        self.context = LossContext(recipe.beta, recipe_divergence(recipe), tuple(names), names.index(objective))
        loss.check(self.context)
        if margins and not loss.needs_scores:
            raise UsageError(f"model.margins: {type(loss).__name__} has no margins")
        self.margins = Margins(recipe, self.objective, margins or {}) if loss.needs_scores else None

    @property
    def inputs(self) -> dict[str, tuple[Path, str]]:
        """Return the adapters that the stage reads: name -> (path, command that makes it)."""
        inputs = {**super().inputs, **(self.margins.inputs if self.margins else {})}
        if self.first_adapter is not None:
            inputs["first adapter"] = policy_input(self.recipe, "align", self.objective)
        return inputs

    @property
    def recipe_keys(self) -> dict[str, Any]:
        """Return what of the recipe may change the stage's results."""
        hashes = self.margins.reward_hashes if self.margins else {}
        return {**super().recipe_keys, **({"margins": hashes} if hashes else {})}

    @property
    def base_model(self) -> str:
        return self.recipe.base_of(self.objective, "align")

    def other_layers(self, model: PreTrainedModel) -> set[str]:
        adapters = self.margins.adapters() if self.margins else {}
        for folder, factors in adapters.items():
            check_fit(folder, factors, model)
        return {name for factors in adapters.values() for name in factors}

    @property
    def _data(self) -> PreferenceData:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def on_fit_start(self) -> None:
        """Compute the reference log-probabilities that no earlier fit has, and check that the fit starts at them."""
        self.check_budget({pair.pair_id: pair.rows for pair in self._data.loaders["train"].pairs})
        self._load_values()
        if self.trainer.ckpt_path is None:
            self._check_start()

    def on_validation_start(self) -> None:
        self._load_values()

    on_test_start = on_validation_start

    def _load_values(self) -> None:
        """Give the data what is computed once of every row: reference log-probabilities, and scores for margins."""
        if self._data.loaders["validation"].values.reference:
            return
        rows = self._data.texts()
        reference = self._frozen_logps(self.first_adapter, rows)
        scores = None
        if self.margins:

            def logps_under(adapter: Path | None) -> dict[RowKey, float]:
                with self.stack.frozen(read_adapter(adapter).factors if adapter else BASE):
                    return self._frozen_logps(adapter, rows)

            scores = self.margins.scores(self._data.text_rows(), logps_under, self.context)
        self._data.set_values(FrozenValues(reference, self.context.objectives, scores))

    def _frozen_logps(self, adapter: Path | None, rows: list[Encoded]) -> dict[RowKey, float]:
        """Return the log-probabilities of rows with the ranks in training off; `adapter` is the frozen one in place."""
        base = weights_hash(self.base_model)
        identity = {
            "base": base,
            "dtype": self.recipe.dtype,
            **({"quantize": self.recipe.quantize} if self.recipe.quantize else {}),
            "adapter": file_hash(adapter / WEIGHTS_FILE) if adapter else None,
            "merged": self.recipe.compat.merged_reference,
        }
        before = {**identity, "base": base.split(HASH_PARTS)[0]}
        cache = ReferenceCache(self.recipe.layout.cache / "reference", identity, before)
        strategy, world = self.trainer.strategy, self.trainer.world_size
        missing = len(rows) - len(cache.lookup(rows))
        log.info("log-probabilities under %s: %d texts, %d to compute", adapter or "the base", len(rows), missing)
        devices = Devices(self.global_rank, world, self.is_sharded, strategy.barrier)
        with Progress(f"reference-{self.objective.name}", missing, "rows") as progress:

            def advance(count: int) -> None:
                progress.advance(min(count * world, missing - progress.done))

            reference_logps(cache, self.stack, rows, self.reference_batch_rows, advance, devices)
        found = cache.lookup(rows)
        if lost := len({row_key(row) for row in rows} - set(found)):
            raise UserError(f"{cache.folder}: {lost} rows of other devices are not there; do all share the run folder?")
        return found

    def _check_start(self) -> None:
        """Raise UserError unless the untrained policy is the reference, on the first micro-batch."""
        batch = self._data.loaders["train"].peek().to(self.device)
        batch = batch.take(forwards_of(batch.pairs, self.budget())[0])
        with torch.no_grad():
            logps = self.packed_logps(batch.rows)
        lengths = torch.tensor([row.response_length for row in batch.rows], device=self.device)
        gap = (logps - batch.reference_logps).abs() / lengths
        if not gap.max() <= self.tolerance:
            raise UserError(
                f"the untrained policy differs from the reference by {gap.max():.3g} in log-probability per token "
                f"(tolerance {self.tolerance:g}): the adapter does not start at zero, or scorer and trainer disagree"
            )

    def forward(self, batch: PairBatch) -> PairLogps:
        """Return what a loss reads of pairs that one forward holds."""
        policy_chosen, policy_rejected = self.packed_logps(batch.rows).chunk(2)
        reference_chosen, reference_rejected = batch.reference_logps.chunk(2)
        lengths = torch.tensor(self.recipe.part(response_lengths)(batch), device=self.device)
        scores = (None, None) if batch.scores is None else batch.scores.chunk(2)
        whole = (policy_chosen, policy_rejected, reference_chosen, reference_rejected)
        return PairLogps(*whole, lengths, batch.signs, *scores)

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        return self._step(batch, "") * self.share_of_step(batch, batch.step_pairs)

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        self._step(batch, "val/")

    def test_step(self, batch: PairBatch, batch_idx: int) -> None:
        self._step(batch, "test/")

    def _step(self, batch: PairBatch, prefix: str) -> Tensor:
        """Return the sum of the losses of a micro-batch's pairs, and log their means."""
        metrics: list[dict[str, Tensor]] = []

        def loss_of(part: PairBatch) -> Tensor:
            logps = self.forward(part)  # a call would run hooks that are for a whole step
            output = self.loss(logps, self.context)
            metrics.append(pair_metrics(logps, output))
            return output.losses.sum()

        total = self.sum_of([partial(loss_of, part) for part in self.parts(batch)])
        self.report(metrics, batch, prefix)
        return total

    def parts(self, batch: PairBatch) -> list[PairBatch]:
        """Return the pairs of each forward of a micro-batch."""
        return [batch.take(indices) for indices in forwards_of(batch.pairs, self.budget())]

    def report(self, metrics: Sequence[dict[str, Tensor]], batch: PairBatch, prefix: str) -> None:
        """Log the means of what `pair_metrics` returned of its forwards, under prefixed names."""
        sums = {name: torch.cat([one[name] for one in metrics]).sum() for name in metrics[0]}
        self.log_means(sums, len(batch.pair_ids), batch, prefix)


def response_lengths(batch: PairBatch) -> list[int]:
    """Return the tokens of the chosen responses, by which the NLL term of a loss is divided, (P,)."""
    return [chosen.response_length for chosen, _ in batch.pairs]


def pair_metrics(logps: PairLogps, output: LossOutput) -> dict[str, Tensor]:
    """Return what is logged of each pair, (P,)."""
    margins = output.chosen_rewards - output.rejected_rewards
    return {
        "loss": output.losses.detach(),
        "dpo_loss": compare(margins, "sigmoid"),
        **reward_metrics(output),
        "logps/chosen": logps.policy_chosen.detach(),
        "logps/rejected": logps.policy_rejected.detach(),
    }
