"""Base models whose layers are spread over several devices, by transformers' device map."""

import torch
from torch import nn
from transformers import PreTrainedModel


def device_of(layer: nn.Module) -> torch.device:
    """Return the device that a layer computes on, though its weights may wait elsewhere."""
    place = getattr(getattr(layer, "_hf_hook", None), "execution_device", None)
    if place is None:
        return next(layer.parameters()).device
    return torch.device("cuda", place) if isinstance(place, int) else torch.device(place)


def is_spread(model: PreTrainedModel) -> bool:
    """Return whether some layers of a model are elsewhere than others."""
    return len(set(getattr(model, "hf_device_map", {}).values())) > 1
