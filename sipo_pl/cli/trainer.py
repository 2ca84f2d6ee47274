"""`sipo_pl fit|validate|test|predict`: LightningCLI over the stage that a config names."""

import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import TensorBoardLogger

from sipo_pl.interop.jsonargparse import dump_yaml
from sipo_pl.interop.lightning import PlainCLI
from sipo_pl.messages import logs
from sipo_pl.recipe.config.resolve import Settings, resolve
from sipo_pl.registry.stage import EVALUATION_VERBS
from sipo_pl.run.stage_check import make
from sipo_pl.run.stage_folder import StageRun, trainer_provenance
from sipo_pl.storage.stopping import Stopping
from sipo_pl.training import zero
from sipo_pl.training.checkpoint_io import AtomicCheckpointIO

log = logging.getLogger("sipo_pl")


class StageCLI(PlainCLI):
    """LightningCLI for one stage whose settings are read: makes module and data, its trainer, and runs its verb.

    Args:
        settings: what the command asks for.
        held: what the stage holds while it runs, to be closed by the caller.
    """

    def __init__(self, settings: Settings, held: ExitStack) -> None:
        self.settings, self.held, self.verb, self.recipe = settings, held, settings.verb, settings.recipe
        super().__init__(
            save_config_callback=None,
            run=False,  # the verb is no subcommand of the parser; it runs below
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            seed_everything_default=False,
        )
        given = {name: self.config[name] for name in ("ckpt_path", "verbose") if name in self.config}
        getattr(self, self.verb)(self.model, self.datamodule, **given)

    def setup_parser(self, *arguments: Any) -> None:
        assert isinstance(self.settings.parser, LightningArgumentParser)
        self.parser = self.settings.parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = self.settings.values

    def instantiate_classes(self) -> None:
        if self.verb not in EVALUATION_VERBS and logs.LOG_VARIABLE not in os.environ:
            Stopping(self.recipe.layout.run_dir).begin(self.settings["stop_after"])
        seed_everything(self.recipe.seed, verbose=False)
        self.config_init = make(self.settings)
        self.model, self.datamodule = self.config_init.model, self.config_init.data
        self.trainer = self.instantiate_trainer()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        evaluation = self.verb in EVALUATION_VERBS
        discard = self.settings["overwrite"] and not evaluation
        resolved, name = self.settings.plain(), self.settings.folder_name
        made_of = trainer_provenance(name, self.recipe, self.model, self.datamodule, resolved)
        self.run = StageRun(made_of, self.recipe, self.model, self.datamodule, discard, self.held)
        config = {**self.config_init.trainer, "use_distributed_sampler": False, "callbacks": None}
        config["default_root_dir"] = config["default_root_dir"] or str(self.run.folder)
        if evaluation or self.verb == "predict":
            config["logger"] = False
        if self.run.complete or evaluation:
            return Trainer(**config)
        self.run.write_config(dump_yaml(resolved))
        user_callbacks = self.config_init.get("trainer.callbacks") or []
        if self.verb == "fit":
            config["callbacks"] = [*user_callbacks, *self.run.fit_callbacks(self.config_init.saving)]
            config["plugins"] = [*(config.get("plugins") or []), AtomicCheckpointIO()]
            if config["logger"] is True:
                config["logger"] = TensorBoardLogger(self.run.folder, name="tensorboard", version="")
        else:
            config["callbacks"] = [*user_callbacks, *self.run.plan_units()]
        return Trainer(**config)

    def fit(self, model: Any, datamodule: Any, **arguments: Any) -> None:
        """Fit the stage, or say that it is complete."""
        if not self._say_complete():
            restart = self.settings["restart_optimizer"]
            self.run.fit(self.trainer, self.config_init.saving, restart, **arguments)

    def predict(self, model: Any, datamodule: Any, **arguments: Any) -> None:
        """Predict the stage, or say that it is complete."""
        if not self._say_complete():
            self.run.predict(self.trainer, **arguments)

    def validate(self, model: Any, datamodule: Any, **arguments: Any) -> None:
        """Validate the kept policy of a fit on its validation pairs."""
        arguments["ckpt_path"] = arguments.get("ckpt_path") or self.run.best_of_fit()
        self.trainer.validate(model, datamodule=datamodule, weights_only=True, **arguments)

    def test(self, model: Any, datamodule: Any, **arguments: Any) -> None:
        """Test the kept policy of a fit on its validation pairs, under the names test/…."""
        arguments["ckpt_path"] = arguments.get("ckpt_path") or self.run.best_of_fit()
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
    with ExitStack() as held:
        StageCLI(resolve(arguments[0], arguments[1:]), held)
    return 0
