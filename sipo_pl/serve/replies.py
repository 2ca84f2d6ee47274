"""Answers in the shapes of OpenAI's two interfaces, whole or in chunks, with the weights beside."""

import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from sipo_pl.serve.work import ApiFinishReason

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Reply:
    """An answer to a chat.

    Args:
        model: its name with the weights
        weights: by objective
        prompt_tokens: of the prompt
    """

    model: str
    weights: dict[str, float]
    prompt_tokens: int
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def whole(self, text: str, reason: ApiFinishReason, tokens: int) -> dict[str, Any]:
        """Return the whole answer."""
        return {**self._head(self.whole_object), "choices": [self._choice(text, reason)], "usage": self._usage(tokens)}

    def chunk(self, text: str, reason: ApiFinishReason | None = None) -> bytes:
        """Return the event of a piece, and of the end."""
        return event({**self._head(self.chunk_object), "choices": [self._delta({"content": text}, reason)]})

    def begin(self) -> bytes:
        """Return the event before all pieces."""
        delta = {"role": "assistant", "content": ""}
        return event({**self._head(self.chunk_object), "choices": [self._delta(delta, None)]})

    def count(self, tokens: int) -> bytes:
        """Return the event that counts the tokens."""
        return event({**self._head(self.chunk_object), "choices": [], "usage": self._usage(tokens)})

    def _head(self, kind: str) -> dict[str, Any]:
        told = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return {**told, "weights": self.weights}

    def _usage(self, tokens: int) -> dict[str, int]:
        mine = self.prompt_tokens
        return {"prompt_tokens": mine, "completion_tokens": tokens, "total_tokens": mine + tokens}

    def _choice(self, text: str, reason: ApiFinishReason) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}

    def _delta(self, delta: dict[str, str], reason: ApiFinishReason | None) -> dict[str, Any]:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


@dataclass(frozen=True)
class CompletionReply(Reply):
    """The continuation of a text."""

    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")

    whole_object = chunk_object = "text_completion"

    def begin(self) -> bytes:
        return b""

    def _choice(self, text: str, reason: ApiFinishReason | None) -> dict[str, Any]:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}

    def _delta(self, delta: dict[str, str], reason: ApiFinishReason | None) -> dict[str, Any]:
        return self._choice(delta["content"], reason)


def event(value: dict[str, Any]) -> bytes:
    """Return an event of a stream."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"
