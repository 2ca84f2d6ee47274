"""A loss over several forwards, each of which is differentiated before the next one begins."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def summed_over(losses: Sequence[Callable[[], Tensor]], parameters: Sequence[Tensor]) -> Tensor:
    """Return the sum of losses, whose backward pass gives the sum of their gradients.

    What a forward keeps for its gradient is freed before the next one begins, so that memory is that of the largest.

    Args:
        losses: each computes a scalar.
        parameters: what requires a gradient.
    """
    if len(losses) == 1 or not torch.is_grad_enabled():
        return torch.stack([loss() for loss in losses]).sum()
    total = torch.zeros((), device=parameters[0].device)
    gradients: list[Tensor | None] = [None] * len(parameters)
    for compute in losses:
        loss = compute()
        total = total + loss.detach()
        for index, new in enumerate(torch.autograd.grad(loss, parameters, allow_unused=True)):
            if new is not None:
                old = gradients[index]
                gradients[index] = new if old is None else old + new
    return _Carried.apply(total, gradients, *parameters)


class _Carried(torch.autograd.Function):
    """A number whose gradient to the parameters is known."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, gradients: list[Tensor | None], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return total.clone()

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *(None if one is None else one * factor for one in ctx.gradients))
