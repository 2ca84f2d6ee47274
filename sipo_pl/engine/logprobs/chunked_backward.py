"""A loss over several forwards, each of which is differentiated before the next one begins."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def summed_over(losses: Sequence[Callable[[], Tensor]], parameters: Sequence[Tensor]) -> Tensor:
    """Return the sum of losses, whose backward pass gives the sum of their gradients.

    What a forward keeps for its gradient is freed before the next one begins, so that memory is that of the largest.

    Args:
        losses: each computes a scalar; at least one.
        parameters: what requires a gradient.
    """
    if len(losses) == 1:
        return losses[0]()
    total: Tensor | None = None
    gradients: list[Tensor | None] = [None] * len(parameters)
    for compute in losses:
        loss = compute()
        if torch.is_grad_enabled():
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
            gradients = [_added(old, new) for old, new in zip(gradients, found, strict=True)]
        total = loss.detach() if total is None else total + loss.detach()
    assert total is not None
    return _Carried.apply(total, gradients, *parameters) if torch.is_grad_enabled() else total


def _added(old: Tensor | None, new: Tensor | None) -> Tensor | None:
    if old is None or new is None:
        return new if old is None else old
    return old + new


class _Carried(torch.autograd.Function):
    """A number whose gradient to the parameters is known."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, gradients: list[Tensor | None], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return total.clone()

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *(None if one is None else one * factor for one in ctx.gradients))
