"""Base models whose linear weights are kept in four bits, as in QLoRA (arXiv 2305.14314)."""

import importlib.util
from typing import Any

import torch
from transformers import PreTrainedModel

from sipo_pl.messages.errors import UsageError

LIBRARY = "bitsandbytes"


def check_four_bits() -> None:
    """Raise UsageError unless weights in four bits can be used here; no weight is read."""
    if importlib.util.find_spec(LIBRARY) is None:
        raise UsageError(
            f"recipe.quantize: 4bit needs {LIBRARY}, which is not installed: pip install 'sipo_pl[quantize]'"
        )
    from transformers.integrations import is_deepspeed_zero3_enabled

    if is_deepspeed_zero3_enabled():
        raise UsageError("recipe.quantize: 4bit weights cannot be divided by ZeRO-3; strategies/deepspeed_zero2.yaml")


def keep_differentiable(model: PreTrainedModel) -> None:
    """Keep four-bit layers in the form through which gradients flow.

    On a CPU a layer in eval mode would bring its weights into one for inference alone, with the first forward without
    gradients, and a fit would then train on gradients that lack what comes through frozen layers.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def four_bits(dtype: torch.dtype) -> Any:
    """Return what transformers is told: NormalFloat in blocks whose scales are quantized too, products in `dtype`."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
