"""Tokenised prompts and responses with their masks, and the pairs of re-alignment."""

import sys
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, cast

from sipo_pl.data.loader import TrainingPair
from sipo_pl.data.preference import realignment_pairs as tokenized_pairs
from sipo_pl.data.rows import KeptRow
from sipo_pl.recipe.recipe import DEFAULT_TEXT, Template
from sipo_pl.released.masks import mask_common_prefix
from sipo_pl.text.templates import Encoded, PromptTemplate
from sipo_pl.text.tokenizers import load_template

IGNORED = -100  # label of a token that is no part of the response
PLAIN = DEFAULT_TEXT["plain"]


class Labelled(NamedTuple):
    """A tokenised prompt and response.

    Args:
        input_ids: BOS, prompt, response, EOS
        labels: the same, -100 where a token is not the response's
    """

    input_ids: list[int]
    labels: list[int]


class TextPair(NamedTuple):
    """A pair to train on.

    Args:
        raw_prompt: without template
        chosen: the preferred response
        rejected: the other
    """

    raw_prompt: str
    chosen: str
    rejected: str


def tokenize(base_model: str, raw_prompt: str, response: str, prompt_template: str = PLAIN) -> Labelled:
    """Tokenise a prompt and its response with the mask of training, scoring and decoding.

    Args:
        base_model: folder or hub name whose tokenizer is used.
        raw_prompt: without template.
        response: text; the empty one is EOS alone.
        prompt_template: text with the field {raw_prompt}.
    """
    return _labelled(template_of(base_model, prompt_template).encode(raw_prompt, response))


def tokenize_pair(
    base_model: str,
    raw_prompt: str,
    chosen: str,
    rejected: str,
    prompt_template: str = PLAIN,
    common_prefix_mask: bool = False,
) -> tuple[Labelled, Labelled]:
    """Tokenise both responses of a pair; return chosen and rejected.

    Args:
        base_model: folder or hub name whose tokenizer is used.
        raw_prompt: without template.
        chosen: text of the preferred response.
        rejected: text of the other.
        prompt_template: text with the field {raw_prompt}.
        common_prefix_mask: mask what both begin with alike, as the released code does by accident.
    """
    template = template_of(base_model, prompt_template)
    pair = TrainingPair("", template.encode(raw_prompt, chosen), template.encode(raw_prompt, rejected))
    if common_prefix_mask:
        pair = mask_common_prefix(pair)
    return _labelled(pair.chosen), _labelled(pair.rejected)


def realignment_pairs(
    base_model: str, raw_prompts: Sequence[str], positive: Sequence[str], negative: Sequence[str], kept: Sequence[str]
) -> list[TextPair]:
    """Return the pairs of re-alignment: each kept response over the one objective 1 prefers, then over the other.

    Args:
        base_model: folder or hub name whose tokenizer is used.
        raw_prompts: one for each kept response, without template.
        positive: the response of its pair that objective 1 prefers.
        negative: the other response of its pair.
        kept: the kept responses.
    """
    keys = ("prompt", "response_0", "response_1", "kept")
    rows = [
        {**dict(zip(keys, texts, strict=True)), "pair_id": str(index), "preferred": {"first": 0}}
        for index, texts in enumerate(zip(raw_prompts, positive, negative, kept, strict=True))
    ]
    pairs, _ = tokenized_pairs(cast("list[KeptRow]", rows), ["first"], template_of(base_model, PLAIN), sys.maxsize)
    return [TextPair(str(one.texts[0].prompt), one.texts[0].response, one.texts[1].response) for one in pairs]


def _labelled(row: Encoded) -> Labelled:
    return Labelled(row.input_ids, [IGNORED] * row.prompt_length + row.input_ids[row.prompt_length :])


@cache
def template_of(base_model: str, prompt_template: str) -> PromptTemplate:
    """Return the plain template `prompt_template` with the tokenizer of `base_model`."""
    return load_template(base_model, Template(text=prompt_template))
