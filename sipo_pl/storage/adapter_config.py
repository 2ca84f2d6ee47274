"""What `adapter_config.json` says of a PEFT adapter, read without torch, so that it can come before all work."""

import json
import math
import re
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

_LONGEST_PATTERN = 1000
_MOST_WAYS = 10**6  # in which a pattern may try to match one name
_LONGEST_NAME = 100  # of a module, roughly
_LETTERS = re.compile(r"\\.|\[\^?\]?[^\]]*\]")  # what stands for one letter: an escape, a set
_KIND_OF_GROUP = re.compile(r"(?<=\()\?[^:=!)]*[:=!)]?")
_REPEATED_GROUP = re.compile(r"\)[*+{]")
_REPEAT = re.compile(r"[*+]|\{\d*,\d*\}")


def read_adapter_config(folder: Path) -> Mapping[str, Any]:
    """Return what the config of a PEFT folder says.

    Raises:
        UserError: no adapter there, one that is not LoRA or that a stack of factors cannot carry (DoRA, bias,
            modules_to_save, an initialisation that changes the base weights), ranks or scales that are no numbers, a
            pattern of module names that could take for ever, or no safetensors beside it.
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
    _check_scales(path, config)
    if not (folder / WEIGHTS_FILE).is_file():
        raise UserError(f"{folder}: {WEIGHTS_FILE} is missing; weights are read as safetensors only{_convert(folder)}")
    return config


def _check_scales(path: Path, config: Mapping[str, Any]) -> None:
    rank = config.get("r", 8)
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise UserError(f"{path}: r: expected a whole number from 1 on, found {rank!r}")
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise UserError(f"{path}: alpha_pattern: expected patterns and numbers, found {patterns!r}")
    for name, alpha in {"lora_alpha": config.get("lora_alpha", 8), **patterns}.items():
        if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
            raise UserError(f"{path}: {name}: expected a number, found {alpha!r}")
    for pattern in patterns:
        if problem := _problem_of(pattern):
            raise UserError(f"{path}: alpha_pattern: {pattern[:80]!r} {problem}")


def _problem_of(pattern: str) -> str | None:
    """Say why a regular expression is not tried on names: it is none, or the time that it takes may know no bound."""
    if len(pattern) > _LONGEST_PATTERN:
        return f"has {len(pattern)} letters; at most {_LONGEST_PATTERN} are read"
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"is no regular expression: {error}"
    plain = _KIND_OF_GROUP.sub("", _LETTERS.sub("x", pattern))
    if _REPEATED_GROUP.search(plain) or _ways(plain) > _MOST_WAYS:
        return "repeats a group, or has so many choices that to try them may take for ever"
    return None


def _ways(plain: str) -> int:
    """Return in how many ways a regular expression without repeated groups may try to match a name, at most."""
    ways: int = _LONGEST_NAME ** len(_REPEAT.findall(plain)) * 2 ** plain.count("?")
    for part in re.split(r"[()]", plain):  # alternatives of a group may stand in several parts: more are counted
        ways *= 1 + part.count("|")
    return ways


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
