"""Hashes of models that a hub name stands for: of the name, and of the files that the hub's cache holds under it.

What is not downloaded yet, or not whole, has the first part alone. Such a hash agrees with both, see
`hashes.same_hash`, so a stage that downloaded the model itself is not held against files that it could not know.
"""

import json
from pathlib import Path

from sipo_pl.storage.hash_memory import file_hash
from sipo_pl.storage.hashes import HASH_PARTS, content_hash

_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_TOKENIZER = "tokenizer.json"


def hub_weights_hash(name: str) -> str:
    """Return the hash of a model on the hub: of its name, and of its config and weights where the cache holds all."""
    folder = _cached_folder(name, _CONFIG)
    weights = _weights_in(folder) if folder else []
    return _hash(name, [folder / _CONFIG, *weights] if folder and weights else [])


def hub_tokenizer_hash(name: str) -> str:
    """Return the hash of a tokenizer on the hub: of its name, and of its vocabulary where the cache holds it."""
    folder = _cached_folder(name, _TOKENIZER)
    return _hash(name, [folder / _TOKENIZER] if folder else [])


def _hash(name: str, files: list[Path]) -> str:
    parts = [content_hash(name)]
    if files:
        parts.append(content_hash({file.name: _content(file) for file in files}))
    return HASH_PARTS.join(parts)


def _content(file: Path) -> str:
    """Return what tells a file's content; the cache keeps it under a name that is a hash of it."""
    return file.resolve().name if file.is_symlink() else file_hash(file)


def _cached_folder(name: str, file: str) -> Path | None:
    """Return the folder of the newest revision that was downloaded of a model; None where it lacks a file."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, file)
    except HFValidationError:  # whoever loads it says that it is no name
        return None
    return Path(found).parent if isinstance(found, str) else None


def _weights_in(folder: Path) -> list[Path]:
    """Return the weight files of a downloaded model; none where one of them is missing."""
    index = folder / _INDEX
    names = {_WEIGHTS}
    if index.is_file():
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            return []
    files = sorted(folder / str(name) for name in names)
    return files if all(file.is_file() for file in files) else []
