"""Finished and half-finished runs that were damaged, moved, or have no room left."""

import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import huggingface_hub.constants
import pytest
import yaml
from tiny_run import Command, environment, write_recipe, write_yaml

from sipo_pl.callbacks.best import BestCheckpoint
from sipo_pl.engine.lora.adapters import read_adapter
from sipo_pl.engine.models.made_over import ModelsNow, difference
from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.config.files import load_yaml
from sipo_pl.storage.json_lines import read_json
from sipo_pl.storage.manifest import Manifest
from sipo_pl.storage.model_hashes import tokenizer_hash, weights_hash
from sipo_pl.use.run_folder import read_recipe
from sipo_pl.use.source import open_source


def states(folder: Path) -> dict[str, bytes]:
    """Return what all files hold, but for the log and the locks."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".log", ".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture
def moved(tmp_path: Path, finished_run: Path) -> Path:
    """A copy of the finished run at another place; its recipe names that place."""
    folder = tmp_path / "moved"
    shutil.copytree(finished_run, folder)
    recipe = folder / "recipe.yaml"
    write_yaml(recipe, {**yaml.safe_load(recipe.read_text()), "run_dir": str(folder / "run")})
    return folder


def test_a_run_that_was_moved_is_complete(moved: Path, command: Command) -> None:
    (moved / "run/sample/request.json").write_text("{}")  # as an earlier version kept it
    before = states(moved / "run")
    said = command("run", "--config", moved / "recipe.yaml")
    assert said.code == 0, said.err
    assert said.err.count(": complete") == 16
    assert states(moved / "run") == before


@pytest.mark.parametrize(
    ("name", "harm", "maker"),
    [
        ("sample/unit-00001.jsonl", flip, "predict --config {}/sample.yaml"),
        ("align-kind/adapter/adapter_model.safetensors", cut, "fit --config {}/align.yaml --objective kind"),
        ("report/metrics.json", flip, "report --config {}/report.yaml"),
    ],
)
def test_a_damaged_output_of_a_complete_stage_stops_the_run(
    moved: Path, command: Command, name: str, harm: object, maker: str
) -> None:
    harm(moved / "run" / name)  # type: ignore[operator]
    before = states(moved / "run")
    said = command("run", "--config", moved / "recipe.yaml")
    assert said.code == 1
    remedy = f"`sipo_pl {maker.format(moved)} --overwrite` makes it anew"
    expected = f"sipo_pl run: {moved}/run/{name}: damaged or edited since it was written; {remedy}"
    assert said.err.splitlines()[-1] == expected
    assert states(moved / "run") == before
    words = maker.format(moved).split()
    said = command(*words)
    assert said.code == 1
    assert f"run/{name}: damaged or edited since it was written; --overwrite makes it anew" in said.err
    assert states(moved / "run") == before


def test_a_manifest_of_another_version_stops_the_run(moved: Path, command: Command) -> None:
    path = moved / "run/score/manifest.json"
    path.write_text(json.dumps({**read_json(path), "format": 2}))
    before = states(moved / "run")
    said = command("run", "--config", moved / "recipe.yaml")
    assert said.code == 1
    assert said.err.splitlines()[-1].startswith(f"sipo_pl run: {path}: not a manifest of this program")
    assert states(moved / "run") == before


def test_damaged_bookkeeping_stops_no_run(moved: Path, command: Command) -> None:
    run = moved / "run"
    (run / "timings.json").write_text("")
    (run / "run.log").unlink(missing_ok=True)
    (run / "run.log").mkdir()
    (moved / ".run.lock").write_bytes(b"\xff\xfe")
    said = command("run", "--config", moved / "recipe.yaml")
    assert said.code == 0, said.err
    assert "timings.json: not JSON" in said.err
    assert "run.log: cannot be written: Is a directory; the run goes on without its log" in said.err
    assert "report: complete" in said.err


def other_model(folder: Path) -> None:
    """Change the weights of a model by one bit, in a place that no sample of them shows."""
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[8 + int.from_bytes(content[:8], "little") + 20000] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("which", ["weights", "tokenizer"])
def test_a_model_that_was_replaced_is_found_before_anything_runs(
    moved: Path, talkative_model: Path, command: Command, which: str
) -> None:
    model = moved / "model"
    shutil.copytree(talkative_model, model)
    for path in (moved / "recipe.yaml", *(moved / "run").glob("*/config.yaml")):
        path.write_text(path.read_text().replace(str(talkative_model), str(model)))
    assert ModelsNow(read_recipe(moved / "run")).check(*complete(moved / "run/align-kind"), "again") is None
    if which == "weights":
        other_model(model)
    else:
        (model / "tokenizer.json").write_text((model / "tokenizer.json").read_text() + " ")
    with pytest.raises(UserError, match=r"align-kind: the .* has changed.* since it was made; put back"):
        ModelsNow(read_recipe(moved / "run")).check(*complete(moved / "run/align-kind"), "again")
    adapter = moved / "run/align-kind/adapter"
    with pytest.raises(UserError, match=r"adapter: was made over another model than .* differ"):
        read_adapter(adapter, str(model))
    with pytest.raises(UserError, match=r"not the model that the policies were trained on: its .* differ"):
        open_source(moved / "run")
    assert open_source(moved / "run", base_model=str(model)).names == ("kind", "short")  # which the user insists on


def test_a_model_of_the_hub_that_was_replaced_is_found(
    moved: Path, talkative_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    cached = tmp_path / "hub/models--owner--name"
    shutil.copytree(talkative_model, cached / "snapshots/1")
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text("1")
    for path in (moved / "recipe.yaml", *(moved / "run").glob("*/config.yaml")):
        path.write_text(path.read_text().replace(str(talkative_model), "owner/name"))
    folder, manifest = complete(moved / "run/align-kind")
    manifest.inputs |= {"base model": weights_hash("owner/name"), "tokenizer": tokenizer_hash("owner/name")}
    manifest.write(folder)
    adapter = folder / "adapter"
    config = read_json(adapter / "adapter_config.json")
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "owner/name"}))
    assert difference(adapter, "owner/name") is None
    assert ModelsNow(read_recipe(moved / "run")).check(folder, manifest, "again") is None
    other_model(cached / "snapshots/1")
    assert difference(adapter, "owner/name") == "its weights or config differ"
    assert difference(adapter, str(talkative_model)) is None  # a folder in its place, of which nothing is known
    with pytest.raises(UserError, match=r"align-kind: the base model has changed"):
        ModelsNow(read_recipe(moved / "run")).check(folder, manifest, "again")


def test_a_run_over_a_model_that_was_replaced_stops(moved: Path, talkative_model: Path, command: Command) -> None:
    model, recipe = moved / "model", moved / "recipe.yaml"
    shutil.copytree(talkative_model, model)
    recipe.write_text(recipe.read_text().replace(str(talkative_model), str(model)))
    said = command("run", "--config", recipe)
    assert said.code == 0, said.err
    assert said.err.count(": complete") == 16
    before = states(moved / "run")
    other_model(model)
    said = command("run", "--config", recipe)
    assert said.code == 1
    expected = rf"sipo_pl run: {moved}/run/\S+: the base model has changed, in its weights or config, since it was made"
    assert re.match(expected, said.err.splitlines()[-1])
    assert states(moved / "run") == before


def complete(folder: Path) -> tuple[Path, Manifest]:
    """Return a stage's folder and its manifest, as a fit of today would have written it."""
    manifest = Manifest.read(folder)
    assert manifest is not None
    model = str(load_yaml(folder / "config.yaml")["recipe"]["base_model"])
    if "+" not in manifest.inputs["base model"]:
        manifest.inputs["base model"] = weights_hash(model)
        manifest.write(folder)
    return folder, manifest


@pytest.mark.parametrize("harm", [cut, lambda path: path.write_text("")])
def test_a_torn_unit_is_found_before_the_stage_goes_on(moved: Path, command: Command, harm: object) -> None:
    folder = moved / "run/sample"
    manifest = read_json(folder / "manifest.json")
    (folder / "manifest.json").write_text(json.dumps({**manifest, "complete": False, "files": {}, "rows": None}))
    (folder / "unit-00002.jsonl").unlink()
    unit = folder / "unit-00000.jsonl"
    whole = unit.read_bytes()
    harm(unit)  # type: ignore[operator]
    said = command("predict", "--config", moved / "sample.yaml")
    assert said.code == 1
    assert str(unit) in said.err
    assert "to redo" in said.err
    assert not (folder / "unit-00002.jsonl").exists()
    unit.write_bytes(whole.replace(b'"finish_reason"', b'"finish"', 1))
    said = command("predict", "--config", moved / "sample.yaml")
    assert said.code == 1
    assert f"{unit}:1: no key 'finish_reason'; did you mean 'finish'?; remove the file to redo its unit" in said.err
    unit.unlink()
    assert command("predict", "--config", moved / "sample.yaml").code == 0
    assert unit.read_bytes() == whole
    assert read_json(folder / "manifest.json")["files"] == manifest["files"]


def test_the_best_of_a_fit_is_known_at_another_place(tmp_path: Path) -> None:
    here, there = (BestCheckpoint(tmp_path / name / "best.ckpt", "val/loss") for name in ("here", "there"))
    here.best_model_path = here.kth_best_model_path = str(tmp_path / "here/best.ckpt")
    here.best_model_score = here.kth_value = 0.5  # type: ignore[assignment]
    here.best_k_models = {here.best_model_path: here.kth_value}
    there.load_state_dict(here.state_dict())
    path = str(tmp_path / "there/best.ckpt")
    assert (there.best_model_path, there.kth_best_model_path, there.best_k_models) == (path, path, {path: 0.5})
    assert there.best_model_score == there.kth_value == 0.5


FULL_DISK = """
    import os, subprocess, sys
    from pathlib import Path
    from sipo_pl.cli import main as cli

    folder = Path(sys.argv[1])

    def fit(*mount):
        subprocess.run(["mount", *mount, str(folder / "run")], check=True)
        sys.argv = ["sipo_pl", "fit", "--config", str(folder / "align.yaml"), "--objective", "kind"]
        code = cli.main()
        left = [path.name for path in (folder / "run").rglob("*") if ".tmp" in path.name]
        print(code, left, flush=True)

    os.rename(folder / "run", folder / "prepared")
    (folder / "run").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder / "run")], check=True)
    subprocess.run(["cp", "-r", str(folder / "prepared/prepare"), str(folder / "run")], check=True)
    fit("-o", "remount,ro")
    fit("-o", "remount,rw,size=160k")
    fit("-o", "remount,rw,size=64m")
    weights = "align-kind/adapter/adapter_model.safetensors"
    subprocess.run(["cp", str(folder / "run" / weights), str(folder)], check=True)
"""


def _may_mount() -> bool:
    words = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /mnt"]
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _may_mount(), reason="may not mount a file system of its own")
def test_a_disk_without_room_and_one_that_is_read_only(
    tmp_path: Path, talkative_model: Path, finished_run: Path
) -> None:
    write_recipe(tmp_path, talkative_model)
    shutil.copytree(finished_run / "run/prepare", tmp_path / "run/prepare")
    words = ["unshare", "-rm", sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path)]
    said = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert said.stdout.splitlines() == ["1 []", "1 []", "0 []"], said.stderr
    errors = [line for line in said.stderr.splitlines() if line.startswith("sipo_pl fit: ")]
    assert len(errors) == 2
    assert "cannot be written: Read-only file system" in errors[0]
    assert "align-kind/checkpoints/" in errors[1]
    assert "cannot be written; is the disk full?" in errors[1]
    assert "Traceback" not in said.stderr
    weights = finished_run / "run/align-kind/adapter/adapter_model.safetensors"
    assert (tmp_path / weights.name).read_bytes() == weights.read_bytes()
