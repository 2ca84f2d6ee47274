"""What a divergence is: the implicit reward that it gives, and the fusion rule that belongs to it.

One setting of a recipe serves loss, filter and fusion alike, because they are one function seen from three sides
(rewards: arXiv 2309.16240; fusion rules: arXiv 2406.18853). Everywhere x = log pi(y|x) - log ref(y|x), summed over
response tokens.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

LARGEST_EXPONENT = 80.0  # exp of it is finite in float32, and so is its sum over a batch


class Divergence(ABC):
    """What a recipe names by `divergence: {class_path, init_args}`.

    Attributes:
        needs_reference: whether fusion needs the scores of the policies' common reference.
        needs_history: whether the next token depends on how likely each policy finds what has been said.
        is_linear: whether the fused scores are the weighted sum of the scores.
    """

    needs_reference: ClassVar[bool] = False
    needs_history: ClassVar[bool] = True
    is_linear: ClassVar[bool] = False

    @abstractmethod
    def reward(self, log_ratios: Tensor, beta: float) -> Tensor:
        """Return the implicit reward of responses, of the shape of `log_ratios`; it increases with the log-ratio."""

    @abstractmethod
    def fuse(self, scores: Tensor, weights: Tensor, reference: Tensor | None) -> Tensor:
        """Return the fused scores of the next tokens, of which a larger one is chosen first.

        Args:
            scores: (K, R, V), cumulative log-probabilities of what was said and the next token under each policy,
                float32; those of the next token alone where `needs_history` is false.
            weights: (R, K), on the simplex.
            reference: (R, V), the same under the reference; given where `needs_reference` is true.

        Returns:
            (R, V), on the scale of `scores`: larger by c where all scores and the reference are.
        """


def bounded_exp(values: Tensor) -> Tensor:
    """Return exp of the values, bounded so that it stays finite."""
    return torch.exp(values.clamp(max=LARGEST_EXPONENT))
