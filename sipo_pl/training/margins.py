"""Scores of responses under the objectives that are not trained; their differences over a pair are MODPO's margins."""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import torch

from sipo_pl.data.loader import RowKey
from sipo_pl.engine.lora.adapters import Factors, read_adapter
from sipo_pl.messages.errors import SettingError, UsageError, nearest
from sipo_pl.method.divergences import Divergence
from sipo_pl.method.losses import LossContext, implicit_reward
from sipo_pl.recipe.components import instantiate
from sipo_pl.recipe.recipe import Component, Objective, Recipe
from sipo_pl.rewards.base import Reward
from sipo_pl.rewards.model_reward import ModelReward
from sipo_pl.rewards.numbers import measured
from sipo_pl.storage.unicode_names import composed
from sipo_pl.text.prompt import TextRow

LogpsUnder = Callable[[Path | None], Mapping[RowKey, float]]


class Margins:
    """What scores the objectives beside the trained one: a reward that a config names, else the aligned policy.

    Args:
        recipe: names objectives and adapters.
        trained: the objective that is trained; its score is zero.
        rewards: objective -> class_path and init_args of a reward in place of its policy; that of the trained one is
            not made, so that one config can serve all objectives.

    Raises:
        UsageError: a reward for no objective, or one that cannot be made.
    """

    def __init__(self, recipe: Recipe, trained: Objective, rewards: Mapping[str, Component]) -> None:
        rewards = {composed(name): component for name, component in rewards.items()}
        self.now = recipe.date
        for name in rewards:
            if name not in recipe.objective_names:
                raise UsageError(f"model.margins: no objective {name!r}{nearest(name, recipe.objective_names)}")
        others = {one.name: one for one in recipe.objectives if one.name != trained.name}
        self.rewards: dict[str, Reward] = {
            name: instantiate(component, Reward, f"model.margins.{name}")  # type: ignore[type-abstract]
            for name, component in rewards.items()
            if name in others
        }
        layout, self.base_model = recipe.layout, recipe.base_of(trained, "align")
        self.folders = {name: layout.adapter("align", one) for name, one in others.items() if name not in rewards}

    @property
    def inputs(self) -> dict[str, tuple[Path, str]]:
        """Return the adapters that are read: name -> (path, command that makes it)."""
        return {
            f"margin of {name}": (folder, f"sipo_pl fit --config align.yaml --objective {name}")
            for name, folder in self.folders.items()
        }

    @property
    def reward_hashes(self) -> dict[str, dict[str, str]]:
        """Return the content hashes of the files that rewards read, which are part of a fit's keys."""
        return {name: dict(reward.hashes) for name, reward in self.rewards.items() if reward.hashes}

    def adapters(self) -> dict[Path, Factors]:
        """Read the policies' adapters, by folder."""
        return {folder: read_adapter(folder, self.base_model).factors for folder in self.folders.values()}

    def scores(
        self, texts: Mapping[RowKey, TextRow], logps_under: LogpsUnder, context: LossContext
    ) -> dict[RowKey, list[float]]:
        """Score rows under every objective.

        Args:
            texts: the rows, by what identifies them.
            logps_under: returns log-probabilities of the rows under base model and an adapter, or the base alone.
            context: names the objectives, whose order the scores follow, and the reward that a policy implies.

        Raises:
            UserError: a reward that is no finite number.
        """
        columns: dict[str, Mapping[RowKey, float]] = {}
        if self.folders:
            base = logps_under(None)
            for name, folder in self.folders.items():
                columns[name] = _implied(logps_under(folder), base, context.beta, context.divergence)
        for name, reward in self.rewards.items():
            columns[name] = dict(zip(texts, _measure(name, reward, list(texts.values()), self.now), strict=True))
        columns[context.objectives[context.trained]] = dict.fromkeys(texts, 0.0)
        return {key: [columns[name][key] for name in context.objectives] for key in texts}


def _implied(
    policy: Mapping[RowKey, float], base: Mapping[RowKey, float], beta: float, divergence: Divergence
) -> dict[RowKey, float]:
    keys = list(policy)
    logps, reference = torch.tensor([policy[key] for key in keys]), torch.tensor([base[key] for key in keys])
    return dict(zip(keys, implicit_reward(logps, reference, beta, divergence).tolist(), strict=True))


def _measure(name: str, reward: Reward, rows: list[TextRow], now: datetime) -> list[float]:
    if isinstance(reward, ModelReward):
        reward.scorer.now = now
    try:
        reward.check()
    except SettingError as error:
        raise SettingError(f"model.margins.{name}.init_args.{error.key}", error.problem) from None
    reward.load()
    values = measured(reward, rows, f"model.margins.{name}")
    reward.free()
    return values
