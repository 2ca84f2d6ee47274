"""A tiny Llama with a byte-level tokenizer, made in a second, so that tests need no download."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}\n{{ message['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def make_tiny_model(
    folder: Path,
    seed: int = 0,
    *,
    eos: bool = True,
    bos: bool = True,
    pad: bool = False,
    chat_template: str | None = None,
    spread: float = 0.02,
) -> Path:
    """Write model and tokenizer into `folder` as safetensors; one token a byte, so that lengths are plain to see.

    Weights have the standard deviation `spread`; at 0.3 the next tokens differ by far, so that greedy texts vary.
    """
    tokenizer = make_tiny_tokenizer(eos=eos, bos=bos, pad=pad, chat_template=chat_template)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=spread,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tiny_adapter(folder: Path, base_model: Path, seed: int, *, spread: float = 0.1, **settings: object) -> Path:
    """Write a LoRA adapter of random weights, through plain peft; `settings` go to its LoraConfig."""
    chosen = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"], **settings}
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base_model), LoraConfig(task_type="CAUSAL_LM", **chosen)
    )
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=spread, generator=generator)
    model.save_pretrained(folder)
    return folder


def make_tiny_tokenizer(
    *, eos: bool = True, bos: bool = True, pad: bool = False, chat_template: str | None = None
) -> PreTrainedTokenizerFast:
    """Return a tokenizer of 256 bytes and four special tokens, with one token a byte and no merges."""
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    vocabulary = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(vocabulary)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
        )
    tokenizer.add_special_tokens(special)
    named = {"bos_token": "<s>" if bos else None, "eos_token": "</s>" if eos else None}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>" if pad else None, **named
    )
    fast.chat_template = chat_template
    return fast


def opposed_pairs(count: int) -> list[dict[str, Any]]:
    """Return prepared pairs of which the objectives `a` and `b` always prefer different responses.

    Args:
        count: how many; responses have various lengths.
    """
    return [
        {
            "pair_id": f"p{index}",
            "prompt_id": f"x{index}",
            "prompt": f"prompt {index}",
            "response_0": "yes " * (index + 1),
            "response_1": f"no {index}",
            "preferred": {"a": index % 2, "b": 1 - index % 2},
        }
        for index in range(count)
    ]
