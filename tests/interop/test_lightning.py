"""What `sipo_pl.interop.lightning` takes for granted of Lightning: a tiny fit counts, validates and accumulates."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel

from sipo_pl.interop.lightning import (
    PlainCLI,
    accumulate,
    batch_counts,
    epoch_counts,
    started_processes,
    validate_after_batch,
    validates_after_batch,
    validation_counts,
)


class Schedule(Callback):
    """Validates after the batches of these indices and lets two batches make a step."""

    def __init__(self, batches: set[int]) -> None:
        self.batches, self.validated = batches, list[int]()

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        accumulate(trainer, 2)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        validate_after_batch(trainer, batch_idx in self.batches)
        assert validates_after_batch(trainer) == (batch_idx in self.batches)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.validated.append(trainer.global_step)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, Schedule, dict[str, Any]]:
    folder, schedule = tmp_path_factory.mktemp("fit"), Schedule({3, 7})
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=8,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[schedule],
        default_root_dir=folder,
    )
    trainer.fit(BoringModel())
    path = Path(folder) / "fit.ckpt"
    trainer.save_checkpoint(path)
    return trainer, schedule, torch.load(path, weights_only=True)


def test_a_fit_validates_where_it_is_told_and_accumulates(fitted: tuple[Trainer, Schedule, dict[str, Any]]) -> None:
    trainer, schedule, _ = fitted

    assert trainer.global_step == 4
    assert schedule.validated == [2, 4]


def test_a_checkpoint_counts_epochs_and_batches(fitted: tuple[Trainer, Schedule, dict[str, Any]]) -> None:
    checkpoint = fitted[2]

    for counts in (epoch_counts(checkpoint), batch_counts(checkpoint), validation_counts(checkpoint)):
        assert all({"ready", "started", "processed", "completed"} <= one.keys() for one in counts)
    assert batch_counts(checkpoint)[1]["ready"] == 8
    assert epoch_counts(checkpoint)[0]["completed"] == 1


def test_a_trainer_of_one_device_started_no_process(fitted: tuple[Trainer, Schedule, dict[str, Any]]) -> None:
    assert list(started_processes(fitted[0])) == []


def test_a_launcher_of_processes_lists_them() -> None:
    from lightning.fabric.plugins.environments import LightningEnvironment
    from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

    assert _SubprocessScriptLauncher(LightningEnvironment(), num_processes=2, num_nodes=1).procs == []


@pytest.mark.parametrize("name", ["_set_seed", "_parse_ckpt_path"])
def test_what_is_replaced_in_the_cli_is_there(name: str) -> None:
    assert callable(getattr(LightningCLI, name))
    assert getattr(PlainCLI, name) is not getattr(LightningCLI, name)
