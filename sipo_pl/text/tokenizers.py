"""The tokenizer of a base model, what puts prompts to it, and the tokens that end its answers."""

import logging
from pathlib import Path

from transformers import PreTrainedTokenizerBase
from transformers.utils import CONFIG_NAME, GENERATION_CONFIG_NAME, cached_file

from sipo_pl.interop.pretrained import CONFIG, check_vocabulary, read_config, read_tokenizer
from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.recipe import Template
from sipo_pl.storage.json_lines import read_json, require_object
from sipo_pl.storage.model_hashes import base_model_label, resolve_base_model
from sipo_pl.text.templates import PromptTemplate

log = logging.getLogger("sipo_pl")


def load_tokenizer(base_model: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a base model.

    Raises:
        UserError: if it cannot be loaded, or has tokens without an embedding; a model that `load_base` would refuse for
            its config.
    """
    name, label = resolve_base_model(base_model), base_model_label(base_model)
    if Path(name).is_dir() and not (Path(name) / CONFIG).is_file():
        return read_tokenizer(name, label)
    config = read_config(name, label)
    tokenizer = read_tokenizer(name, label)
    check_vocabulary(tokenizer, config, label)
    return tokenizer


def load_template(base_model: str, template: Template) -> PromptTemplate:
    """Return what puts prompts to a base model, with the tokens that end its answers.

    Raises:
        UserError: no tokenizer, a template that is wrong, or a model's config whose end tokens are no tokens.
    """
    made = PromptTemplate(load_tokenizer(base_model), template, end_tokens(base_model))
    if made.template.date != template.date:
        log.warning("the chat template shows a date, and no run has kept one: that of now is taken (template.date)")
    return made


def end_tokens(base_model: str) -> tuple[int, ...]:
    """Return the tokens that end an answer by the model's generation config, or by its config where it has none.

    Raises:
        UserError: something else than a token or a list of tokens.
    """
    for name in (GENERATION_CONFIG_NAME, CONFIG_NAME):
        try:
            file = cached_file(resolve_base_model(base_model), name, _raise_exceptions_for_missing_entries=False)
        except OSError:  # a hub name of which there is nothing at hand
            return ()
        if file is None:
            continue
        found = require_object(read_json(Path(file)), str(file))
        value = found.get("eos_token_id", (found.get("text_config") or {}).get("eos_token_id"))
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if wrong := [one for one in ids if isinstance(one, bool) or not isinstance(one, int)]:
            raise UserError(f"{file}: eos_token_id: expected a token's number or a list of them, found {wrong[0]!r}")
        return tuple(ids)
    return ()
