"""From messages and texts to prompt tokens, in a thread with a tokenizer of its own.

Tokenizers may not be shared by threads, and a long prompt must hold up neither the batch nor the connections.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from sipo_pl.messages.errors import UserError
from sipo_pl.serve.errors import TOO_LONG, invalid
from sipo_pl.serve.schemas import Message
from sipo_pl.serve.shortest_first import ShortestFirst
from sipo_pl.text.prompt import Prompt
from sipo_pl.text.templates import PromptTemplate

SYSTEM = {"system", "developer"}  # two names of one role
# what tokenizers drop, join or do not know: letters, blanks, accents, pictures, marks without a width, controls
PROBES = ("x", "7", ".", "日", "ж", " ", "\n", "\t", "e\u0301", "\U0001fabf", "\u200d", "\ufeff", "\x00", "x\u0336")


class Prompts:
    """Makes prompt tokens.

    Args:
        template: of the run.
    """

    def __init__(self, template: PromptTemplate) -> None:
        self.template = template.copy()
        self.vocabulary = len(template.tokenizer)
        self.most_characters = characters_of_a_token(self.template)
        self._thread = ShortestFirst("prompts")

    async def chat(self, messages: Sequence[Message], most: int) -> tuple[int, ...]:
        """Return the tokens of a conversation whose next turn is the model's.

        Args:
            messages: its turns.
            most: tokens; a longer prompt need not be made.

        Raises:
            ApiError: turns that the run's template does not know, or such as cannot be short enough.
        """
        prompt = self._prompt(messages)
        length = self._length((one.text for one in messages), most, "messages")
        return await self._made(lambda: self.template.prompt_ids(prompt), length, "messages")

    async def text(self, prompt: str | list[str] | list[int], most: int) -> tuple[int, ...]:
        """Return the tokens of a text as it is, without the run's template, with BOS where the tokenizer has one.

        Args:
            prompt: a text, alone or in a list, or tokens.
            most: tokens; a longer prompt need not be made.

        Raises:
            ApiError: several prompts, an empty one, numbers that are no tokens, or a text that cannot be short enough.
        """
        if isinstance(prompt, list) and any(isinstance(one, str) for one in prompt):
            if len(prompt) > 1:
                raise invalid(f"prompt: {len(prompt)} prompts in a request; send a request for each", "prompt")
            prompt = str(prompt[0])
        if isinstance(prompt, str):
            text = prompt
            length = self._length([text], most, "prompt")
            ids = await self._made(lambda: self.template.text_ids(text), length, "prompt")
        else:
            ids = tuple(int(one) for one in prompt)
            if wrong := [one for one in ids if not 0 <= one < self.vocabulary]:
                raise invalid(f"prompt: {wrong[0]} is no token of the vocabulary of {self.vocabulary}", "prompt")
        if not ids:
            raise invalid("prompt: empty", "prompt")
        return ids

    def _prompt(self, messages: Sequence[Message]) -> Prompt:
        if messages[-1].role != "user":
            raise invalid(f"messages: the last turn is the user's, found {messages[-1].role!r}", "messages")
        if len(messages) == 1:
            return messages[0].text
        if self.template.template.kind == "plain":
            raise invalid(
                f"messages: the policies were trained on single prompts; expected one message of the user, found "
                f"{len(messages)} messages",
                "messages",
            )
        return [
            self.template.user_message(one.text)
            if one.role == "user"
            else {"role": "system" if one.role in SYSTEM else one.role, "content": one.text}
            for one in messages
        ]

    def _length(self, texts: Iterable[str], most: int, param: str) -> int:
        """Return the characters of texts, unless they are surely more than so many tokens."""
        length = sum(map(len, texts))
        if self.most_characters and length > most * self.most_characters:
            raise invalid(
                f"{param}: {length} characters are more than the {most} tokens that are left to the prompt, of which "
                f"none has more than {self.most_characters} characters",
                param,
                TOO_LONG,
            )
        return length

    async def _made(self, make: Callable[[], Sequence[int]], length: int, param: str) -> tuple[int, ...]:
        try:
            return tuple(await asyncio.wrap_future(self._thread.submit(length, make)))
        except UserError as error:
            raise invalid(f"{param}: {error}", param) from None

    def close(self) -> None:
        """End the thread."""
        self._thread.close()


def characters_of_a_token(template: PromptTemplate) -> int | None:
    """Return the most characters that a token stands for, by which a long text is known to be long without its tokens.

    None for tokenizers that make one token of a text of any length, such as an unknown word, or none at all of blanks.
    """
    tokenizer = template.tokenizer
    most = max(map(len, tokenizer.get_vocab()))
    added = tokenizer.added_tokens_decoder.values()
    if any(token.lstrip or token.rstrip for token in added):  # it takes all blanks beside it
        return None
    count = 4 * most  # of characters that one token or a few would have to stand for
    texts = [(character * count)[:count] for character in PROBES]
    return most if all(len(template.text_ids(text)) * most >= count for text in texts) else None
