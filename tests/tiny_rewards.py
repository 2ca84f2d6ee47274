"""Tiny reward models of random weights, laid out exactly as the released ones."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny import make_tiny_tokenizer
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaModel,
    MistralConfig,
    MistralModel,
    PreTrainedModel,
)

from sipo_pl.text.prompt import TextRow

_SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_DECODER = {**_SIZES, "num_key_value_heads": 2, "initializer_range": 0.3, "bos_token_id": 1, "eos_token_id": 2}
ROWS = [
    TextRow("Why?", " Because."),
    TextRow("How many {response}?", " Three, and then some more of them."),
    TextRow([{"role": "user", "content": "Über"}], ""),
    TextRow("Why?", " No."),
]


def make_classifier(folder: Path, kind: str = "llama", labels: int = 3, seed: int = 0, **tokenizer: Any) -> Path:
    """Write a sequence classifier of Llama or BERT with its tokenizer."""
    tokens = make_tiny_tokenizer(**tokenizer)
    torch.manual_seed(seed)
    names = {"id2label": dict(enumerate(["bad", "fair", "good"][:labels])), "vocab_size": len(tokens)}
    pad = {"pad_token_id": tokens.pad_token_id, "max_position_embeddings": 256}
    model: PreTrainedModel = (
        LlamaForSequenceClassification(LlamaConfig(**_DECODER, **names, **pad))
        if kind == "llama"
        else BertForSequenceClassification(BertConfig(**_SIZES, **names, **pad, initializer_range=0.3))
    )
    return _save(folder, model, tokens)


def make_dpa(folder: Path, head: str = "score", bias: bool = True, **changes: Any) -> Path:
    """Write a checkpoint like RLHFlow's: a Mistral decoder, one layer of ten outputs, and a class of remote code."""
    torch.manual_seed(1)
    tokens = make_tiny_tokenizer()
    decoder = MistralModel(MistralConfig(**_DECODER, vocab_size=len(tokens), max_position_embeddings=1024))
    layer = torch.nn.Linear(32, 10, bias=bias)
    torch.nn.init.normal_(layer.weight, std=5.0)
    config = {
        "architectures": ["MistralForAttributePrediction"],
        "auto_map": {"AutoModelForSequenceClassification": "modeling_custom.MistralForAttributePrediction"},
        "id2label": {str(index): f"LABEL_{index}" for index in range(10)},
        "label2id": {f"LABEL_{index}": index for index in range(10)},
        "sliding_window": None,
    }
    tensors = {f"{head}.{name}": value for name, value in layer.state_dict().items()}
    folder.mkdir(parents=True)
    (folder / "modeling_custom.py").write_text("raise SystemExit('remote code ran')\n", encoding="utf-8")
    return _save_decoder(folder, decoder, tensors, {**config, **changes}, tokens)


def make_beaver(folder: Path, score_type: str = "reward", seed: int = 2, **changes: Any) -> Path:
    """Write a checkpoint like PKU-Alignment's LlamaModelForScore, with its head and its normaliser's buffers."""
    torch.manual_seed(seed)
    tokens = make_tiny_tokenizer(pad=True)
    decoder = LlamaModel(LlamaConfig(**_DECODER, vocab_size=len(tokens), max_position_embeddings=512))
    config = {
        "architectures": ["LlamaModelForScore"],
        "bias": False,
        "do_normalize": False,
        "normalizer_type": None,
        "score_dim": 1,
        "score_type": score_type,
    }
    tensors = {
        "score_head.weight": torch.randn(1, 32),
        "normalizer.mean": torch.tensor([1.5]),
        "normalizer.var": torch.tensor([4.0]),
        "normalizer.count": torch.tensor([7]),
    }
    return _save_decoder(folder, decoder, tensors, {**config, **changes}, tokens)


def rewrite_tensors(folder: Path, drop: str = "", **added: Tensor) -> None:
    """Leave tensors out whose names begin so, and add others."""
    tensors = {name: value for name, value in read_tensors(folder).items() if not drop or not name.startswith(drop)}
    save_file({**tensors, **added}, folder / "model.safetensors", metadata={"format": "pt"})


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a tiny checkpoint."""
    return load_file(folder / "model.safetensors")


def change_config(folder: Path, **changes: Any) -> None:
    """Change keys of a model's config."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def to_bin(folder: Path) -> Path:
    """Turn a model's weights into a pickle, as old models have them."""
    torch.save(read_tensors(folder), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def last_state(folder: Path, ids: list[int], dtype: torch.dtype = torch.float32, **config: Any) -> Tensor:
    """Return the last state of a decoder over one text, by transformers alone: (32,)."""
    from transformers import AutoConfig

    settings = AutoConfig.from_pretrained(folder, **config)
    kind = MistralModel if settings.model_type == "mistral" else LlamaModel
    model = kind(settings)
    prefix = "model."
    tensors = {k.removeprefix(prefix): v for k, v in read_tensors(folder).items() if k.startswith(prefix)}
    model.load_state_dict(tensors)
    with torch.no_grad():
        states = model.to(dtype).eval()(torch.tensor([ids])).last_hidden_state
    found: Tensor = states[0, -1]
    return found


def _save(folder: Path, model: PreTrainedModel, tokens: Any) -> Path:
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


def _save_decoder(
    folder: Path, decoder: PreTrainedModel, tensors: dict[str, Tensor], config: dict[str, Any], tokens: Any
) -> Path:
    _save(folder, decoder, tokens)
    own = {f"model.{name}": value.contiguous() for name, value in decoder.state_dict().items()}
    save_file({**own, **tensors}, folder / "model.safetensors", metadata={"format": "pt"})
    change_config(folder, **config)
    return folder
