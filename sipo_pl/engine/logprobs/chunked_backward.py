"""A loss over several forwards, each of which is differentiated before the next one begins."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class Sum:
    """A sum of losses, and its gradient where gradients are wanted.

    Args:
        parameters: what requires a gradient.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = parameters
        self._total: Tensor | None = None
        self._gradients: list[Tensor | None] = [None] * len(parameters)

    @property
    def value(self) -> Tensor:
        """Return the sum, a scalar, whose backward pass gives the gradient."""
        assert self._total is not None
        return (
            _Carried.apply(self._total, self._gradients, *self.parameters) if torch.is_grad_enabled() else self._total
        )

    def add(self, loss: Tensor, gradients: Sequence[Tensor | None]) -> None:
        """Add a loss, a scalar, and its gradient to each of the parameters, None where it does not depend on one."""
        self._total = loss.detach() if self._total is None else self._total + loss.detach()
        for index, new in enumerate(gradients):
            if new is not None:
                old = self._gradients[index]
                self._gradients[index] = new if old is None else old + new


def add_losses(sums: Sequence[Sum], losses: Sequence[Tensor]) -> None:
    """Add to each sum the loss that a forward of all of them gave it, by one backward pass over its graph.

    Args:
        sums: of parameters of their own, on which the others' losses do not depend.
        losses: a scalar for each.
    """
    if not torch.is_grad_enabled():
        for one, loss in zip(sums, losses, strict=True):
            one.add(loss, ())
        return
    every = [parameter for one in sums for parameter in one.parameters]
    gradients = iter(torch.autograd.grad(losses, every, allow_unused=True))
    for one, loss in zip(sums, losses, strict=True):
        one.add(loss, [next(gradients) for _ in one.parameters])


def summed_over(
    losses: Sequence[Callable[[], Tensor]], parameters: Sequence[Tensor], *, at_once: bool = False
) -> Tensor:
    """Return the sum of losses, whose backward pass gives the sum of their gradients.

    What a forward keeps for its gradient is freed before the next one begins, so that memory is that of the largest.

    Args:
        losses: each computes a scalar.
        parameters: what requires a gradient.
        at_once: differentiate a single loss here too, and not in the backward pass, by when its states may be gone.
    """
    if len(losses) == 1 and not at_once:
        return losses[0]()
    total = Sum(parameters)
    for compute in losses:
        add_losses([total], [compute()])
    return total.value


class _Carried(torch.autograd.Function):
    """A number whose gradient to the parameters is known."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, gradients: list[Tensor | None], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return total.clone()

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *(None if one is None else one * factor for one in ctx.gradients))
