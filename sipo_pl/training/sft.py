"""Supervised fine-tuning: the base model learns the responses of the data before anything is preferred."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from sipo_pl.data.datamodules.sft_data import SFTBatch
from sipo_pl.engine.logprobs.token_budget import forwards_of
from sipo_pl.engine.models.merge import merge_adapter
from sipo_pl.interop.numbers import NonNegativeFloat
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.text.templates import Encoded
from sipo_pl.training.lora_fit import Forwards, LoRAFit, LoRASettings

log = logging.getLogger("sipo_pl")


class SFT(LoRAFit):
    """Trains LoRA ranks on responses; the result is the adapter, and the base model with it merged.

    The loss is the mean of -log pi(y_t | x, y_<t) over the response tokens, EOS included, of an optimizer step.

    Args:
        recipe: what the stages share
        optimizer: class_path and init_args of a torch optimizer
        lora: the ranks in training
        warmup: share of the optimizer steps that warm up, before a cosine to zero
        forwards: how the forwards are computed
    """

    def __init__(
        self,
        recipe: Recipe,
        optimizer: OptimizerCallable,
        lora: LoRASettings = LoRASettings(),  # noqa: B008 (never changed)
        warmup: NonNegativeFloat = 0.1,
        forwards: Forwards = Forwards(),  # noqa: B008 (never changed)
    ) -> None:
        super().__init__(recipe, optimizer, lora, warmup, forwards)

    @property
    def base_model(self) -> str:
        return self.recipe.base_model

    def on_fit_start(self) -> None:
        """Check that every row fits the token budget."""
        loaders = self.trainer.datamodule.loaders  # type: ignore[attr-defined]
        self.check_budget({one.text_id: [one.tokens] for one in loaders["train"].rows})

    def training_step(self, batch: SFTBatch, batch_idx: int) -> Tensor:
        return self._step(batch, "") * self.share_of_step(batch, batch.step_tokens)

    def validation_step(self, batch: SFTBatch, batch_idx: int) -> None:
        self._step(batch, "val/")

    def test_step(self, batch: SFTBatch, batch_idx: int) -> None:
        self._step(batch, "test/")

    def _step(self, batch: SFTBatch, prefix: str) -> Tensor:
        """Return the sum of the losses of a micro-batch's tokens, and log their mean."""
        parts = forwards_of([[row] for row in batch.rows], self.budget())
        total = self.sum_of([partial(self._nll, [batch.rows[index] for index in part]) for part in parts])
        tokens = sum(row.response_length for row in batch.rows)
        self.log_means({"loss": total}, tokens, batch, prefix)
        return total

    def _nll(self, rows: Sequence[Encoded]) -> Tensor:
        return -self.packed_logps(rows).sum()

    def write(self, folder: Path) -> list[Path]:
        made = super().write(folder)
        if self.recipe.quantize:
            log.info("trained over weights in four bits, and merged into the whole ones")
        merge_adapter(self.base_model, folder / "adapter", folder / "model", self.recipe.dtype)
        return [*made, folder / "model"]

    @property
    def recipe_keys(self) -> dict[str, Any]:
        # neither objectives nor beta have a part in it
        unused = ("objectives", "beta", "divergence")
        return {key: value for key, value in super().recipe_keys.items() if key not in unused}
