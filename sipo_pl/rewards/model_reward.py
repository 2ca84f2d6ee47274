"""Outputs of reward models as rewards: objectives with the same model load it once and run it once over their texts."""

import gc
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import torch

from sipo_pl.engine.models.files import checkpoint_folder
from sipo_pl.messages.errors import SettingError
from sipo_pl.rewards.base import Reward
from sipo_pl.rewards.scorer import Scorer, ScorerSettings
from sipo_pl.storage.hashes import content_hash
from sipo_pl.storage.model_hashes import weights_hash
from sipo_pl.text.prompt import TextRow

_loaded: WeakValueDictionary[tuple[type[Scorer], ScorerSettings], Scorer] = WeakValueDictionary()


def shared(kind: type[Scorer], settings: ScorerSettings) -> Scorer:
    """Return the scorer of these settings: the one that another reward holds, or a new one."""
    return _loaded.setdefault((kind, settings), kind(settings))


def model_hash(name: str) -> str:
    """Return the content hash of a model's folder, or of a hub name."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return content_hash(name)
    return weights_hash(str(checkpoint_folder(str(folder), weights=False)))


class ModelReward(Reward):
    """One output of a reward model, scaled and shifted: scale * output + shift.

    Args:
        kind: class of the scorer
        settings: what the model is loaded with
        scale: factor of the output; negative where less is better
        shift: added after that
    """

    environment_keys: ClassVar[tuple[str, ...]] = ("device", "batch_tokens")

    def __init__(self, kind: type[Scorer], settings: ScorerSettings, scale: float = 1.0, shift: float = 0.0) -> None:
        for key, value in (("scale", scale), ("shift", shift)):
            if not isinstance(value, int | float):
                raise SettingError(key, f"expected a number, found {value!r}")
        self.kind, self.settings, self.scale, self.shift = kind, settings, scale, shift
        self._scorer: Scorer | None = None

    @property
    def hashes(self) -> Mapping[str, str]:
        template = {"template": content_hash(self.settings.template)} if self.settings.template else {}
        return {"model": model_hash(self.settings.model), **template}

    @property
    def scorer(self) -> Scorer:
        """Return the scorer, which rewards of equal settings share."""
        if self._scorer is None:
            self._scorer = shared(self.kind, self.settings)
        return self._scorer

    @abstractmethod
    def output_index(self, config: Any) -> int:
        """Return which output is the reward, checked against the model's config."""

    def check(self) -> None:
        self.scorer.check()
        self.output_index(self.scorer.config)

    def load(self) -> None:
        self.check()
        self.scorer.load()

    def free(self) -> None:
        self._scorer = None  # the last one to let go frees the model
        gc.collect()  # its modules may refer to each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def score(self, rows: Sequence[TextRow]) -> list[float]:
        if not rows:
            return []
        values = self.scorer.outputs(rows)[:, self.output_index(self.scorer.config)].tolist()
        return [self.scale * value + self.shift for value in values]
