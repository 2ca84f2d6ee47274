"""A model's files before it is loaded: its folder, its tensors' names, and weights in the wrong format."""

import json
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open

from sipo_pl.messages.errors import UserError
from sipo_pl.storage.model_hashes import refuse_pickles

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
_SMALL_FILES = ("*.json", "tokenizer*", "*.model", "*.jinja", "vocab*", "merges.txt")
_WEIGHT_FILES = ("*.safetensors",)


def checkpoint_folder(model: str, *, weights: bool) -> Path:
    """Return the folder of a model; that of a hub name is the hub's cache, filled as far as needed.

    Args:
        model: folder or hub name (owner/name).
        weights: also fetch the weights of a hub name.

    Raises:
        UserError: nothing there, no config, or weights as .bin only.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        if model.startswith((".", "/", "~")) or model.count("/") != 1:
            raise UserError(f"model: no folder {model!r} (a hub name reads owner/name)")
        try:
            folder = Path(snapshot_download(model, allow_patterns=[*_SMALL_FILES, *(_WEIGHT_FILES if weights else ())]))
        except (OSError, ValueError) as error:
            raise UserError(f"model {model!r}: {str(error).strip().splitlines()[0]}") from error
    if not (folder / "config.json").is_file():
        raise UserError(f"model {model!r}: no model here (config.json is missing)")
    refuse_pickles(folder)
    return folder


def tensor_files(folder: Path) -> dict[str, Path]:
    """Return the file of each tensor by its name; empty where the weights are not there (yet).

    Raises:
        UserError: a damaged file.
    """
    index, single = folder / INDEX, folder / SINGLE
    try:
        if index.is_file():
            weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            return {name: folder / file for name, file in weight_map.items()}
        if single.is_file():
            with safe_open(single, framework="pt") as tensors:
                return dict.fromkeys(tensors.keys(), single)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"{index if index.is_file() else single}: damaged: {error}") from None
    return {}


def read_tensor(folder: Path, name: str) -> torch.Tensor:
    """Return one tensor of a checkpoint, on the CPU, in the dtype of its file."""
    file = tensor_files(folder)[name]
    try:
        with safe_open(file, framework="pt") as tensors:
            return tensors.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: damaged: {error}") from None
