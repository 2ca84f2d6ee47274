"""The parser of the stages that run through the trainer: options of the trainer, the module, the data and the recipe.

Modules and data are named by import path in the registry. The trainer's and the recipe's options, which all stages
share, are made once in a process, and so is the parser of each stage.
"""

import copy
from functools import cache
from typing import Literal

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from sipo_pl.recipe.components import import_class
from sipo_pl.recipe.config.command_parser import STRICT, ShippedConfigFile, add_overwrite, add_recipe, add_stop_after
from sipo_pl.recipe.saving import Saving
from sipo_pl.registry import TRAINER_STAGES
from sipo_pl.registry.stage import EVALUATION_VERBS, Stage

TRAINER_DEFAULTS = {
    # the trainer's own bar and summary would stand beside ours
    "trainer.enable_progress_bar": False,
    "trainer.enable_model_summary": False,
    "trainer.logger": True,
    "trainer.num_sanity_val_steps": 0,  # would validate before the reference is there
}
GIVEN_BY_STAGE = {"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders"}
NOT_OFFERED = {"weights_only", "return_predictions"}


def trainer_parser(verb: str, stage: str) -> LightningArgumentParser:
    """Return a parser of a stage's options, which the caller may change.

    Args:
        verb: fit, validate, test or predict.
        stage: a name of `TRAINER_STAGES`.
    """
    # the parser of a stage holds nothing of what it parsed, but its instantiators belong to one recipe
    return copy.deepcopy(_of_stage(verb, stage))


@cache
def _shared() -> LightningArgumentParser:
    """Return a parser of what all stages have."""
    parser = LightningArgumentParser(prog="sipo_pl", dump_header=["resolved config of a sipo_pl stage"], **STRICT)
    help_text = "YAML file, or the bare name of a shipped one; a later one overrides"
    parser.add_argument("-c", "--config", action=ShippedConfigFile, help=help_text)
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.set_defaults(TRAINER_DEFAULTS)
    add_recipe(parser)
    add_overwrite(parser)
    return parser


@cache
def _of_stage(verb: str, stage: str) -> LightningArgumentParser:
    known = TRAINER_STAGES[stage]
    parser = copy.deepcopy(_shared())
    parser.prog = f"sipo_pl {verb}"
    for group, path in (("model", known.target), ("data", known.data)):
        parser.add_class_arguments(import_class(path), group, fail_untyped=False, sub_configs=True, skip={"recipe"})
    parser.add_argument("--stage", type=str, default=stage, help="stage that this config belongs to")
    if verb not in EVALUATION_VERBS:
        add_stop_after(parser)
    if known.verb == "fit":
        parser.add_class_arguments(Saving, "saving")
        help_text = "go on from the newest checkpoint's weights and place, with an optimizer that begins anew"
        parser.add_argument("--restart_optimizer", action="store_true", help=help_text)
    _add_own(parser, known)
    parser.add_method_arguments(Trainer, verb, skip=GIVEN_BY_STAGE | NOT_OFFERED)
    return parser


def _add_own(parser: LightningArgumentParser, known: Stage) -> None:
    """Add the options that a stage's command is given beside its config."""
    if "objective" in known.options:
        parser.add_argument("--objective", type=str, required=True, help="objective whose policy is trained")
        parser.link_arguments("objective", "model.objective")
        parser.link_arguments("objective", "data.objective")
    if "weights" in known.options:
        help_text = "point of the simplex, such as 0.2,0.8 in the objectives' order, or helpful=0.2,harmless=0.8"
        parser.add_argument("--weights", type=str, required=True, help=help_text)
        parser.link_arguments("weights", "model.weights")
    if "policies" in known.options:
        help_text = "policies of the first alignment (align) or of the re-alignment (realign)"
        parser.add_argument("--policies", type=Literal["align", "realign"], default="align", help=help_text)
        parser.link_arguments("policies", "model.policies")
