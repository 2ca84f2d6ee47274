"""What every fit has: a model of the recipe, an optimizer, its schedule, and what it leaves in its stage's folder."""

import logging
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from sipo_pl.data.step_loader import StepLoader
from sipo_pl.interop.lightning import accumulate
from sipo_pl.messages.errors import UsageError
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.training.schedule import cosine_with_warmup

log = logging.getLogger("sipo_pl")

MADE_BY = "made_by"  # key of a checkpoint: stage and settings of the fit


class FitBatch(Protocol):
    """What every micro-batch of a fit has."""

    @property
    def row_ids(self) -> list[str]: ...

    @property
    def token_count(self) -> int: ...

    @property
    def spare(self) -> bool: ...


class Fit(LightningModule):
    """Trains a model.

    Args:
        recipe: what the stages share
        optimizer: optimizer of what is trained
        warmup: share of the optimizer steps that warm up, before a cosine to zero
    """

    def __init__(self, recipe: Recipe, optimizer: OptimizerCallable, warmup: float) -> None:
        super().__init__()
        if warmup > 1 and not recipe.compat.step_count_warmup:
            raise UsageError(f"model.warmup: expected a share of the steps, from 0 to 1, found {warmup:g}")
        self.recipe, self.optimizer, self.warmup = recipe, optimizer, warmup
        self.made_by: dict[str, str] = {}
        self.restart_from: Path | None = None  # a checkpoint whose optimizer's state is not to be taken over
        self._sums: dict[str, Tensor] = {}  # of an evaluation, over the batches of this device
        self._step_sums: dict[str, Tensor] = {}  # of an optimizer step likewise
        self._summed_step = -1

    @property
    def base_model(self) -> str:
        """Return the name of the base model."""
        return self.recipe.policy_base

    @property
    def base_models(self) -> dict[str, str]:
        """Return what the base model is called in the manifest -> the model."""
        return {"base model": self.base_model}

    @property
    def inputs(self) -> dict[str, tuple[Path, str]]:
        """Return the adapters that the stage reads: name -> (path, command that makes it)."""
        return {}

    @property
    def recipe_keys(self) -> dict[str, Any]:
        """Return what of the recipe may change the stage's results."""
        return self.recipe.keys()

    @property
    def backwards_per_batch(self) -> int:
        """Return how many backward passes a micro-batch takes."""
        return 1

    def setup(self, stage: str) -> None:
        """Share the micro-batches of an optimizer step out to the devices."""
        if stage != "fit":
            return
        trainer, loader = self.trainer, self._train_loader
        loader.fills_steps = trainer.strategy.handles_gradient_accumulation  # it steps after a fixed number of them
        accumulate(trainer, loader.micro_batches)
        if loader.step_rows < trainer.world_size:
            log.warning(
                "an optimizer step has %d rows for %d devices, of which some have nothing to do "
                "(data.micro_batch_size, trainer.accumulate_grad_batches)",
                loader.step_rows,
                trainer.world_size,
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = self.optimizer(parameters)
        schedule = self.recipe.part(cosine_with_warmup)(self.total_steps, self.warmup)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "lr"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[MADE_BY] = self.made_by

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.restart_from:
            checkpoint["optimizer_states"] = []

    @property
    def total_steps(self) -> int:
        """Return the optimizer steps of the whole fit, counted from the batch plan."""
        if self.trainer.max_epochs == -1:  # as many epochs as the steps take
            return self.trainer.max_steps
        steps = self._train_loader.steps_per_epoch * (self.trainer.max_epochs or 1)
        return min(steps, self.trainer.max_steps) if self.trainer.max_steps > 0 else steps

    @property
    def micro_batches(self) -> int:
        """Return the micro-batches of a whole optimizer step on each device."""
        return self._train_loader.micro_batches

    @property
    def batches_per_epoch(self) -> int:
        """Return the micro-batches of an epoch on each device."""
        return len(self._train_loader)

    @property
    def _train_loader(self) -> StepLoader[Any, Any]:
        loader: StepLoader[Any, Any] = self.trainer.datamodule.loaders["train"]  # type: ignore[attr-defined]
        return loader

    def share_of_step(self, batch: FitBatch, total: int) -> float:
        """Return what a micro-batch's summed loss is multiplied by to be its part in the mean over `total` of a step.

        The trainer divides by its accumulation and averages over devices.
        """
        if batch.spare:
            return 0.0
        trainer = self.trainer
        divided = trainer.accumulate_grad_batches * trainer.world_size
        if trainer.strategy.handles_gradient_accumulation:  # DeepSpeed divides by it once more
            divided *= trainer.accumulate_grad_batches
        return divided / total

    def log_means(self, sums: Mapping[str, Tensor], count: int, batch: FitBatch, prefix: str) -> None:
        """Log means over all devices: of an optimizer step so far now, of an evaluation when all its batches are done.

        Args:
            sums: name -> sum over what the mean is of, a scalar.
            count: how many they are of.
            batch: a spare one counts nothing.
            prefix: what the names begin with; none in training.
        """
        found = {name: value.detach().float() for name, value in sums.items()}
        found["count"] = torch.tensor(float(count), device=self.device)
        if batch.spare:
            found = {name: torch.zeros_like(value) for name, value in found.items()}
        if prefix:
            self._sums = _added(self._sums, found)
            return
        if self.trainer.global_step != self._summed_step:
            self._summed_step, self._step_sums = self.trainer.global_step, {}
        self._step_sums = _added(self._step_sums, found)  # the trainer keeps what the last micro-batch logs
        self._log_over_devices(self._step_sums, prefix)

    def _log_over_devices(self, sums: dict[str, Tensor], prefix: str) -> None:
        reduced = self.trainer.strategy.reduce(torch.stack(list(sums.values())), reduce_op="sum")
        *totals, count = reduced.unbind()
        if count > 0:
            self.log_dict({prefix + name: total / count for name, total in zip(sums, totals, strict=False)})

    def on_validation_epoch_end(self) -> None:
        self._log_over_devices(self._sums, "val/")
        self._sums = {}

    def on_test_epoch_end(self) -> None:
        self._log_over_devices(self._sums, "test/")
        self._sums = {}

    def take_over(self, state: Mapping[str, Tensor]) -> None:
        """Make trained weights, by their names in checkpoints, those of the module."""
        self.load_state_dict(state, strict=False)

    @abstractmethod
    def write(self, folder: Path) -> list[Path]:
        """Write what the fit made into its stage's folder; return the files and folders."""


def _added(sums: Mapping[str, Tensor], more: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: sums.get(name, 0.0) + value for name, value in more.items()}
