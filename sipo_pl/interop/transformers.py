"""Internals of transformers: how a model attends, where a layer computes, which classes a config has."""

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

__all__ = ["attention_name", "execution_device", "has_sequence_classifier", "is_stateful", "sdpa_attention_forward"]


def attention_name(model: PreTrainedModel) -> str:
    """Return the name of the attention function that a model uses now, as `set_attn_implementation` takes it."""
    name: str = model.config._attn_implementation
    return name


def execution_device(layer: nn.Module) -> torch.device | None:
    """Return the device that a device map lets a layer compute on; None for a layer under no device map."""
    place = getattr(getattr(layer, "_hf_hook", None), "execution_device", None)
    if place is None:
        return None
    return torch.device("cuda", place) if isinstance(place, int) else torch.device(place)


def has_sequence_classifier(config: PretrainedConfig) -> bool:
    """Return whether transformers has a sequence classifier for a model's family."""
    return type(config) in AutoModelForSequenceClassification._model_mapping


def is_stateful(model: PreTrainedModel) -> bool:
    """Return whether a family carries a state from token to token beside its attention, as Mamba does."""
    return bool(getattr(model, "_is_stateful", False))
