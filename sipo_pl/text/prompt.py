"""A prompt as text or chat messages, its id, and a prompt with a response as text."""

import hashlib
from typing import NamedTuple

from sipo_pl.storage.hashes import content_hash

Prompt = str | list[dict[str, str]]  # text, or chat messages with role and content


class TextRow(NamedTuple):
    """A prompt and a response to be measured.

    Args:
        prompt: the raw prompt, without template: text, or chat messages
        response: the response as decoded, without special tokens
    """

    prompt: Prompt
    response: str


def text_id(prompt_id: str, text: str) -> str:
    """Return the id of a response text below its prompt; equal texts have equal ids."""
    return f"{prompt_id}/{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def prompt_id(prompt: Prompt) -> str:
    """Return the id of a prompt: 12 hex digits of its content hash; equal prompts have equal ids in every split."""
    return content_hash(prompt)[:12]
