"""What every fit has: a model of the recipe, an optimizer, its schedule, and what it leaves in its stage's folder."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler

from sipo_pl.data.step_loader import StepLoader
from sipo_pl.modules.schedule import cosine_with_warmup, cosine_with_warmup_steps
from sipo_pl.recipe import Recipe


class FitBatch(Protocol):
    """What every micro-batch of a fit has."""

    @property
    def row_ids(self) -> list[str]: ...

    @property
    def token_count(self) -> int: ...


class Fit(LightningModule):
    """Trains a model.

    Args:
        recipe: what the stages share
        optimizer: optimizer of what is trained
        warmup: share of the optimizer steps that warm up, before a cosine to zero
    """

    def __init__(self, recipe: Recipe, optimizer: OptimizerCallable, warmup: float) -> None:
        super().__init__()
        self.recipe, self.optimizer, self.warmup = recipe, optimizer, warmup

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
        """Return the inputs of the stage beside its data: name -> (path, command that makes it)."""
        return self.recipe.base_inputs

    @property
    def recipe_keys(self) -> dict[str, Any]:
        """Return what of the recipe may change the stage's results."""
        return self.recipe.keys()

    @property
    def backwards_per_batch(self) -> int:
        """Return how many backward passes a micro-batch takes."""
        return 1

    def configure_optimizers(self) -> OptimizerLRScheduler:
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = self.optimizer(parameters)
        by_count = self.recipe.compat.step_count_warmup
        schedule = (cosine_with_warmup_steps if by_count else cosine_with_warmup)(self.total_steps, self.warmup)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "lr"}}

    @property
    def total_steps(self) -> int:
        """Return the optimizer steps of the whole fit, counted from the batch plan."""
        loader: StepLoader[Any, Any] = self.trainer.datamodule.loaders["train"]  # type: ignore[attr-defined]
        steps = loader.steps_per_epoch * (self.trainer.max_epochs or 1)
        return min(steps, self.trainer.max_steps) if self.trainer.max_steps > 0 else steps

    @abstractmethod
    def write(self, folder: Path) -> list[Path]:
        """Write what the fit made into its stage's folder; return the files and folders."""
