"""Learning-rate schedule over optimizer steps."""

import math
from collections.abc import Callable


def cosine_with_warmup(total_steps: int, warmup: float) -> Callable[[int], float]:
    """Return the factor of the learning rate at an optimizer step: linear warm-up, then a half cosine to zero.

    Args:
        total_steps: optimizer steps of the whole fit, from the batch plan.
        warmup: share of the steps that warm up; the first step already has a rate above zero.
    """
    warmup_steps = math.ceil(total_steps * warmup)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        return half_cosine(step, total_steps, warmup_steps)

    return factor


def half_cosine(step: int, total_steps: int, warmup_steps: float) -> float:
    """Return the factor at a step after the warm-up: from 1 to 0 over what is left of the fit."""
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
