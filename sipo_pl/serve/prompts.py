"""From messages and texts to prompt tokens, in a thread with a tokenizer of its own.

Tokenizers may not be shared by threads, and a long prompt must hold up neither the batch nor the connections.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from sipo_pl.messages.errors import UserError
from sipo_pl.serve.errors import invalid
from sipo_pl.serve.schemas import Message
from sipo_pl.text.prompt import Prompt
from sipo_pl.text.templates import PromptTemplate

SYSTEM = {"system", "developer"}  # two names of one role


class Prompts:
    """Makes prompt tokens.

    Args:
        template: of the run.
    """

    def __init__(self, template: PromptTemplate) -> None:
        self.template = template.copy()
        self.vocabulary = len(template.tokenizer)
        self._thread = ThreadPoolExecutor(1, "prompts")

    async def chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Return the tokens of a conversation whose next turn is the model's.

        Raises:
            ApiError: turns that the run's template does not know.
        """
        prompt = self._prompt(messages)
        return await self._made(lambda: self.template.prompt_ids(prompt), "messages")

    async def text(self, prompt: str | list[str] | list[int]) -> tuple[int, ...]:
        """Return the tokens of a text as it is, without the run's template, with BOS where the tokenizer has one.

        Raises:
            ApiError: several prompts, an empty one, or numbers that are no tokens.
        """
        if isinstance(prompt, list) and any(isinstance(one, str) for one in prompt):
            if len(prompt) > 1:
                raise invalid(f"prompt: {len(prompt)} prompts in a request; send a request for each", "prompt")
            prompt = str(prompt[0])
        if isinstance(prompt, str):
            text = prompt
            ids = await self._made(lambda: self.template.text_ids(text), "prompt")
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

    async def _made(self, make: Callable[[], Sequence[int]], param: str) -> tuple[int, ...]:
        try:
            return tuple(await asyncio.get_running_loop().run_in_executor(self._thread, make))
        except UserError as error:
            raise invalid(f"{param}: {error}", param) from None

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)
