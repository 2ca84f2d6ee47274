"""`sipo_pl fit|validate|test|predict`: LightningCLI over the stage that a config names."""

import argparse
import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any, Literal

import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

from sipo_pl.engine.models.quantization import check_four_bits
from sipo_pl.messages import logs
from sipo_pl.messages.errors import UsageError
from sipo_pl.method.weights import parse_point, point_name
from sipo_pl.recipe.components import import_class
from sipo_pl.recipe.config.command_parser import (
    STRICT,
    ShippedConfigFile,
    add_overwrite,
    add_recipe,
    add_stop_after,
    make_recipe,
)
from sipo_pl.recipe.config.errors import explain, find_place
from sipo_pl.recipe.config.keys import check_config_files, check_stage, parser_options
from sipo_pl.recipe.recipe import is_of_round
from sipo_pl.registry import DEFAULT_STAGE, EVALUATION_VERBS, TRAINER_STAGES, TrainerStage
from sipo_pl.run.stage_folder import Saving, StageRun
from sipo_pl.storage.stopping import Stopping
from sipo_pl.training import zero
from sipo_pl.training.checkpoint_io import AtomicCheckpointIO

log = logging.getLogger("sipo_pl")


class Checked(Exception):
    """A command was checked and found right."""


class StageCLI(LightningCLI):
    """LightningCLI for one stage: concrete classes, one verb, the recipe beside trainer, model and data.

    Args:
        verb: fit, validate, test or predict.
        stage_name: a key of `TRAINER_STAGES`.
        arguments: the options, which are those of `sys.argv`.
        held: what the stage holds while it runs, to be closed by the caller.
        only_check: raise `Checked` when module and data are made, and before anything is touched.
    """

    def __init__(
        self,
        verb: str,
        stage_name: str,
        arguments: Sequence[str],
        held: ExitStack,
        *,
        only_check: bool = False,
    ) -> None:
        self.verb, self.stage_name, self.arguments = verb, stage_name, arguments
        self.held, self.only_check = held, only_check
        self.stage: TrainerStage = TRAINER_STAGES[stage_name]
        super().__init__(
            import_class(self.stage.module),
            import_class(self.stage.data),
            save_config_callback=None,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            seed_everything_default=False,
            # the trainer's own bar and summary would stand beside ours
            trainer_defaults={
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "logger": True,
                "num_sanity_val_steps": 0,  # would validate before the reference is there
            },
            parser_kwargs={"prog": "sipo_pl", **STRICT, verb: dict(STRICT)},  # a copy: Lightning adds to it
        )

    # parser

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        skipped = {"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders"}
        return {self.verb: {*skipped, "weights_only", "return_predictions"}}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        kwargs.setdefault("dump_header", ["resolved config of a sipo_pl stage"])
        parser = LightningArgumentParser(**kwargs)
        help_text = "YAML file, or the bare name of a shipped one; a later one overrides"
        parser.add_argument("-c", "--config", action=ShippedConfigFile, help=help_text)
        return parser

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add nothing: the recipe holds the seed."""

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{key}": value for key, value in self.trainer_defaults.items()})
        for group, kind in (("model", self.model_class), ("data", self.datamodule_class)):
            parser.add_class_arguments(kind, group, fail_untyped=False, sub_configs=True, skip={"recipe"})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--stage", type=str, default=self.stage_name, help="stage that this config belongs to")
        add_recipe(parser)
        add_overwrite(parser)
        if self.verb not in EVALUATION_VERBS:
            add_stop_after(parser)
        if self.stage.verb == "fit":
            parser.add_class_arguments(Saving, "saving")
            help_text = "go on from the newest checkpoint's weights and place, with an optimizer that begins anew"
            parser.add_argument("--restart_optimizer", action="store_true", help=help_text)
        if "objective" in self.stage.options:
            parser.add_argument("--objective", type=str, required=True, help="objective whose policy is trained")
            parser.link_arguments("objective", "model.objective")
            parser.link_arguments("objective", "data.objective")
        if "weights" in self.stage.options:
            help_text = "point of the simplex, such as 0.2,0.8 in the objectives' order, or helpful=0.2,harmless=0.8"
            parser.add_argument("--weights", type=str, required=True, help=help_text)
            parser.link_arguments("weights", "model.weights")
        if "policies" in self.stage.options:
            help_text = "policies of the first alignment (align) or of the re-alignment (realign)"
            parser.add_argument("--policies", type=Literal["align", "realign"], default="align", help=help_text)
            parser.link_arguments("policies", "model.policies")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        own = self._subcommand_parsers[self.verb]
        check_config_files(self.arguments, own)
        try:
            self.config = parser.parse_args([self.verb, *self.arguments])
        except argparse.ArgumentError as error:
            raise explain(error, self.arguments, parser_options(own)) from None

    def _set_seed(self) -> None:
        """Leave the seed to `before_instantiate_classes`, which knows the recipe."""

    def _parse_ckpt_path(self) -> None:
        """Leave the config alone: what a checkpoint holds never overrides what the user asks."""

    # stage

    @property
    def settings(self) -> Namespace:
        return self.config[self.verb]

    @property
    def folder_name(self) -> str:
        settings = dict(self.settings)
        if "weights" in settings:  # a point may be written in several ways
            settings["weights"] = point_name(parse_point(settings["weights"], self.recipe.objective_names))
        return self.stage.folder_name(self.stage_name, settings)

    def before_instantiate_classes(self) -> None:
        self.recipe = make_recipe(self.settings.recipe, lambda key: find_place(f"recipe.{key}", self.arguments))
        if self.recipe.round > 1 and not is_of_round(self.folder_name):
            raise UsageError(f"{self.folder_name} belongs to the run as a whole, not to round {self.recipe.round}")
        runs = not self.only_check and self.verb not in EVALUATION_VERBS
        if runs and logs.LOG_VARIABLE not in os.environ:
            Stopping(self.recipe.layout.run_dir).begin(self.settings.stop_after)
        if self.recipe.quantize:
            check_four_bits()
        if self.verb == "predict" and zero.is_zero(self.settings.trainer.strategy):
            raise UsageError(
                "trainer.strategy: no prediction under DeepSpeed, whose devices would wait for one another for ever "
                "where their texts end at different lengths; --config strategies/ddp.yaml has a copy of the model on "
                "each device, and --recipe.device_map auto spreads one that is too large over all"
            )
        seed_everything(self.recipe.seed, verbose=False)
        # a link would do, but the parser makes the source of a link before the dataclasses inside it
        for kind in (LightningModule, LightningDataModule):
            self.parser.add_instantiator(self._with_recipe, kind, subclasses=True)

    def _with_recipe(self, kind: type, *arguments: Any, **keywords: Any) -> Any:
        return kind(*arguments, recipe=self.recipe, **keywords)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        if self.only_check:
            raise Checked
        evaluation = self.verb in EVALUATION_VERBS
        dumped = self.parser.dump(self.config, skip_none=False, skip_link_targets=True)
        resolved = yaml.safe_load(dumped)[self.verb]
        discard = self.settings.overwrite and not evaluation
        self.run = StageRun(self.folder_name, self.recipe, self.model, self.datamodule, resolved, discard, self.held)
        config = {**self._get(self.config_init, "trainer"), "use_distributed_sampler": False, "callbacks": None}
        config["default_root_dir"] = config["default_root_dir"] or str(self.run.folder)
        if evaluation or self.verb == "predict":
            config["logger"] = False
        if self.run.complete or evaluation:
            return Trainer(**config)
        self.run.write_config(yaml.safe_dump(resolved, sort_keys=False))
        user_callbacks = self._get(self.config_init, "trainer.callbacks") or []
        if self.verb == "fit":
            config["callbacks"] = [*user_callbacks, *self.run.fit_callbacks(self.config_init.fit.saving)]
            config["plugins"] = [*(config.get("plugins") or []), AtomicCheckpointIO()]
            if config["logger"] is True:
                config["logger"] = TensorBoardLogger(self.run.folder, name="tensorboard", version="")
        else:
            config["callbacks"] = [*user_callbacks, *self.run.plan_units()]
        return Trainer(**config)

    def fit(self, model: Any, datamodule: Any, **arguments: Any) -> None:
        """Fit the stage, or say that it is complete."""
        if not self._say_complete():
            restart = self.settings.restart_optimizer
            self.run.fit(self.trainer, self.config_init.fit.saving, restart, **arguments)

    def predict(self, model: Any, datamodule: Any, **arguments: Any) -> None:
        """Predict the stage, or say that it is complete."""
        if not self._say_complete():
            self.run.predict(self.trainer, **arguments)

    def validate(self, model: Any, datamodule: Any, **arguments: Any) -> None:
        """Validate the kept policy of a fit on its validation pairs."""
        arguments["ckpt_path"] = arguments.get("ckpt_path") or self.run.best_checkpoint
        self.trainer.validate(model, datamodule=datamodule, weights_only=True, **arguments)

    def test(self, model: Any, datamodule: Any, **arguments: Any) -> None:
        """Test the kept policy of a fit on its validation pairs, under the names test/…."""
        arguments["ckpt_path"] = arguments.get("ckpt_path") or self.run.best_checkpoint
        self.trainer.test(model, datamodule=datamodule, weights_only=True, **arguments)

    def _say_complete(self) -> bool:
        if self.run.complete:
            log.info("%s: complete, nothing to do (%s)", self.run.stage, self.run.folder)
        return self.run.complete


def main(arguments: Sequence[str]) -> int:
    """Run a trainer verb.

    Args:
        arguments: those of `sys.argv`, which stays as it is for distributed children.

    Raises:
        UsageError: anything that the parser refuses, in one line that names file and key.
    """
    logs.quiet_libraries()
    zero.register()
    verb, stage_name = arguments[0], find_stage(arguments[0], arguments[1:])
    with ExitStack() as held:
        StageCLI(verb, stage_name, arguments[1:], held)
    return 0


def check(arguments: Sequence[str]) -> None:
    """Parse a trainer command and make its module and data, which check what they are given; run nothing.

    Args:
        arguments: those of `sys.argv`.

    Raises:
        UsageError: what running the command would raise before it touches a file.
    """
    logs.quiet_libraries()
    verb, stage_name = arguments[0], find_stage(arguments[0], arguments[1:])
    with suppress(Checked), ExitStack() as held:
        StageCLI(verb, stage_name, arguments[1:], held, only_check=True)


def find_stage(verb: str, arguments: Sequence[str]) -> str:
    """Return the stage that the options name, or that the last config file names with its key `stage`.

    Raises:
        UsageError: an unknown stage, or one of another command.
    """
    return check_stage(verb, arguments) or DEFAULT_STAGE[verb]
