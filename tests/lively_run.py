"""A finished run whose policies differ by far from each other and from their base, so that texts tell them apart."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import yaml
from tiny import CHAT_TEMPLATE, make_tiny_adapter, make_tiny_model
from tiny_run import NAMES, write_yaml

from sipo_pl.storage.hash_memory import file_hash
from sipo_pl.storage.json_lines import write_json
from sipo_pl.storage.model_hashes import weights_hash


class Lively(NamedTuple):
    """A run and its base model.

    Args:
        run: run folder
        base: folder of the model
    """

    run: Path
    base: Path


def set_recipe(run: Path, **values: object) -> None:
    """Change the recipe that the configs of a run folder tell."""
    for path in run.glob("*/config.yaml"):
        config = yaml.safe_load(path.read_text())
        write_yaml(path, {**config, "recipe": {**config["recipe"], **values}})


def make_lively_run(finished: Path, folder: Path) -> Lively:
    """Copy a finished run to another place, with another base and large adapters for its re-alignment.

    Args:
        finished: run folder.
        folder: where the copy and its base go.
    """
    run = folder / "moved"
    base = make_tiny_model(folder / "model", seed=1, spread=0.3, chat_template=CHAT_TEMPLATE)
    shutil.copytree(finished, run)
    set_recipe(run, base_model=str(base))
    for seed, name in enumerate(NAMES[:2]):
        stage = run / f"realign-{name}"
        shutil.rmtree(stage / "adapter")
        make_tiny_adapter(stage / "adapter", base, seed)
        manifest = json.loads((stage / "manifest.json").read_text())
        manifest["inputs"]["base model"] = weights_hash(str(base))
        adapter = [path for path in (stage / "adapter").iterdir() if path.is_file()]
        manifest["files"] = {f"adapter/{path.name}": file_hash(path) for path in adapter}
        write_json(stage / "manifest.json", manifest)
    return Lively(run, base)
