"""LoRA adapters as plain PEFT folders in and out, and their arithmetic.

In memory an adapter is a mapping from module name to (A, B), float32, of shapes (r, in) and (out, r), with the scale
folded into B, so that its effect is B A x.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from sipo_pl.engine.lora.stack import LoRAStack
from sipo_pl.engine.models.made_over import check_adapter
from sipo_pl.messages.errors import UserError
from sipo_pl.storage.adapter_config import WEIGHTS_FILE, read_adapter_config
from sipo_pl.storage.files import atomic_path

Factors = dict[str, tuple[Tensor, Tensor]]

_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Adapter:
    """An adapter read from a PEFT folder.

    Args:
        factors: module name -> (A, B), scale folded into B
        rank: rank of its configuration
        scale: scale of its configuration, already in B
        base: the base model that its configuration names
    """

    factors: Factors
    rank: int
    scale: float
    base: str | None


def read_adapter(folder: Path, over: str | None = None) -> Adapter:
    """Read a PEFT LoRA folder.

    Args:
        folder: the folder.
        over: folder or hub name of the base model that it is to be used over, see `made_over.check_adapter`; where not
            given, nothing is held against the stage that made it.

    Raises:
        UserError: what `read_adapter_config` refuses, weights that are damaged or not finite, or an adapter that was
            made over another base model.
    """
    read_adapter_config(folder)
    if over is not None:
        check_adapter(folder, over)
    try:
        config = LoraConfig.from_pretrained(str(folder))
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder}: not a LoRA adapter: {error}") from None
    if not isinstance(config, LoraConfig):
        raise UserError(f"{folder}: not a LoRA adapter but {config.peft_type}")
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
    except Exception as error:  # safetensors raises its own untyped error
        raise UserError(f"{folder / WEIGHTS_FILE}: damaged: {error}") from None
    return Adapter(
        _pair_up(folder, tensors, config),
        config.r,
        _scale(config.lora_alpha, config.r, config),
        config.base_model_name_or_path,
    )


def _scale(alpha: float, rank: int, config: LoraConfig) -> float:
    return alpha / rank**0.5 if config.use_rslora else alpha / rank


def _pair_up(folder: Path, tensors: Mapping[str, Tensor], config: LoraConfig) -> Factors:
    factors: Factors = {}
    for key in sorted(tensors):
        if not tensors[key].isfinite().all():
            raise UserError(f"{folder / WEIGHTS_FILE}: {key!r} holds numbers that are not finite (nan or inf)")
        name, _, kind = key.removeprefix(_PREFIX).rpartition(".lora_")
        if kind not in ("A.weight", "B.weight"):
            raise UserError(f"{folder / WEIGHTS_FILE}: unexpected tensor {key!r}")
        beside = "lora_A" if kind == "B.weight" else "lora_B"
        other = tensors.get(f"{_PREFIX}{name}.{beside}.weight")
        if other is None:
            raise UserError(f"{folder / WEIGHTS_FILE}: {key!r} has no {beside} beside it")
        if kind == "B.weight":
            continue
        a, b = tensors[key].float(), other.float()
        rank = a.shape[0]
        if b.shape[1] != rank:
            raise UserError(f"{folder / WEIGHTS_FILE}: {name!r} has rank {rank} in lora_A, {b.shape[1]} in lora_B")
        pattern = config.alpha_pattern or {}
        alpha = pattern.get(get_pattern_key(list(pattern), name), config.lora_alpha)
        factors[name] = (a, b * _scale(alpha, rank, config))
    if not factors:
        raise UserError(f"{folder / WEIGHTS_FILE}: holds no adapter")
    return factors


def write_adapter(folder: Path, factors: Factors, *, base_model: str) -> None:
    """Write an adapter as a PEFT folder, atomically; its scale is in B, so that lora_alpha equals the rank."""
    ranks = {name: a.shape[0] for name, (a, _) in factors.items()}
    rank = max(ranks.values())
    others = {name: other for name, other in ranks.items() if other != rank}
    layers = sorted({name.rpartition(".")[2] for name in factors})
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        rank_pattern=others,
        alpha_pattern=dict(others),
        lora_dropout=0.0,
        target_modules=layers,
        base_model_name_or_path=base_model,
        task_type="CAUSAL_LM",
        inference_mode=True,
    )
    config.target_modules = layers  # a set, else written in another order by each process
    tensors = {}
    for name, (a, b) in factors.items():
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = a.contiguous()
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = b.contiguous()
    with atomic_path(folder) as aside:
        aside.mkdir()
        save_file(tensors, aside / WEIGHTS_FILE, metadata={"format": "pt"})
        config.save_pretrained(str(aside))


def interpolate(adapters: Sequence[Factors], weights: Sequence[float]) -> Factors:
    """Return the adapter with A = sum_i w_i A_i and B = sum_i w_i B_i (the released reward models and soups).

    It differs from the sum of the products w_i B_i A_i by cross terms.

    Raises:
        UserError: adapters of other ranks or modules.
    """
    first = adapters[0]
    for other in adapters[1:]:
        if {name: a.shape for name, (a, _) in first.items()} != {name: a.shape for name, (a, _) in other.items()}:
            raise UserError("adapters of different ranks or target modules cannot be interpolated")
    return {
        name: (
            _weighted_sum([adapter[name][0] for adapter in adapters], weights),
            _weighted_sum([adapter[name][1] for adapter in adapters], weights),
        )
        for name in first
    }


def _weighted_sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    return torch.stack([w * tensor for w, tensor in zip(weights, tensors, strict=True)]).sum(dim=0)


def concatenate(first: Factors, second: Factors) -> Factors:
    """Return the adapter of concatenated ranks, whose effect is the sum of both effects exactly."""
    joined = dict(first)
    for name, (a, b) in second.items():
        if name in joined:
            a, b = torch.cat([joined[name][0], a]), torch.cat([joined[name][1], b], dim=1)
        joined[name] = (a, b)
    return joined


def weighted_sum(adapters: Sequence[Factors], weights: Sequence[float]) -> Factors:
    """Return the adapter of concatenated ranks whose effect is sum_i w_i B_i A_i exactly, PEFT's "cat".

    It differs from `interpolate` by that one's cross terms, and takes adapters of any ranks and modules. Weights of
    zero add no ranks.
    """
    total: Factors = {}
    for adapter, weight in zip(adapters, weights, strict=True):
        if weight:
            total = concatenate(total, {name: (a, weight * b) for name, (a, b) in adapter.items()})
    return total


def trained_factors(stack: LoRAStack) -> Factors:
    """Return the ranks in training, scale folded into B, detached on the CPU."""
    factors = {}
    for name, layer in stack.layers.items():
        if layer.lora_A is not None and layer.lora_B is not None:
            a, b = (one.detach()[0].float().cpu() for one in (layer.lora_A, layer.lora_B))
            factors[name] = (a.clone(), b * layer.scale)
    return factors


def check_fit(folder: Path, factors: Factors, model: PreTrainedModel) -> None:
    """Raise UserError unless every tensor fits the base model's layer of its name."""
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for name, (a, b) in factors.items():
        layer = linears.get(name)
        if layer is None:
            raise UserError(
                f"{folder}: adapts {name!r}, which the base model does not have: an adapter of another base?"
            )
        found, expected = (a.shape[1], b.shape[0]), (layer.in_features, layer.out_features)
        if found != expected:
            raise UserError(
                f"{folder}: {name!r} maps {found[0]} to {found[1]} features, the base model's layer "
                f"{expected[0]} to {expected[1]}: an adapter of another base?"
            )
