"""Text to tokens: one function for training, scoring and decoding.

A prompt is rendered to text by a chat or a plain template. Prompt and response are tokenised as one string, without a
separator, BOS at most once, and EOS is appended; the prompt part is the longest common prefix with the tokens of the
rendered prompt alone, so that a token which merges both belongs to the response.
"""

import copy
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from string import Formatter
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from sipo_pl.messages.errors import UserError, nearest
from sipo_pl.recipe.recipe import Template
from sipo_pl.text.chat_rendering import BadConversation, ChatTemplate
from sipo_pl.text.prompt import Prompt

FIELD = "raw_prompt"
AT_ONCE = 1024  # pairs of a prompt and a response whose texts are tokenised together, each distinct one once
_ANSWER = "an answer"  # put into the chat template, to see what it writes behind
_BEFORE = "a"


class Encoded(NamedTuple):
    """A tokenised prompt and response.

    Args:
        input_ids: tokens of prompt, response and EOS
        prompt_length: how many of them belong to the prompt
    """

    input_ids: list[int]
    prompt_length: int

    @property
    def response_length(self) -> int:
        return len(self.input_ids) - self.prompt_length


class PromptTemplate:
    """Renders and tokenises prompts and responses for one tokenizer.

    `eos_id` is the token that ends a response in training; decoding ends at any of `end_ids`.

    Args:
        tokenizer: a fast or slow tokenizer of transformers.
        template: which template, see `Template`.
        more_ends: tokens beside `eos_id` that end a response, such as those of the model's generation config.

    Raises:
        UserError: no chat template, or one that fails, leaves out what is said or has no bounds; no EOS; a plain
            template without `{raw_prompt}` or with another field.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: Template, more_ends: Collection[int] = ()) -> None:
        self.tokenizer = tokenizer
        self.chat: ChatTemplate | None = None
        now = template.now or datetime.now().replace(microsecond=0)
        if template.kind == "chat":
            if not tokenizer.chat_template:
                raise UserError("template.kind is chat, but the tokenizer has no chat template; use kind: plain")
            self.chat = ChatTemplate(tokenizer, now)
            if self.chat.reads_clock:
                template = replace(template, date=now.isoformat())
        self.template = template  # with the date that it shows, where it shows one
        _check_pattern(template.pattern)
        if self.chat:
            self.render(
                _ANSWER
            )  # whether the user's turn, and the system's where there is one, are in what is rendered
        self.eos_id = self._eos_id()
        self.end_ids = frozenset([self.eos_id, *more_ends])
        self._before = list(tokenizer(_BEFORE, add_special_tokens=False)["input_ids"])
        self._appends_eos = list(tokenizer(_BEFORE)["input_ids"][-1:]) == [tokenizer.eos_token_id]

    def copy(self) -> "PromptTemplate":
        """Return the same with a tokenizer of its own, which threads may not share."""
        return PromptTemplate(copy.deepcopy(self.tokenizer), self.template, self.end_ids)

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Return the tokens of the rendered prompt, BOS included where the tokenizer or template has one."""
        return self._tokenize([self.render(prompt)])[0]

    def continuation_ids(self, prompt: Prompt, start: str) -> list[int]:
        """Return the tokens of the rendered prompt and the start of an answer, which the model is to continue."""
        return self._tokenize([self.render(prompt) + start])[0]

    def text_ids(self, text: str) -> list[int]:
        """Return the tokens of a text as it is, outside any template, BOS included where the tokenizer adds one."""
        return self._texts_ids([text])[0]

    def _texts_ids(self, texts: Sequence[str]) -> list[list[int]]:
        found = [self._once_bos(ids) for ids in self.tokenizer(list(texts))["input_ids"]]
        # an EOS that the tokenizer appends by itself goes, one that stands in the text stays
        return [ids[:-1] for ids in found] if self._appends_eos else found

    def user_message(self, text: str) -> dict[str, str]:
        """Return the chat message of a user who asks `text`."""
        return {"role": "user", "content": self._fill(text)}

    def encode(self, prompt: Prompt, response: str) -> Encoded:
        """Tokenise a prompt and its response; an empty response is EOS alone, one that ends in it gets no second."""
        return self.encode_all([(prompt, response)])[0]

    def encode_all(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Encoded]:
        """Tokenise prompts and their responses, many at once, which is quicker than one by one."""
        parts = (pairs[start : start + AT_ONCE] for start in range(0, len(pairs), AT_ONCE))
        return [row for part in parts for row in self._encode_part(part)]

    def _encode_part(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Encoded]:
        prompts = {id(prompt): prompt for prompt, _ in pairs}
        rendered = {key: self.render(prompt) for key, prompt in prompts.items()}
        texts = [(rendered[id(prompt)], rendered[id(prompt)] + response) for prompt, response in pairs]
        distinct = list(dict.fromkeys(text for both in texts for text in both))
        ids = dict(zip(distinct, self._tokenize(distinct), strict=True))
        borders = (common_prefix_length(ids[alone], ids[together]) for alone, together in texts)
        return [self._ended(ids[together], border) for (_, together), border in zip(texts, borders, strict=True)]

    def _ended(self, ids: list[int], prompt_length: int) -> Encoded:
        """Return a row that ends in one end token: that of the text, with nothing but blanks behind, or EOS."""
        end = None
        for place in range(len(ids) - 1, prompt_length - 1, -1):
            if ids[place] in self.end_ids:
                if self._plain_decode(ids[place + 1 :]).strip():
                    break
                end = place
        return Encoded([*ids, self.eos_id] if end is None else ids[: end + 1], prompt_length)

    def check_ends(self, rows: Iterable[tuple[str, Encoded]]) -> None:
        """Raise UserError unless every row, given with its id, ends in an end token; else a policy learns no end."""
        if endless := [name for name, row in rows if row.input_ids[-1] not in self.end_ids]:
            raise UserError(f"{len(endless)} training rows do not end in EOS, token {self.eos_id}: {endless[0]} first")

    def decode(self, response_ids: Sequence[int]) -> str:
        """Return the text of generated tokens, without special tokens; a leading blank stays."""
        # SentencePiece-like tokenizers drop the blank of the first token that they decode: let that not be a response's
        before, whole = self._plain_decode(self._before), self._plain_decode([*self._before, *response_ids])
        return whole[len(before) :] if whole.startswith(before) else self._plain_decode(response_ids)

    def _plain_decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def render(self, prompt: Prompt) -> str:
        """Return the text that the model continues with its response.

        Raises:
            UserError: for chat messages under a plain template; a chat template that fails or leaves out a message.
        """
        if self.template.kind == "plain":
            if not isinstance(prompt, str):
                raise UserError("the prompt is a list of chat messages; use template.kind: chat")
            return self._fill(prompt)
        messages = [self.user_message(prompt)] if isinstance(prompt, str) else list(prompt)
        assert self.chat is not None
        try:
            return self.chat.render(self._with_system(messages))
        except BadConversation as error:
            error.prompt = prompt
            raise

    def _fill(self, prompt: str) -> str:
        return self.template.pattern.replace("{" + FIELD + "}", prompt)

    def _with_system(self, messages: list[dict[str, str]]) -> list[dict[str, str]]:
        if self.template.system is not None and messages[0]["role"] != "system":
            return [{"role": "system", "content": self.template.system}, *messages]
        return messages

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        if self.template.kind == "plain":
            return self._texts_ids(texts)
        # a chat template writes its special tokens, BOS among them, into the text
        found = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [self._once_bos(ids) for ids in found]

    def _once_bos(self, ids: list[int]) -> list[int]:
        bos = self.tokenizer.bos_token_id
        return list(ids[1:] if bos is not None and ids[:2] == [bos, bos] else ids)

    def _eos_id(self) -> int:
        """Return the token that ends a response: the chat template's end mark, or the tokenizer's EOS."""
        if self.chat:
            conversation = [{"role": "user", "content": "x"}, {"role": "assistant", "content": _ANSWER}]
            whole = self.chat.apply(self._with_system(conversation), add_generation_prompt=False)
            _, found, after = whole.rpartition(_ANSWER)
            tail = self.tokenizer(after.lstrip(), add_special_tokens=False)["input_ids"]
            if found and tail and tail[0] in {*self.tokenizer.added_tokens_decoder, *self.tokenizer.all_special_ids}:
                return int(tail[0])
        if self.tokenizer.eos_token_id is None:
            raise UserError("the tokenizer has no EOS token, so that no response could end; set its eos_token")
        return int(self.tokenizer.eos_token_id)


def answer_text(template: PromptTemplate, prompt: Prompt, text: str) -> str:
    """Return what counts of a text that a model generated after a rendered prompt: all of it."""
    return text


def common_prefix_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many leading items two sequences share."""
    length = 0
    for left, right in zip(first, second, strict=False):
        if left != right:
            break
        length += 1
    return length


def _check_pattern(text: str) -> None:
    try:
        fields = [name for _, name, _, _ in Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise UserError(f"template.text: {error}") from None
    if unknown := [name for name in fields if name != FIELD]:
        raise UserError(f"template.text: no field {{{unknown[0]}}}{nearest(unknown[0], [FIELD])}")
    if "{" + FIELD + "}" not in text:
        raise UserError(f"template.text: the field {{{FIELD}}} is missing")
