"""Checkpoints on disk: whole, read back, and one before the newest."""

import shutil
from pathlib import Path

import pytest
import torch
from tiny_run import Command, write_recipe

from sipo_pl.messages.errors import UserError
from sipo_pl.storage.hash_memory import file_hash
from sipo_pl.training.checkpoint_io import AtomicCheckpointIO, newest_readable, read_checkpoint


def save(path: Path, step: int) -> Path:
    AtomicCheckpointIO().save_checkpoint({"global_step": step, "weights": torch.arange(1000.0)}, path)
    return path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(torch.arange(1000.0).numpy().tobytes()[400:440])] ^= 1  # within the tensor
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [cut, flip])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path: Path, harm: object) -> None:
    newest, before = save(tmp_path / "last.ckpt", 2), save(tmp_path / "before.ckpt", 1)
    assert newest_readable([newest, before]) == newest
    harm(newest)  # type: ignore[operator]
    with pytest.raises(UserError, match=r"last.ckpt: damaged: "):
        read_checkpoint(newest)
    assert newest_readable([newest, before]) == before
    assert not newest.exists()
    assert newest_readable([newest, before]) == before
    cut(before)
    with pytest.raises(UserError, match=r"before.ckpt: damaged: .*; remove them, or --overwrite, to begin anew"):
        newest_readable([newest, before])
    before.unlink()
    assert newest_readable([newest, before]) is None


def test_a_checkpoint_that_cannot_be_read_back_takes_no_ones_place(tmp_path: Path) -> None:
    path = save(tmp_path / "last.ckpt", 1)
    with pytest.raises(UserError, match="damaged"):
        AtomicCheckpointIO().save_checkpoint({"not plain": Path()}, path)
    assert read_checkpoint(path)["global_step"] == 1
    assert [one.name for one in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_fit_goes_on_from_the_checkpoint_before_a_damaged_one(
    tmp_path: Path, talkative_model: Path, finished_run: Path, command: Command
) -> None:
    write_recipe(tmp_path, talkative_model)
    shutil.copytree(finished_run / "run/prepare", tmp_path / "run/prepare")
    words = ("fit", "--config", tmp_path / "align.yaml", "--objective", "kind")
    stop = (
        "--trainer.callbacks+=stoppers.AskAt",
        "--trainer.callbacks.batch=0",
        "--trainer.callbacks.by=SIGTERM",
    )
    assert command(*words, *stop).code == 75
    folder = tmp_path / "run/align-kind"
    assert [read_checkpoint(path)["global_step"] for path in sorted((folder / "checkpoints").iterdir())] == [3, 4]
    cut(folder / "checkpoints/last.ckpt")
    said = command(*words)
    assert said.code == 0, said.err
    assert "last.ckpt: damaged: " in said.err
    assert "going on from the checkpoint before it, before.ckpt" in said.err
    assert "resuming from" in said.err
    weights = "align-kind/adapter/adapter_model.safetensors"
    assert file_hash(tmp_path / "run" / weights) == file_hash(finished_run / "run" / weights)


def test_a_given_checkpoint_overrides_no_setting(
    tmp_path: Path, talkative_model: Path, finished_run: Path, command: Command
) -> None:
    write_recipe(tmp_path, talkative_model)
    shutil.copytree(finished_run / "run/prepare", tmp_path / "run/prepare")
    checkpoint = read_checkpoint(finished_run / "run/align-kind/checkpoints/last.ckpt")
    path = tmp_path / "given.ckpt"
    torch.save({**checkpoint, "hyper_parameters": {"warmup": 0.5, "lora": {"r": 7}}}, path)
    words = ("fit", "--config", tmp_path / "align.yaml", "--objective", "kind")
    said = command(*words, "--ckpt_path", path, "--model.warmup", "0.25")
    assert said.code == 0, said.err
    config = (tmp_path / "run/align-kind/config.yaml").read_text()
    assert "warmup: 0.25" in config
    assert "r: 2" in config
    cut(path)
    said = command(*words, "--ckpt_path", path, "--model.warmup", "0.25", "--overwrite")
    assert said.code == 1
    assert said.err.startswith(f"sipo_pl fit: {path}: damaged: ")
    assert len(said.err.splitlines()) == 1
