"""Several rewards that measure the same texts: rewards of one model share its load and its pass over the texts."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sipo_pl.engine.memory_budget import MemoryBudget
from sipo_pl.messages.errors import SettingError, UserError
from sipo_pl.messages.progress import Progress
from sipo_pl.recipe.components import instantiate
from sipo_pl.recipe.recipe import Component, Recipe
from sipo_pl.rewards.base import Reward
from sipo_pl.rewards.model_reward import ModelReward
from sipo_pl.rewards.numbers import measured
from sipo_pl.storage.hashes import content_hash
from sipo_pl.storage.json_lines import read_json, require_object, write_json
from sipo_pl.text.prompt import TextRow

log = logging.getLogger("sipo_pl")

RewardScores = dict[str, list[float]]  # name of a reward -> its number for each text
CHUNK = 256  # texts that are scored at once, of which a crash costs at most so many


class RewardPanel:
    """The rewards of some names.

    Args:
        components: name -> class_path and init_args
        key_of: name -> the config key of its component, for errors
        now: what chat templates of reward models that show the date take for it; the date of today where not given

    Raises:
        UsageError: no such class, or arguments that it does not take.
    """

    def __init__(
        self, components: Mapping[str, Component], key_of: Callable[[str], str], now: datetime | None = None
    ) -> None:
        self.components, self.key_of, self.now = dict(components), key_of, now
        self.rewards: dict[str, Reward] = {
            name: instantiate(component, Reward, key_of(name))  # type: ignore[type-abstract]
            for name, component in components.items()
        }

    @property
    def names(self) -> list[str]:
        return list(self.rewards)

    def keys(self, name: str) -> dict[str, Any]:
        """Return what may change a reward's scores: class, arguments, files."""
        reward, keys = self.rewards[name], dict(self.components[name])
        if arguments := keys.get("init_args"):
            keys["init_args"] = {k: value for k, value in arguments.items() if k not in reward.environment_keys}
        return {**keys, **({"hashes": dict(reward.hashes)} if reward.hashes else {})}

    def load(self, memory_budget: MemoryBudget | None = None) -> None:
        """Check all rewards, then load them.

        Args:
            memory_budget: what of them fits into a GPU's memory at once.

        Raises:
            SettingError: a wrong argument, with its key.
        """
        for name, reward in self.rewards.items():
            if self.now is not None and isinstance(reward, ModelReward):
                reward.scorer.now = self.now
            try:
                reward.check()
            except SettingError as error:
                raise SettingError(f"{self.key_of(name)}.init_args.{error.key}", error.problem) from None
        for reward in self.rewards.values():
            if memory_budget is not None and isinstance(reward, ModelReward):
                reward.scorer.memory_budget = memory_budget
            reward.load()

    def free(self) -> None:
        """Let go of what was loaded."""
        for reward in self.rewards.values():
            reward.free()

    def score(self, rows: Sequence[TextRow]) -> dict[str, list[float]]:
        """Return each reward's numbers of the rows, in order.

        Raises:
            UserError: a reward that fails, or is no finite number.
        """
        return {name: measured(reward, rows, self.key_of(name)) for name, reward in self.rewards.items()}

    def score_all(self, rows: Sequence[TextRow], cache: Path, label: str) -> dict[str, list[float]]:
        """Score many texts, chunk by chunk, each kept in a file, so that what a killed run scored is not lost.

        Args:
            rows: any number of texts.
            cache: folder of the files, named for what they hold.
            label: the stage, for progress.

        Raises:
            UserError: a reward that is no finite number.
        """
        identity = {name: self.keys(name) for name in self.names}
        chunks = [list(rows[start : start + CHUNK]) for start in range(0, len(rows), CHUNK)]
        files = [cache / f"{content_hash([identity, chunk])[:32]}.json" for chunk in chunks]
        known = {file: scores for file in files if (scores := _read_scores(file)) is not None}
        if missing := [(file, chunk) for file, chunk in zip(files, chunks, strict=True) if file not in known]:
            self.load()
            with Progress(label, sum(len(chunk) for _, chunk in missing), "texts") as progress:
                for file, chunk in missing:
                    known[file] = self.score(chunk)
                    write_json(file, {"scores": known[file], "hash": content_hash(known[file])})
                    progress.advance(len(chunk))
            self.free()
        return {name: [value for file in files for value in known[file][name]] for name in self.names}


def _read_scores(file: Path) -> RewardScores | None:
    """Return the scores that a file keeps; None where there is none, or a damaged one, which is said and removed."""
    if not file.exists():
        return None
    try:
        kept = require_object(read_json(file), str(file))
        scores: RewardScores | None = kept.get("scores")
        if scores is not None and kept.get("hash") == content_hash(scores):
            return scores
        problem = f"{file}: damaged, or of an older version that kept no hash"
    except UserError as error:
        problem = str(error)
    log.warning("%s; removed, and its texts are scored anew", problem)
    file.unlink(missing_ok=True)
    return None


def objective_rewards(recipe: Recipe) -> RewardPanel:
    """Return the rewards that measure objectives, of those that name one."""
    components = {one.name: one.reward for one in recipe.objectives if one.reward}
    return RewardPanel(components, lambda name: f"objectives.{name}.reward", recipe.date)


def label_rewards(recipe: Recipe) -> RewardPanel:
    """Return the rewards that label the responses of raw data, of those objectives that name one."""
    components = {one.name: one.label for one in recipe.objectives if one.label}
    return RewardPanel(components, lambda name: f"objectives.{name}.label", recipe.date)
