"""What `sipo_pl.interop.pretrained` takes for granted of transformers' loading."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, Gemma2Config, LlamaConfig

from sipo_pl.interop.pretrained import attention_of, read_weights

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "initializer_range": 0.5,
}


@pytest.mark.parametrize("kind", [AutoModelForCausalLM, AutoModelForSequenceClassification])
def test_scores_that_a_family_caps_are_capped(tmp_path: Path, kind: type) -> None:
    torch.manual_seed(0)
    config = Gemma2Config(**SIZES, attn_logit_softcapping=1.0, pad_token_id=0)
    kind.from_config(config).save_pretrained(tmp_path)  # type: ignore[attr-defined]
    ids = torch.arange(1, 20)[None]
    with torch.inference_mode():
        found = read_weights(kind, tmp_path, "the model")(ids).logits
        capped = kind.from_pretrained(tmp_path, attn_implementation="eager")  # type: ignore[attr-defined]
        torch.testing.assert_close(found, capped(ids).logits)
        capped.config.attn_logit_softcapping = None
        for layer in capped.model.layers:
            layer.self_attn.attn_logit_softcapping = None
        assert not torch.allclose(found, capped(ids).logits, atol=0.01)


def test_other_families_attend_as_transformers_likes() -> None:
    assert attention_of(LlamaConfig(**SIZES)) == {}
    assert attention_of(None) == {}
