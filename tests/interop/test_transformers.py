"""What `sipo_pl.interop.transformers` takes for granted of transformers."""

import torch
from torch import nn
from transformers import GPT2Config, LlamaConfig, LlamaForCausalLM, MambaConfig, MambaForCausalLM, PretrainedConfig

from sipo_pl.interop.transformers import (
    attention_name,
    execution_device,
    has_sequence_classifier,
    is_stateful,
    sdpa_attention_forward,
)


class Unknown(PretrainedConfig):
    """A family that transformers has no class for."""


def test_attention_name_follows_what_is_set() -> None:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=8, **sizes))
    model.set_attn_implementation("eager")

    assert attention_name(model) == "eager"


def test_sdpa_attention_is_softmax_attention() -> None:
    query, key, value = torch.randn(3, 1, 2, 4, 8).unbind()
    module = nn.Module()
    module.is_causal = True

    found = sdpa_attention_forward(module, query, key, value, None, scaling=0.5, is_causal=True)[0]

    scores = (query @ key.mT * 0.5).masked_fill(torch.ones(4, 4, dtype=torch.bool).triu(1), float("-inf"))
    torch.testing.assert_close(found, (scores.softmax(-1) @ value).transpose(1, 2))


def test_a_device_map_says_where_a_layer_computes() -> None:
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    layer = nn.Linear(2, 2)
    assert execution_device(layer) is None
    add_hook_to_module(layer, AlignDevicesHook(execution_device="cpu"))

    assert execution_device(layer) == torch.device("cpu")


def test_families_with_and_without_a_classifier() -> None:
    assert has_sequence_classifier(LlamaConfig())
    assert has_sequence_classifier(GPT2Config())
    assert not has_sequence_classifier(Unknown())


def test_families_with_a_state_say_so() -> None:
    mamba = MambaForCausalLM(MambaConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, state_size=2))

    assert is_stateful(mamba)
    assert not is_stateful(
        LlamaForCausalLM(
            LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
        )
    )
