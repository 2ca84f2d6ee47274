"""Base models whose linear weights are kept in four bits, as in QLoRA (arXiv 2305.14314)."""

import importlib.util
from typing import Any

import torch

from sipo_pl.errors import UsageError

LIBRARY = "bitsandbytes"


def check_four_bits() -> None:
    """Raise UsageError unless weights in four bits can be used here; no weight is read."""
    if not torch.cuda.is_available():
        raise UsageError("recipe.quantize: 4bit needs an NVIDIA GPU, and none is to be seen here")
    if importlib.util.find_spec(LIBRARY) is None:
        raise UsageError(f"recipe.quantize: 4bit needs {LIBRARY}, which is not installed: pip install {LIBRARY}")
    from transformers.integrations import is_deepspeed_zero3_enabled

    if is_deepspeed_zero3_enabled():
        raise UsageError("recipe.quantize: 4bit weights cannot be divided by ZeRO-3; strategies/deepspeed_zero2.yaml")


def four_bits(dtype: torch.dtype) -> Any:
    """Return what transformers is told: NormalFloat in blocks whose scales are quantized too, products in `dtype`."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
