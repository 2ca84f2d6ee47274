"""The stages: which command runs each, and the trainer's module and data. Plain names, quick to import."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrainerStage:
    """A stage that runs through the trainer.

    Args:
        verb: fit or predict
        module: import path of its LightningModule
        data: import path of its LightningDataModule
        options: what its command is given beside the config: objective, weights, policies
        named_for: the option that names its folder, as there is a stage for each of its values
    """

    verb: str
    module: str
    data: str
    options: tuple[str, ...] = ()
    named_for: str | None = None

    def folder_name(self, stage: str, settings: Mapping[str, Any]) -> str:
        """Return the name of the stage's folder, such as ``align-helpful``, ``evaluate-realign`` or ``raco-0.2,0.8``.

        Args:
            stage: its name.
            settings: values of its options.
        """
        return f"{stage}-{settings[self.named_for]}" if self.named_for else stage


_PAIRS = "sipo_pl.data.datamodules.preference_data.PreferenceData"
_UNITS = "sipo_pl.data.datamodules.unit_data.UnitData"
_OBJECTIVE: dict[str, Any] = {"options": ("objective",), "named_for": "objective"}
_WEIGHTS: dict[str, Any] = {"options": ("objective", "weights"), "named_for": "weights"}
_POLICIES: dict[str, Any] = {"options": ("policies",), "named_for": "policies"}

TRAINER_STAGES = {
    "sft": TrainerStage("fit", "sipo_pl.training.sft.SFT", "sipo_pl.data.datamodules.sft_data.SFTData"),
    "align": TrainerStage("fit", "sipo_pl.training.dpo.DPOAlignment", _PAIRS, **_OBJECTIVE),
    "realign": TrainerStage("fit", "sipo_pl.training.realign.Realignment", _PAIRS, **_OBJECTIVE),
    "sample": TrainerStage("predict", "sipo_pl.prediction.sample.Sample", _UNITS),
    "review": TrainerStage("predict", "sipo_pl.prediction.review.Review", _UNITS),
    "rewrite": TrainerStage("predict", "sipo_pl.prediction.rewrite.Rewrite", _UNITS),
    "score": TrainerStage("predict", "sipo_pl.prediction.score.Score", _UNITS),
    "evaluate": TrainerStage("predict", "sipo_pl.prediction.sample.Sample", _UNITS, **_POLICIES),
    "measure": TrainerStage("predict", "sipo_pl.prediction.measure.Measure", _UNITS, **_POLICIES),
    "consistency": TrainerStage("fit", "sipo_pl.training.dpo.DPOAlignment", _PAIRS, options=("objective",)),
    "align_long": TrainerStage("fit", "sipo_pl.training.dpo.DPOAlignment", _PAIRS, **_OBJECTIVE),
    "modpo": TrainerStage("fit", "sipo_pl.training.weighted.WeightedAlignment", _PAIRS, **_WEIGHTS),
    "dpo_lw": TrainerStage("fit", "sipo_pl.training.weighted.WeightedAlignment", _PAIRS, **_WEIGHTS),
    "raco": TrainerStage("fit", "sipo_pl.training.raco.RACOAlignment", _PAIRS, **_WEIGHTS),
    "reward_model": TrainerStage(
        "fit", "sipo_pl.training.reward_model.RewardModel", "sipo_pl.data.datamodules.scored_data.ScoredData"
    ),
    "answer": TrainerStage("predict", "sipo_pl.prediction.answer.Answer", _UNITS),
    "judge": TrainerStage("predict", "sipo_pl.prediction.judge.Judge", _UNITS),
}
SMALL_STAGES = ("prepare", "calibrate", "combine", "filter", "report", "compare")  # each a command of its own name
DEFAULT_STAGE = {"fit": "align", "validate": "align", "test": "align", "predict": "sample"}
EVALUATION_VERBS = ("validate", "test")  # of a stage whose verb is fit


def verbs_of(stage: str) -> tuple[str, ...]:
    """Return the commands that run a stage, the ordinary one first."""
    if stage in SMALL_STAGES:
        return (stage,)
    verb = TRAINER_STAGES[stage].verb
    return (verb, *EVALUATION_VERBS) if verb == "fit" else (verb,)


def command_of(stage: str, objective: str | None = None, round: int = 1) -> str:
    """Return the command that makes a stage's folder.

    Args:
        stage: name of the folder without the objective, such as align, sample or evaluate-align.
        objective: whose folder, of a stage that each objective has.
        round: of which round.
    """
    config, _, policies = stage.partition("-")
    words = ["sipo_pl", verbs_of(config)[0], "--config", f"{config}.yaml"]
    words += ["--objective", objective] if objective else []
    words += ["--policies", policies] if policies else []
    words += ["--recipe.round", str(round)] if round > 1 else []
    return " ".join(words)
