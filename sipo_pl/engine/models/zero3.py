"""Weights of which each device holds a part alone, as DeepSpeed's ZeRO-3 divides them; a layer gathers its own."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch.nn import Parameter

from sipo_pl.interop.deepspeed import is_partitioned


def is_divided(parameters: Iterable[Parameter]) -> bool:
    """Return whether each device holds a part of the parameters alone.

    The devices then gather a layer's weights together each time it is called, so that all must call the same layers in
    the same order.
    """
    return any(is_partitioned(parameter) for parameter in parameters)


def gathered(parameters: Iterable[Parameter]) -> AbstractContextManager[Any]:
    """Within the block, which all devices enter, the parameters are whole.

    A layer that is called there would divide its own again, where its `forward` would not.
    """
    divided = list(parameters)
    if not is_divided(divided):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(divided)
