"""Base models and tokenizers as they are loaded."""

from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from sipo_pl.engine.models.model_check import check_model
from sipo_pl.engine.models.quantization import check_four_bits, four_bits, keep_differentiable
from sipo_pl.engine.models.text_limit import TextLimit, config_text_limit, text_limit
from sipo_pl.interop.pretrained import (
    attention_of,
    explained,
    read_config,
    read_weights,
)
from sipo_pl.storage.model_hashes import base_model_label, refuse_pickles, resolve_base_model
from sipo_pl.text.tokenizers import load_tokenizer as load_tokenizer  # earlier scripts find both here


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
    label = base_model_label(base_model)
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
    label = base_model_label(base_model)
    config = read_config(resolve_base_model(base_model), label)
    with explained(label), torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, trust_remote_code=False, **attention_of(config)
        )
    return model


def base_limits(base_model: str) -> tuple[int, TextLimit | None]:
    """Return how many tokens a base model has embeddings of, and its longest text; no weight is read."""
    config = read_config(resolve_base_model(base_model), base_model_label(base_model))
    vocabulary = int(config.get_text_config().vocab_size)
    try:
        return vocabulary, config_text_limit(config)
    except LookupError:  # its positions are learned, or come from its attention
        return vocabulary, text_limit(load_outline(base_model))
