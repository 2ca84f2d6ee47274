"""The scores that the released greedy decoding sums over tokens."""

from torch import Tensor


def raw_logits(logits: Tensor) -> Tensor:
    """Return the logits as they are, in place of log-probabilities."""
    return logits
