"""Configs, tokenizers and weights that transformers reads, for all models: code of theirs never runs, and files that do
not hold a whole model are refused.

Every message begins with a label, such as ``base_model 'owner/name'``, that says which setting named the model.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import find_adapter_config_file

from sipo_pl.messages.errors import Stopped, UserError
from sipo_pl.storage.adapter_config import ADAPTER_CONFIG

log = logging.getLogger("sipo_pl")

CONFIG = "config.json"
# buffers that old versions of transformers saved, and later ones compute
_OLD_BUFFERS = re.compile(r"(^|\.)(rotary_emb\.inv_freq|position_ids|masked_bias)$")
# parts of a multimodal model that its language model alone does not have
_OTHER_SENSES = re.compile(r"vision|visual|image|audio|speech|multi_?modal|mm_projector", re.IGNORECASE)


def read_config(name: str | Path, label: str) -> PreTrainedConfig:
    """Read the config of a model's folder or hub name.

    Raises:
        UserError: no config, a model that only code of its own can compute, an adapter in the folder, or weights that
            are quantized already.
    """
    _refuse_adapter(name, label)
    with explained(label):
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    _refuse_quantized(config, label)
    return config


def read_tokenizer(name: str | Path, label: str, **options: Any) -> PreTrainedTokenizerBase:
    """Read the tokenizer of a model's folder or hub name; `options` are those of transformers.

    Raises:
        UserError: no tokenizer, or one that only code of its own can compute.
    """
    with explained(f"{label}: no tokenizer"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **options)
    return tokenizer


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, label: str) -> None:
    """Raise UserError where a tokenizer has tokens for which the model has no embedding.

    Special tokens, of images or for padding, may lie beyond (Gemma 3): `check_tokens` looks whether a text holds one.
    """
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if rows is None:
        return
    ends = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special} - {*ends}
    beyond = sorted((index, token) for token, index in tokenizer.get_vocab().items() if index >= rows)
    for index, token in beyond:
        if index not in special:
            raise UserError(
                f"{label}: its tokenizer has {beyond[-1][0] + 1} tokens and the model {rows} embeddings (vocab_size), "
                f"so that {token!r}, token {index}, has none; resize_token_embeddings of transformers adds what lacks"
            )


def read_weights(
    kind: Any,
    name: str | Path,
    label: str,
    *,
    config: PreTrainedConfig | None = None,
    made: Sequence[str] = (),
    unused: Sequence[str] = (),
    **options: Any,
) -> PreTrainedModel:
    """Read a model whose weights are all in its files, which are safetensors or GGUF.

    Args:
        kind: auto class of transformers.
        name: folder or hub name.
        label: what messages begin with.
        config: of the model; its own where not given.
        made: beginnings of the names of tensors that are drawn anew.
        unused: beginnings of the names of tensors that the class has no use for.
        options: further ones of `from_pretrained`.

    Raises:
        UserError: what `read_config` refuses, weights that cannot be read, and tensors that are missing, too many or of
            another shape, with the first of them and their number.
    """
    if config is None and "gguf_file" not in options:
        config = read_config(name, label)
    fixed = {"trust_remote_code": False, "use_safetensors": True, "output_loading_info": True}
    # shapes are told with those of all tensors below
    shapes = {"ignore_mismatched_sizes": True}
    with explained(label):
        model, report = kind.from_pretrained(
            name, **_given(config), **fixed, **shapes, **attention_of(config), **options
        )
    _refuse_partial(model, report, label, tuple(made), tuple(unused))
    if kind.__name__ in (getattr(model.config, "auto_map", None) or {}):
        log.warning("%s: it names code of its own, which is not run: %s computes it", label, type(model).__name__)
    return model


def attention_of(config: PreTrainedConfig | None) -> dict[str, Any]:
    """Return the option that lets a model attend as its family means it.

    Some versions of transformers give families whose scores are capped, such as Gemma 2, an attention that leaves the
    cap out, as `sdpa` does.
    """
    capped = config is not None and getattr(config.get_text_config(), "attn_logit_softcapping", None)
    return {"attn_implementation": "eager"} if capped else {}


def _given(config: PreTrainedConfig | None) -> dict[str, Any]:
    return {} if config is None else {"config": config}


@contextmanager
def explained(label: str) -> Iterator[None]:
    """Within the block, whatever a library says about a model's files becomes an error of one line."""
    try:
        yield
    except (UserError, Stopped, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # libraries raise all kinds for files that they do not expect
        text = str(error).strip()
        if "trust_remote_code" in text:
            reason = (
                "it asks for code of its own (auto_map), which never runs here; take a model that transformers "
                "itself has a class for"
            )
        else:
            reason = text.split("\n")[0] or type(error).__name__
        raise UserError(f"{label}: {reason}") from error


def _refuse_adapter(name: str | Path, label: str) -> None:
    """Refuse a model with an adapter beside it, which transformers would put on top of the weights."""
    folder = Path(name)
    if folder.is_dir():
        is_there = (folder / ADAPTER_CONFIG).is_file()
        is_model = (folder / CONFIG).is_file()
    else:
        with explained(label):
            is_there, is_model = find_adapter_config_file(str(name)) is not None, True
    if is_there and is_model:
        raise UserError(
            f"{label}: an adapter ({ADAPTER_CONFIG}) lies beside the weights, and nothing tells whether they hold it "
            "already; move it away where they do, or merge it into them with `sipo_pl merge`"
        )
    if is_there:
        raise UserError(f"{label}: an adapter, not a model; `sipo_pl merge` makes a model of it and its base")


def _refuse_quantized(config: PreTrainedConfig, label: str) -> None:
    found = getattr(config, "quantization_config", None)
    if not found:
        return
    told: Mapping[str, Any] = found if isinstance(found, Mapping) else found.to_dict()
    method = told.get("quant_method") or "unknown"
    raise UserError(
        f"{label}: its weights are quantized already (quantization_config: {getattr(method, 'value', method)}); take "
        "the whole model that they were made from, whose weights `quantize: 4bit` in a recipe keeps in four bits"
    )


def _refuse_partial(
    model: PreTrainedModel, report: Mapping[str, Any], label: str, made: tuple[str, ...], unused: tuple[str, ...]
) -> None:
    """Refuse a model of which transformers drew tensors at random, or left some of its files' unread."""
    kind = type(model).__name__
    parameters = {name for name, _ in model.named_parameters()}  # a tied head is the embedding here
    missing = sorted(one for one in report["missing_keys"] if one in parameters and not one.startswith(made))
    others = sorted(one for one in report["unexpected_keys"] if not _may_be_left(one, model, unused))
    shapes = sorted((name, tuple(found), tuple(expected)) for name, found, expected in report["mismatched_keys"])
    shapes = [one for one in shapes if not one[0].startswith(made)]
    if missing:
        instead = f", and hold {others[0]} ({len(others)} such), which has no place in it" if others else ""
        raise UserError(f"{label}: its files lack {missing[0]} of {kind} ({len(missing)} such){instead}")
    if shapes:
        name, found, expected = shapes[0]
        raise UserError(
            f"{label}: in its files {name} has the shape {found}, expected {expected} by {kind} of its config "
            f"({len(shapes)} such)"
        )
    if others:
        raise UserError(f"{label}: its files hold {others[0]} ({len(others)} such), which has no place in {kind}")
    if errors := report["error_msgs"]:
        raise UserError(f"{label}: {str(errors[0]).strip().splitlines()[0]}")


def _may_be_left(name: str, model: PreTrainedModel, unused: tuple[str, ...]) -> bool:
    """Return whether a tensor of a model's files may stay unread."""
    if name.startswith(unused) or _OLD_BUFFERS.search(name):
        return True
    # of a multimodal model the language model alone may be read
    return _OTHER_SENSES.search(name) is not None and not _OTHER_SENSES.search(type(model).__name__)
