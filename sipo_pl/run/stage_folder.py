"""Runs one trainer stage in its folder: opens it, resumes it, checks what was written, marks it complete."""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from sipo_pl.callbacks.best import BestCheckpoint
from sipo_pl.callbacks.cost import FitCost
from sipo_pl.callbacks.even_validation import EvenValidation
from sipo_pl.callbacks.memory import PeakMemory
from sipo_pl.callbacks.nan_guard import NaNGuard
from sipo_pl.callbacks.progress import FitProgress, PredictProgress
from sipo_pl.callbacks.rank_watch import RankWatch
from sipo_pl.callbacks.resume import ResumeCheckpoint
from sipo_pl.callbacks.still_guard import StillGuard
from sipo_pl.callbacks.writer import UnitWriter
from sipo_pl.data.datamodules.unit_data import UnitData
from sipo_pl.data.folder_card import write_folder_card
from sipo_pl.data.units import check_row, unit_files, unit_path
from sipo_pl.interop.lightning import started_processes
from sipo_pl.messages import ranks
from sipo_pl.messages.errors import Stopped, UsageError, UserError
from sipo_pl.prediction.base import GenerationModule, PredictionModule
from sipo_pl.recipe.inputs import stage_inputs
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.recipe.saving import Saving
from sipo_pl.registry import place_of
from sipo_pl.storage.files import write_text
from sipo_pl.storage.hashes import HASH_PARTS, content_hash
from sipo_pl.storage.json_lines import read_jsonl
from sipo_pl.storage.lock import lock
from sipo_pl.storage.manifest import CONFIG, Manifest, input_hash
from sipo_pl.storage.model_hashes import tokenizer_hash, weights_hash
from sipo_pl.storage.provenance import Provenance
from sipo_pl.storage.stopping import Stopping
from sipo_pl.training.checkpoint_io import newest_readable, read_checkpoint
from sipo_pl.training.fit import MADE_BY, Fit
from sipo_pl.training.lora_fit import LoRAFit
from sipo_pl.training.zero import WHOLE, resume_path

log = logging.getLogger("sipo_pl")

# settings that change speed or place, never results
ENVIRONMENT_KEYS = {
    "model": {"reference_batch_rows", "tolerance", "batch_tokens", "forwards"},
    "data": {"eval_batch_size"},
    "saving": {"save_every"},
}
TRAINER_RESULT_KEYS = (
    "precision",
    "max_epochs",
    "max_steps",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "limit_train_batches",
    "limit_val_batches",
)


class StageRun:
    """One trainer stage in its folder.

    Args:
        made_of: what the stage's folder is made of, see `trainer_provenance`
        recipe: what the stages share
        model: the stage's module
        data: the stage's data
        overwrite: remove what the folder holds
        held: takes the lock of the folder, and frees it when it is closed
    """

    def __init__(
        self,
        made_of: Provenance,
        recipe: Recipe,
        model: Fit | PredictionModule,
        data: LightningDataModule,
        overwrite: bool,
        held: ExitStack,
    ) -> None:
        self.stage, self.folder, self.recipe, self.model, self.data = made_of.stage, made_of.folder, recipe, model, data
        self.stopping = Stopping(recipe.layout.run_dir)
        if ranks.is_first():
            held.enter_context(lock(self.folder))
        if isinstance(model, Fit):
            known = {name: value.split(HASH_PARTS)[0] for name, value in made_of.inputs.items()}  # by every version
            model.made_by = {"stage": self.stage, "settings": content_hash([made_of.keys, known, recipe.seed])}
        opening = made_of.open if ranks.is_first() else made_of.follow
        self.manifest: Manifest = opening(overwrite=overwrite)

    @property
    def complete(self) -> bool:
        return self.manifest.complete

    def write_config(self, text: str) -> None:
        """Write the stage's resolved config into its folder."""
        if ranks.is_first():
            write_text(self.folder / CONFIG, text)

    # fit

    def fit_callbacks(self, saving: Saving) -> list[Callback]:
        """Return the callbacks of a fit."""
        at_end = not self.recipe.compat.no_final_validation
        if not at_end and saving.keep == "last":
            raise UsageError("saving.keep: last is the end of the fit, which compat.no_final_validation does not save")
        best = BestCheckpoint(self.best_checkpoint, saving.monitor)
        resume = ResumeCheckpoint(*self.resume_checkpoints, saving.save_every, self.stopping)
        guards = [NaNGuard(), *([StillGuard()] if isinstance(self.model, LoRAFit) else [])]
        self.cost = FitCost()
        shown = [RankWatch(), self.cost, FitProgress(self.stage), PeakMemory(self.stage)]
        return [EvenValidation(saving.validations, at_end), *guards, *shown, best, resume]

    @property
    def resume_checkpoints(self) -> tuple[Path, Path]:
        """Return where the newest checkpoint to resume from is, and the one before it."""
        folder = self.folder / "checkpoints"
        return folder / "last.ckpt", folder / "before.ckpt"

    @property
    def best_checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "best.ckpt"

    def fit(self, trainer: Trainer, saving: Saving, restart_optimizer: bool = False, **arguments: Any) -> None:
        """Fit, resuming from the last checkpoint, then write what it made and mark the stage complete.

        Args:
            trainer: runs the fit
            saving: how it is saved
            restart_optimizer: take weights and place in the fit from the checkpoint, and nothing of the optimizer
            arguments: of the trainer's fit
        """
        assert isinstance(self.model, Fit)
        resume = newest_readable(self.resume_checkpoints, mend=ranks.is_first())
        if given := arguments.pop("ckpt_path", None):
            resume = Path(given)
        if resume:
            resume = resume_path(resume, trainer.strategy, trainer.world_size, restart_optimizer)
            self._own_checkpoint(resume if resume.is_file() else resume / WHOLE, any_settings=given is not None)
            self.model.restart_from = resume if restart_optimizer else None
            log.info("%s: resuming from %s", self.stage, resume)
        with stoppable(trainer):
            trainer.fit(self.model, datamodule=self.data, ckpt_path=resume, weights_only=True, **arguments)
        if trainer.global_step != self.model.total_steps:
            raise UserError(f"{self.stage}: stopped at step {trainer.global_step} of {self.model.total_steps}")
        state = trainer.strategy.lightning_module_state_dict()  # by all, which may each hold a part
        if not trainer.is_global_zero:
            return
        kept: dict[str, Any] = {"steps": trainer.global_step, "keep": saving.keep, **self.cost.counts}
        if saving.keep == "best":
            checkpoint = self._own_checkpoint(self.best_checkpoint)
            state, kept["kept step"] = checkpoint["state_dict"], checkpoint["global_step"]
        self.model.take_over(state)
        made = self.model.write(self.folder)
        kept |= {f"final {k}": round(float(v), 6) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        files = [path for folder in made for path in folder.iterdir()]
        self.manifest.finish(self.folder, files, **kept)
        log.info("%s: written to %s", self.stage, ", ".join(map(str, made)))

    def best_of_fit(self) -> Path:
        """Return the checkpoint of the best validation; UserError where it is damaged, or of another fit."""
        self._own_checkpoint(self.best_checkpoint)
        return self.best_checkpoint

    def _own_checkpoint(self, path: Path, any_settings: bool = False) -> dict[str, Any]:
        """Read a checkpoint; UserError unless this fit made it. One of an older version does not tell.

        Args:
            path: the checkpoint.
            any_settings: the user named it, so that the fit may go on under other settings than it was made with.
        """
        assert isinstance(self.model, Fit)
        checkpoint = read_checkpoint(path)
        made_by = checkpoint.get(MADE_BY, self.model.made_by)
        stage = made_by.get("stage") if isinstance(made_by, dict) else None
        if made_by != self.model.made_by and not (any_settings and stage == self.stage):
            of = "other settings" if stage == self.stage else f"the stage {stage}"
            raise UserError(
                f"{path}: a checkpoint of {of}, not of this {self.stage}; remove it, or --overwrite, to begin anew"
            )
        return checkpoint

    # predict

    def plan_units(self) -> list[Callback]:
        """Plan the units and return the callbacks of a prediction; no unit that is written is made again."""
        assert isinstance(self.data, UnitData)
        assert isinstance(self.model, PredictionModule)
        self.total_units = self.data.plan(self.folder, self.model)
        always = [RankWatch(), PeakMemory(self.stage), UnitWriter(self.data.stopping)]
        if not ranks.is_first():
            return always
        expected = [len(self.model.expected_ids(self.data.unit(index))) for index in range(self.total_units)]
        done = [unit_path(self.folder, index).exists() for index in range(self.total_units)]
        for index in (index for index, is_done in enumerate(done) if is_done):
            self._read_unit(index)  # else a torn one would be found after hours
        written = sum(rows for rows, is_done in zip(expected, done, strict=True) if is_done)
        log.info("%s: %d rows in %d units, %d rows already written", self.stage, sum(expected), len(done), written)
        return [PredictProgress(self.stage, expected, written), *always]

    def predict(self, trainer: Trainer, **arguments: Any) -> None:
        """Predict the units that are missing, check every id, and mark the stage complete."""
        assert isinstance(self.data, UnitData)
        with stoppable(trainer):
            trainer.predict(self.model, datamodule=self.data, return_predictions=False, **arguments)
            # here all devices meet, also those without a unit: a dead one would else go unnoticed
            reason = self.data.stopping.reason
            if trainer.strategy.reduce_boolean_decision(reason is not None, all=False):
                reason = reason or "another process"
        if trainer.is_global_zero:
            self._finish_units(reason)

    def _finish_units(self, reason: str | None) -> None:
        """Check every unit and mark the stage complete.

        Args:
            reason: what asked to stop, if anything did.
        """
        assert isinstance(self.model, PredictionModule)
        missing = sum(not unit_path(self.folder, index).exists() for index in range(self.total_units))
        if missing and reason:
            done = self.total_units - missing
            raise Stopped(f"stopped by {reason} after {done} of {self.total_units} units, which are written")
        rows, clean, marks = 0, 0, Counter[str]()
        for index in range(self.total_units):
            unit = self._read_unit(index)
            rows += len(unit)
            clean += sum(not row.get("marks") for row in unit)
            marks.update(mark for row in unit for mark in row.get("marks", ()))
        if marks and isinstance(self.model, GenerationModule):
            counts = ", ".join(f"{count} {mark}" for mark, count in marks.most_common())
            log.info("%s: %d of %d rows without marks (%s)", self.stage, clean, rows, counts)
        write_folder_card(self.folder)
        notes: dict[str, Any] = {"halved": self.model.memory_budget.halved} if self.model.memory_budget.halved else {}
        self.manifest.finish(self.folder, unit_files(self.folder), rows=rows, **notes)

    def _read_unit(self, index: int) -> list[dict[str, Any]]:
        """Read a unit that is written; UserError unless it holds exactly the rows that it must."""
        assert isinstance(self.data, UnitData)
        assert isinstance(self.model, PredictionModule)
        expected, path = self.model.expected_ids(self.data.unit(index)), unit_path(self.folder, index)
        try:
            unit = read_jsonl(path)
            for number, row in enumerate(unit, start=1):
                check_row(row, self.model.row, f"{path}:{number}")
        except UserError as error:
            raise UserError(f"{error}; remove the file to redo its unit") from None
        found = [row.get("sample_id") or row.get("text_id") for row in unit]
        if found != expected:
            raise UserError(f"{path}: {len(found)} rows, {len(expected)} expected, or other ids; remove it to redo it")
        return unit


@contextmanager
def stoppable(trainer: Trainer) -> Iterator[None]:
    """Within the block, raise KeyboardInterrupt where the trainer, told to stop, would end the process by itself.

    Raises:
        UserError: another device ended, or did not answer in time.
    """
    try:
        yield
    except SIGTERMException:
        raise KeyboardInterrupt from None
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    except RuntimeError as error:
        if trainer.world_size > 1 and ranks.is_loss(error):
            ranks.kill(started_processes(trainer))
            raise UserError(
                "another device ended, or did not answer in time; what it said is above, or in its own log "
                f"({str(error).splitlines()[0]})"
            ) from error
        raise


def trainer_provenance(
    stage: str, recipe: Recipe, model: Fit | PredictionModule, data: LightningDataModule, settings: Mapping[str, Any]
) -> Provenance:
    """Return what a trainer stage's folder is made of; no model is loaded.

    Args:
        stage: name of the folder, such as align-helpful
        recipe: what the stages share
        model: the stage's module, which tells what it reads
        data: its data likewise
        settings: the resolved config of the stage

    Raises:
        UserError: an input is missing, not complete or damaged.
    """
    inputs = {**_declared(stage, recipe, model, settings), **getattr(data, "inputs", {}), **model.inputs}
    hashes = {name: input_hash(path, command) for name, (path, command) in inputs.items()}
    hashes |= {name: weights_hash(base) for name, base in model.base_models.items()}
    hashes["tokenizer"] = tokenizer_hash(model.base_model)
    keys = {**result_keys(settings), "recipe": model.recipe_keys}
    return Provenance(recipe.layout.stage(stage), stage, keys, hashes, recipe.seed)


def _declared(stage: str, recipe: Recipe, model: Any, settings: Mapping[str, Any]) -> dict[str, tuple[Path, str]]:
    """Return the inputs that the stage's entry in the registry names."""
    place = place_of(stage)
    assert place is not None
    inputs = stage_inputs(place.name, recipe, settings)
    if missing := [name for name in getattr(model, "sources", ()) if name not in inputs]:
        raise UsageError(f"{stage}: reads {missing[0]}, which its entry in sipo_pl/registry/stages.py does not say")
    return inputs


def result_keys(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those settings of a stage that can change its results."""
    keys: dict[str, Any] = {}
    for group in ("model", "data", "saving"):
        values = json.loads(json.dumps(settings.get(group) or {}, default=str))
        keys[group] = {k: v for k, v in values.items() if k not in ENVIRONMENT_KEYS[group] | {"recipe"}}
    trainer = settings.get("trainer") or {}
    keys["trainer"] = {key: trainer.get(key) for key in TRAINER_RESULT_KEYS}
    return keys
