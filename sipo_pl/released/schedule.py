"""The learning-rate schedule whose warm-up is a number of steps."""

from collections.abc import Callable

from sipo_pl.training.schedule import half_cosine


def cosine_with_warmup_steps(total_steps: int, warmup_steps: float) -> Callable[[int], float]:
    """Return the factor as transformers' cosine schedule has it.

    Args:
        total_steps: optimizer steps of the whole fit, from the batch plan.
        warmup_steps: a count, not a share, and not rounded: at 0.1 the first step has a rate of zero and no other step
            warms up.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return step / max(1.0, warmup_steps)
        return half_cosine(step, total_steps, warmup_steps)

    return factor
