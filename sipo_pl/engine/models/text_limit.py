"""The longest text of a model, where it has one: its learned positions end there, or its rotary scaling switches.

Most rotary models have none: `max_position_embeddings` says what they were trained on, and longer texts are computed.
A scaling that switches (dynamic NTK, longrope) does so for all rows of a forward when the longest one passes the
border, so that a row would change with its company; longer texts are therefore refused.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from sipo_pl.messages.errors import UserError

_POSITIONS = re.compile(r"pos|wpe")


class TextLimit(NamedTuple):
    """How long a text may be.

    Args:
        tokens: the most, prompt and response together, EOS included
        why: what the model has there
    """

    tokens: int
    why: str

    def check(self, tokens: int, what: str) -> None:
        """Raise UserError where a text, called `what`, has more tokens."""
        if tokens > self.tokens:
            raise UserError(f"{what}: {tokens} tokens, and the base model has {self.why} {self.tokens}")


def check_tokens(largest: int, vocabulary: int, what: str = "a text") -> None:
    """Raise UserError where a text, called `what`, holds a token for which a model has no embedding."""
    if largest >= vocabulary:
        raise UserError(
            f"{what} holds token {largest}, and the base model has embeddings of {vocabulary} (vocab_size); its "
            "tokenizer has tokens that it has not"
        )


def text_limit(model: PreTrainedModel) -> TextLimit | None:
    """Return the longest text of a model, which may be one without weights; None where there is none."""
    found = [*_rotary_limits(model.config.get_text_config()), *_learned_limits(model)]
    return min(found, default=None, key=lambda limit: limit.tokens)


def config_text_limit(config: PreTrainedConfig) -> TextLimit | None:
    """Return the longest text of a rotary model by its config alone.

    Raises:
        LookupError: the model is not rotary, so that its layers have to be looked at.
    """
    text = config.get_text_config()
    if not getattr(text, "rope_parameters", None):
        raise LookupError
    return min(_rotary_limits(text), default=None, key=lambda limit: limit.tokens)


def _rotary_limits(config: PreTrainedConfig) -> Iterator[TextLimit]:
    for scaling in _scalings(getattr(config, "rope_parameters", None)):
        kind = str(scaling.get("rope_type", "default"))
        tokens = None
        if "dynamic" in kind:
            tokens = config.max_position_embeddings
        elif kind == "longrope":
            tokens = scaling.get("original_max_position_embeddings") or config.max_position_embeddings
        if tokens is not None:
            yield TextLimit(int(tokens), f"a rotary scaling ({kind}) that switches for longer texts than")


def _scalings(found: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the rotary settings of a config, of which layers of one type may have their own."""
    if isinstance(found, Mapping):
        if "rope_type" in found:
            yield found
        for inner in found.values():
            yield from _scalings(inner)


def _learned_limits(model: PreTrainedModel) -> Iterator[TextLimit]:
    tokens = model.get_input_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and module is not tokens and _POSITIONS.search(name.rpartition(".")[2]):
            before = 0 if module.padding_idx is None else module.padding_idx + 1  # RoBERTa counts on from the padding
            count = module.num_embeddings - int(getattr(module, "offset", before))
            yield TextLimit(count, "learned positions, which end at")
