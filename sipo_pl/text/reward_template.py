"""The text that a reward model reads: a template with the fields {prompt} and {response}."""

import re
from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from sipo_pl.messages.errors import SettingError, UserError, nearest
from sipo_pl.text.chat_rendering import ChatTemplate
from sipo_pl.text.prompt import Prompt, TextRow

FIELDS = ("prompt", "response")
_FIELD = re.compile(r"\{(\w+)\}")


class TextTemplate:
    """Puts prompt and response into a text; what they hold themselves is never taken for a field.

    Args:
        text: the text with {response} once and {prompt} once at most
        key: the setting that gave it, for errors
        fields: names of the fields, of which the first may be left out

    Raises:
        SettingError: another field, or one of the others not exactly once.
    """

    def __init__(self, text: str, key: str = "template", fields: Sequence[str] = FIELDS) -> None:
        self._parts = _FIELD.split(text)  # texts at even places, names of fields at odd ones
        names = self._parts[1::2]
        for name in names:
            if name not in fields:
                raise SettingError(key, f"no field {{{name}}}{nearest(name, fields)}")
        if missing := [name for name in fields[1:] if name not in names]:
            raise SettingError(key, f"the field {{{missing[0]}}} is missing")
        if len(names) > len(set(names)):
            raise SettingError(key, "a field stands there twice")

    def fill(self, prompt: Prompt, response: str) -> str:
        """Return the text for a prompt and a response."""
        return self.fill_in({"prompt": plain_prompt(prompt), "response": response})

    def fill_in(self, values: Mapping[str, str]) -> str:
        """Return the text with a value in each field's place."""
        return "".join(values[part] if place % 2 else part for place, part in enumerate(self._parts))


def plain_prompt(prompt: Prompt) -> str:
    """Return the text of a prompt.

    Raises:
        UserError: for chat messages that are more than one message of the user, which a text template has no place for.
    """
    if isinstance(prompt, str):
        return prompt
    roles = [message["role"] for message in prompt]
    if roles != ["user"]:
        raise UserError(
            f"a reward's text template takes a prompt of one user message, found messages of {', '.join(roles)}; "
            "sipo_pl.rewards.sequence_classifier without `template` puts them into the model's chat template"
        )
    return prompt[0]["content"]


def scored_text(chat: ChatTemplate | None, template: TextTemplate | None, row: TextRow) -> str:
    """Return what a reward model reads of a row: the template filled, or what the tokenizer's chat template renders."""
    if template is not None:
        return template.fill(row.prompt, row.response)
    prompt = [{"role": "user", "content": row.prompt}] if isinstance(row.prompt, str) else list(row.prompt)
    messages = [*prompt, {"role": "assistant", "content": row.response}]
    assert chat is not None
    return chat.render(messages, add_generation_prompt=False)


def text_ids(tokenizer: PreTrainedTokenizerBase, template: TextTemplate | None, text: str) -> list[int]:
    """Return the tokens of what a reward model reads; a chat template writes its special tokens into the text."""
    return list(tokenizer(text, add_special_tokens=template is not None)["input_ids"])


def scored_ids(
    tokenizer: PreTrainedTokenizerBase, chat: ChatTemplate | None, template: TextTemplate | None, row: TextRow
) -> list[int]:
    """Return the tokens that a reward model reads of a row."""
    return text_ids(tokenizer, template, scored_text(chat, template, row))
