"""The one protocol of rewards: rows in, one number per row out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from sipo_pl.text.prompt import TextRow


class Reward(ABC):
    """Measures responses; larger is better for the objective that names it.

    Subclasses are named by `class_path` in a recipe. Constructors take plain values and stay cheap; whatever is heavy,
    such as a model, is loaded in `load`. A wrong argument is a `SettingError` that names it.
    """

    environment_keys: ClassVar[tuple[str, ...]] = ()  # arguments that change speed or place, never a score

    @property
    def hashes(self) -> Mapping[str, str]:
        """Return content hashes of the files that scores depend on, such as a model's weights."""
        return {}

    def check(self) -> None:  # noqa: B027 (most rewards have nothing to load)
        """Raise the errors that show without heavy loading; called for all rewards before any is loaded."""

    def load(self) -> None:  # noqa: B027
        """Load what is heavy; called once, before the first `score`."""

    def free(self) -> None:  # noqa: B027
        """Let go of what was loaded; called after the last `score`."""

    @abstractmethod
    def score(self, rows: Sequence[TextRow]) -> list[float]:
        """Return one finite number per row, in order."""
