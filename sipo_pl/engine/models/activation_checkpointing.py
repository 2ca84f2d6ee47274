"""Layers that are computed again in the backward pass instead of keeping their states."""

from contextlib import AbstractContextManager, nullcontext

from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from sipo_pl.engine.decoding.attention import attend_along
from sipo_pl.engine.logprobs.packed_attention import NAME
from sipo_pl.interop.transformers import attention_name


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Let a model's layers keep nothing but their inputs; they are computed again with the attention of packed rows."""

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        packed = attention_name(model) == NAME
        return nullcontext(), attend_along(model, NAME) if packed else nullcontext()

    model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True  # of this module alone: what is inside stays in eval mode, without dropout
