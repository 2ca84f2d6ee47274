"""Fields of requests: each is taken, asks for nothing, or is refused by its name, at every depth."""

import asyncio
import json
from typing import Any

import pytest
from fastapi import Request
from malformed import valid
from starlette.types import Message

from sipo_pl.serve.bodies import read_body
from sipo_pl.serve.errors import ApiError
from sipo_pl.serve.limits import Limits
from sipo_pl.serve.schemas import ChatBody

USER = {"role": "user", "content": "hi"}


def read(**changes: Any) -> ChatBody:
    raw = json.dumps(valid("talk", **changes)).encode()

    async def receive() -> Message:
        return {"type": "http.request", "body": raw, "more_body": False}

    headers = [(b"content-type", b"application/json")]
    return asyncio.run(read_body(Request({"type": "http", "headers": headers}, receive), ChatBody, Limits()))


def turn(**more: Any) -> dict[str, Any]:
    """Return a change of a body: a conversation whose second turn, the model's, has more fields."""
    return {"messages": [USER, {"role": "assistant", "content": "ho", **more}, USER]}


def part(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi", **more}]}]}


@pytest.mark.parametrize(
    ("changes", "param", "code", "said"),
    [
        ({"weigths": [1, 0]}, "weigths", "unknown_field", "did you mean 'weights'"),
        ({"n": 2}, "n", "unsupported_field", "leave it out"),
        (turn(tool_calls=[{"id": "1"}]), "messages.1.tool_calls", "unsupported_field", "not supported"),
        (turn(function_call={"name": "f"}), "messages.1.function_call", "unsupported_field", "not supported"),
        (turn(refusal="I won't"), "messages.1.refusal", "unsupported_field", "not supported"),
        (turn(contnet="ho"), "messages.1.contnet", "unknown_field", "did you mean 'content'"),
        (part(txt="ho"), "messages.0.content.0.txt", "unknown_field", "did you mean 'text'"),
        (part(image_url={}), "messages.0.content.0.image_url", "unsupported_field", "not supported"),
        ({"messages": [{**USER, "name": "Ann"}]}, "messages.0.name", "unsupported_field", "not supported"),
        ({"messages": [{**USER, "content": None}]}, "messages.0.content", "empty_content", "found null"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", None, "required"),
        ({"messages": [{**USER, "content": [None]}]}, "messages.0.content.0", None, "found null"),
        ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage", "unknown_field", "include_usage"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "unsupported_field", '"stream": true'),
        ({"max_completion_tokens": 3}, "max_completion_tokens", "invalid_value", "max_tokens is 2"),
        ({"model": None}, "model", None, "found null"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_taken_is_refused_by_its_name(
    changes: dict[str, Any], param: str, code: str | None, said: str
) -> None:
    with pytest.raises(ApiError, match=f"^{param}: .*{said}") as refused:
        read(**changes)
    assert (refused.value.status, refused.value.param, refused.value.code) == (400, param, code)


def test_what_asks_for_nothing_is_taken() -> None:
    nothing = {"tool_calls": [], "function_call": None, "refusal": None, "annotations": [], "audio": None}
    assert read(**turn(**nothing)).messages == read(**turn()).messages
    assert [message.text for message in read(**turn(content=None)).messages] == ["hi", "", "hi"]
    empty = {"n": 1, "tools": [], "stop": None, "weights": None, "user": "x", "logprobs": None, "stream_options": None}
    assert read(**empty) == read()
    assert read(stream=True, stream_options={"include_obfuscation": False, "include_usage": None}).stream_options
    assert read(max_completion_tokens=2).longest == 2
