"""Base models whose layers are spread over several devices, by transformers' device map."""

import torch
from torch import nn
from transformers import PreTrainedModel

from sipo_pl.interop.transformers import execution_device


def device_of(layer: nn.Module) -> torch.device:
    """Return the device that a layer computes on, though its weights may wait elsewhere."""
    return execution_device(layer) or next(layer.parameters()).device


def is_spread(model: PreTrainedModel) -> bool:
    """Return whether some layers of a model are elsewhere than others."""
    return len(set(getattr(model, "hf_device_map", {}).values())) > 1
