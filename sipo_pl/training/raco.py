"""RACO: one policy at one weight, whose steps turn the objectives' gradients where they conflict."""

from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.optim import Optimizer

from sipo_pl.data.loader import PairBatch
from sipo_pl.messages.errors import UsageError
from sipo_pl.method.losses import RACO, raco_step
from sipo_pl.training.preference import pair_metrics
from sipo_pl.training.weighted import WeightedAlignment


class RACOAlignment(WeightedAlignment):
    """Aligns the base model at one weight with conflict-averse steps (arXiv 2602.02495), a backward pass an objective.

    Args:
        loss: the objectives' losses, and how far a step may turn
    """

    def __init__(self, *args: Any, loss: RACO = RACO(), **kwargs: Any) -> None:  # noqa: B008 (frozen)
        super().__init__(*args, loss=loss, **kwargs)
        self._gradients: Tensor | None = None  # (N, D), summed over the micro-batches of a step

    @property
    def backwards_per_batch(self) -> int:
        return len(self.context.objectives)

    def setup(self, stage: str) -> None:
        trainer: Trainer = self.trainer
        if trainer.world_size > 1:
            raise UsageError(
                f"trainer.devices: RACO's gradients are gathered on one device, found {trainer.world_size}"
            )
        super().setup(stage)

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        assert isinstance(self.loss, RACO)
        metrics: list[dict[str, Tensor]] = []
        total = torch.zeros((), device=self.device)
        for part in self.parts(batch):
            logps = self(part)
            output = self.loss(logps, self.context)
            metrics.append(pair_metrics(logps, output))
            total += output.losses.detach().sum()
            self._add_gradients(self.loss.by_objective(logps, self.context).sum(dim=0) / batch.step_pairs)
        self.report(metrics, batch, "")
        return total * self.share_of_step(batch, batch.step_pairs)

    def _add_gradients(self, losses: Tensor) -> None:
        """Add each objective's gradient to its own sum.

        Args:
            losses: each objective's part in the mean over the step's pairs, (N,).
        """
        parameters = self._trained()
        rows = []
        for index, loss in enumerate(losses):
            found = torch.autograd.grad(loss, parameters, retain_graph=index + 1 < len(losses))
            rows.append(torch.cat([gradient.flatten() for gradient in found]))
        gradients = torch.stack(rows)
        self._gradients = gradients if self._gradients is None else self._gradients + gradients

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the objectives' gradients are there, and what the optimizer takes is made of them."""

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Put the step's direction where the optimizer looks for the gradient, before it is clipped."""
        assert isinstance(self.loss, RACO)
        assert self._gradients is not None
        step = raco_step(self._gradients, self.loss.point(self.context), self.loss.c)
        parameters = self._trained()
        for parameter, part in zip(parameters, step.split([one.numel() for one in parameters]), strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)
        self._gradients = None

    def _trained(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]
