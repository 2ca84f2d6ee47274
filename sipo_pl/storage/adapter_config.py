"""What `adapter_config.json` says of a PEFT adapter, read without torch, so that it can come before all work."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sipo_pl.messages.errors import UserError

ADAPTER_CONFIG = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_INITS_OF_ADAPTER_ALONE = (True, False, "gaussian", "orthogonal", "eva")  # pissa, olora, … change the base weights too
# settings of peft's LoRA under which an adapter is more than B A x; an adapter may name them as off
_MORE_THAN_FACTORS = (
    "use_dora",
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "lora_bias",
    "layer_replication",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
)


def read_adapter_config(folder: Path) -> Mapping[str, Any]:
    """Return what the config of a PEFT folder says.

    Raises:
        UserError: no adapter there, one that is not LoRA or that a stack of factors cannot carry (DoRA, bias,
            modules_to_save, an initialisation that changes the base weights), or no safetensors beside it.
    """
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        raise UserError(f"{folder}: no PEFT adapter here ({ADAPTER_CONFIG} is missing)")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: damaged: {error}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: damaged: expected a mapping, found {type(config).__name__}")
    if (kind := config.get("peft_type", "LORA")) != "LORA":
        raise UserError(f"{folder}: not a LoRA adapter but {kind}")
    carried: dict[str, Any] = {name: config.get(name) for name in _MORE_THAN_FACTORS}
    carried["bias"] = config.get("bias", "none") != "none"
    carried["init_lora_weights"] = config.get("init_lora_weights", True) not in _INITS_OF_ADAPTER_ALONE
    if refused := [name for name, value in carried.items() if value]:
        raise UserError(f"{folder}: {', '.join(refused)} cannot be carried by stacked adapters")
    if not (folder / WEIGHTS_FILE).is_file():
        raise UserError(f"{folder}: {WEIGHTS_FILE} is missing; weights are read as safetensors only{_convert(folder)}")
    return config


def _convert(folder: Path) -> str:
    """Return the command that converts the pickled weights of an adapter, where there are such."""
    pickled = folder / "adapter_model.bin"
    if not pickled.is_file():
        return ""
    return (
        f'; convert them: python -c "import torch, safetensors.torch as s; '
        f"s.save_file({{k: v.contiguous() for k, v in torch.load('{pickled}', weights_only=True).items()}}, "
        f"'{folder / WEIGHTS_FILE}')\""
    )
