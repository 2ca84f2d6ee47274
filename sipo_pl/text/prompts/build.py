"""Review and rewrite prompts filled with the recipe's objectives, and the cutting of what a model answers.

A plain template gets one-shot prompts: a solved example, then the real question in the same form. A chat template gets
the conversation so far, the response as the assistant's turn, and the request as one more turn of the user.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from sipo_pl.recipe.recipe import Objective
from sipo_pl.storage.hashes import content_hash
from sipo_pl.text.prompt import Prompt
from sipo_pl.text.prompts.files import SHIPPED, check_placeholders, fill, heading_of, read_prompt_file

LEAD_IN = "Three ways to make the answer {objectives}:"

_QUOTED = {"prompt", "response"}
# "Here is a revised version of the answer:" and the like, alone on the first line of a chat model's rewrite.
_ANNOUNCEMENT = re.compile(
    r"\W*(?:(?:sure|certainly|of course)\b[^\n:]{0,20})?here(?:['’]s| is) (?:an?|the|my|your)\b[^\n:]*"
    r"\b(?:rewritten|revised|improved|updated|new|shorter|longer)\b[^\n]*:\W*\n",
    re.IGNORECASE,
)


class CritiquePrompts:
    """Fills the review and the rewrite prompt for the objectives of a recipe.

    Args:
        objectives: the recipe's objectives; their phrases are joined, "better in <name>" where one has none.
        kind: the kind of the recipe's prompt template.
        review_file: text file that replaces the shipped review prompt. Placeholders: {objectives}, {prompt},
            {response} and, as one likes, {lead_in}; a chat one may leave out prompt and response, which are then the
            turns before it.
        rewrite_file: likewise for the rewrite prompt, which holds {review} too.
        lead_in: words that a review begins with, given to the model as the start of its answer; may hold {objectives}.

    Raises:
        UserError: a file is unreadable, empty, lacks a placeholder or holds an unknown one, or, in a plain one, the
            question has no heading.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        kind: Literal["chat", "plain"],
        review_file: str | Path | None = None,
        rewrite_file: str | Path | None = None,
        lead_in: str = LEAD_IN,
    ) -> None:
        self.kind = kind
        self.objectives = join_phrases([phrase_of(objective) for objective in objectives])
        check_placeholders(lead_in, "lead_in", set(), {"objectives"})
        self.lead_in = fill(lead_in, {"objectives": self.objectives}).strip()
        self._review, self._review_heading = self._read(review_file, "review", set())
        self._rewrite, self._rewrite_heading = self._read(rewrite_file, "rewrite", {"review"})

    @property
    def fingerprint(self) -> str:
        """Return a hash of all that shapes the prompts: files, kind, phrases and lead-in; 64 hex digits."""
        return content_hash([self.kind, self.objectives, self.lead_in, self._review, self._rewrite])

    def review_prompt(self, prompt: Prompt, response: str) -> tuple[Prompt, str]:
        """Return the prompt that asks for a review, and the start of the answer, which the model continues.

        Args:
            prompt: the raw prompt, text or chat messages.
            response: the response under review; blanks around it are left out.

        Returns:
            The raw prompt for the model's template: text under a plain one, messages under a chat one. The start is
            the lead-in and a line break; under a plain template, whose text ends without a blank, one precedes it.
        """
        start = f"{'' if self.kind == 'chat' else ' '}{self.lead_in}\n"
        return self._build(self._review, prompt, response, {}), start

    def rewrite_prompt(self, prompt: Prompt, response: str, review: str) -> Prompt:
        """Return the prompt that asks for a better response.

        Args:
            prompt: the raw prompt, text or chat messages.
            response: the response to be rewritten; blanks around it are left out.
            review: its review, lead-in included; likewise.
        """
        return self._build(self._rewrite, prompt, response, {"review": review.strip()})

    def cut_review(self, generated: str) -> str:
        """Return what counts of the text that continues a review's start.

        Under a plain template it ends where the next question of the one-shot form begins. A lead-in that the model
        says again is left out, and so are blanks around. May be empty.
        """
        text = _before(self._review_heading, generated).strip()
        return text.removeprefix(self.lead_in).strip()

    def cut_rewrite(self, generated: str) -> str:
        """Return what counts of a generated rewrite.

        Under a plain template it ends where the next question of the one-shot form begins. Under a chat template a
        first line that only announces the rewrite is left out. Blanks around are left out. May be empty.
        """
        text = _before(self._rewrite_heading, generated).strip()
        if self.kind == "chat" and (announcement := _ANNOUNCEMENT.match(text)):
            text = text[announcement.end() :].strip()
        return text

    def _read(
        self, file: str | Path | None, task: Literal["review", "rewrite"], required: set[str]
    ) -> tuple[str, re.Pattern[str] | None]:
        path = Path(file) if file is not None else SHIPPED / f"{task}_{self.kind}.txt"
        required = required | {"objectives"}
        if self.kind == "chat":
            text = read_prompt_file(path, required, _QUOTED | {"lead_in"})
            if _quotes(text):
                check_placeholders(text, str(path), required | _QUOTED, {"lead_in"})
            return text, None
        text = read_prompt_file(path, required | _QUOTED, {"lead_in"})
        return text, self._heading(text, str(path))

    def _heading(self, text: str, where: str) -> re.Pattern[str]:
        """Return a pattern for the place at which a generated text begins the next question of the one-shot form."""
        return heading_of(text, "prompt", where)

    def _build(self, text: str, prompt: Prompt, response: str, values: dict[str, str]) -> Prompt:
        values = {**values, "objectives": self.objectives, "lead_in": self.lead_in, "response": response.strip()}
        request = fill(text, {**values, "prompt": transcript(prompt)})
        if self.kind == "plain":
            return request
        asked = {"role": "user", "content": request}
        if _quotes(text):
            return [asked]
        before = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        return [*before, {"role": "assistant", "content": values["response"]}, asked]


def phrase_of(objective: Objective) -> str:
    """Return what is asked of a text for an objective, such as "easier to read"."""
    return objective.phrase.strip() or f"better in {objective.name.replace('_', ' ')}"


def join_phrases(phrases: Sequence[str]) -> str:
    """Return the phrases as they are spoken: "a", "a and b", "a, b and c"."""
    *first, last = phrases
    return f"{', '.join(first)} and {last}" if first else last


def transcript(prompt: Prompt) -> str:
    """Return a prompt as text; a conversation of several messages names who says what."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in prompt)


def _quotes(text: str) -> bool:
    """Return whether a chat prompt quotes the question or the response by itself."""
    return any(f"{{{name}}}" in text for name in _QUOTED)


def _before(heading: re.Pattern[str] | None, text: str) -> str:
    found = heading.search(text) if heading is not None else None
    return text[: found.start()] if found else text
