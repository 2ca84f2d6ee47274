"""Responses, reviews and rewrites found by a search for the marks of the prompt's format, even inside a text."""

import re

from sipo_pl.messages.errors import UserError
from sipo_pl.text.prompt import Prompt
from sipo_pl.text.prompts.build import CritiquePrompts
from sipo_pl.text.prompts.files import heading_text
from sipo_pl.text.templates import FIELD, PromptTemplate


class SearchedCritiquePrompts(CritiquePrompts):
    """Cuts an answer where the heading of a question comes anywhere, not only where it begins a line."""

    def _heading(self, text: str, where: str) -> re.Pattern[str]:
        return re.compile(re.escape(heading_text(text, "prompt", where)[0]))


def searched_text(template: PromptTemplate, prompt: Prompt, text: str) -> str:
    """Return what follows the first end of a prompt in a rendered prompt and its answer; see `search_response`."""
    return search_response(template.render(prompt) + text, template.template.pattern)


def search_response(text: str, pattern: str) -> str:
    """Return what follows the first place at which a plain template's prompt may end.

    Args:
        text: a rendered prompt and what came of it.
        pattern: text of the template, with the field `{raw_prompt}`; a prompt that holds what follows the field is
            split within itself.

    Raises:
        UserError: the text does not begin like the template, or what follows the field is not in it.
    """
    before, _, after = pattern.partition("{" + FIELD + "}")
    end = text.find(after, len(before)) if text.startswith(before) else -1
    if end < 0:
        raise UserError(f"text does not hold the marks of the template {pattern!r}: {text[:60]!r}")
    return text[end + len(after) :]
