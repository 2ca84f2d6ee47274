"""The one protocol of rewards: rows in, one number per row out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple


class TextRow(NamedTuple):
    """A prompt and a response to be measured.

    Args:
        prompt: the raw prompt, without template
        response: the response as decoded, without special tokens
    """

    prompt: str
    response: str


class Reward(ABC):
    """Measures responses; larger is better for the objective that names it.

    Subclasses are named by `class_path` in a recipe. Constructors take plain values and stay cheap; whatever is heavy,
    such as a model, is loaded in `load`.
    """

    def load(self) -> None:  # noqa: B027 (most rewards have nothing to load)
        """Load what is heavy; called once, before the first `score`."""

    @abstractmethod
    def score(self, rows: Sequence[TextRow]) -> list[float]:
        """Return one finite number per row, in order."""
