"""Tiny models of many families, and their own forward over whole texts."""

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from sipo_pl.interop.pretrained import attention_of

VOCABULARY = 97
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
# windows are shorter than the texts of the tests, so that they hide something
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Qwen2": {"use_sliding_window": False},
    "Qwen3": {},
    "Mistral": {"sliding_window": 7},
    "Gemma": {},
    "Gemma2": {
        "sliding_window": 6,
        "query_pre_attn_scalar": 16,
        "attn_logit_softcapping": 2.0,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "Gemma3Text": {
        "sliding_window": 6,
        "query_pre_attn_scalar": 16,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "Phi3": {},
    "Olmo2": {},
    "Cohere": {},
    "Granite": {},
    "DeepseekV3": {  # heads of keys and of values differ in size
        "head_dim": None,
        "num_key_value_heads": 4,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8,
        "v_head_dim": 12,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "moe_intermediate_size": 32,
        "first_k_dense_replace": 1,
    },
    "OPT": {"ffn_dim": 96, "word_embed_proj_dim": 64},
}


def tiny_family(name: str, **settings: Any) -> PreTrainedModel:
    """Return a tiny frozen model of a family, with weights so large that attention is far from even.

    A setting that is None is not given.
    """
    torch.manual_seed(0)
    chosen = _SIZES | FAMILIES.get(name, {}) | settings
    config = getattr(transformers, f"{name}Config")(
        **{key: value for key, value in chosen.items() if value is not None}
    )
    model = AutoModelForCausalLM.from_config(config, **attention_of(config)).requires_grad_(False).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.mul_(5)
    return model


@torch.inference_mode()
def own_states(model: PreTrainedModel, tokens: Sequence[int]) -> Tensor:
    """Return the hidden states of the model's own forward, (tokens, hidden)."""
    return model.get_decoder()(input_ids=torch.tensor([list(tokens)])).last_hidden_state[0]
