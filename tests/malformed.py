"""Requests that cannot be right, each of another kind, for a server to refuse."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
JSON = {"content-type": "application/json"}
WRONG = (400, 404, 405, 413, 415)


class Malformed(NamedTuple):
    """A request.

    Args:
        name: what is wrong with it
        body: as it is sent
        path: of the interface
        method: of HTTP
        headers: of the request
    """

    name: str
    body: bytes = b""
    path: str = CHAT
    method: str = "POST"
    headers: dict[str, str] = JSON


def valid(served: str, /, **changes: Any) -> dict[str, Any]:
    """Return the body of a request that is right, for a run of two objectives, but for what is changed."""
    messages = [{"role": "user", "content": "hi"}]
    return {"model": f"{served}@0.5,0.5", "messages": messages, "max_tokens": 2} | changes


def malformed(model: str, body_bytes: int) -> list[Malformed]:
    """Return the requests.

    Args:
        model: name of the served run, of two objectives.
        body_bytes: longest body that the server takes.
    """
    bare = [Malformed(name, body) for name, body in _broken(model, body_bytes)]
    fields = [Malformed(name, json.dumps(valid(model, **changes)).encode()) for name, changes in _fields(model)]
    return [*bare, *fields, *_completions(model), *_requests(model)]


def _broken(model: str, body_bytes: int) -> Iterator[tuple[str, bytes]]:
    whole = json.dumps(valid(model)).encode()
    yield "empty body", b""
    yield "half a body", whole[: len(whole) // 2]
    yield "no JSON", b"model=x&prompt=y"
    yield "two values", whole + whole
    yield "trailing comma", whole[:-1] + b",}"
    yield "a list", b"[" + whole + b"]"
    yield "a text", b'"hi"'
    yield "null", b"null"
    yield "not UTF-8", whole.replace(b"hi", b"\xff\xfe")
    yield "half a character", whole.replace(b"hi", b"\\ud800")
    yield "nested without end", b"[" * 100_000
    yield "NaN", whole[:-1] + b', "temperature": NaN}'
    yield "beyond all numbers", whole[:-1] + b', "temperature": 1e999}'
    yield "a number of ten thousand digits", whole[:-1] + b', "seed": ' + b"9" * 10_000 + b"}"
    yield "a field twice", whole[:-1] + b', "max_tokens": 3}'
    yield "too long", json.dumps(valid(model, user="x" * body_bytes)).encode()
    yield "only zeros", bytes(1000)


def _fields(model: str) -> Iterator[tuple[str, dict[str, Any]]]:
    user = {"role": "user", "content": "hi"}
    yield "no model", {"model": None}
    yield "model is a number", {"model": 7}
    yield "another model", {"model": "gpt-4"}
    yield "weights that do not add up", {"model": f"{model}@0.9,0.9"}
    yield "one weight of two", {"model": f"{model}@1"}
    yield "weights that are words", {"model": f"{model}@much,little"}
    yield "weights that are not numbers", {"model": f"{model}@nan,nan"}
    yield "an objective that there is not", {"model": f"{model}@kind=0.5,long=0.5"}
    yield "weights twice", {"weights": [0.5, 0.5]}
    yield "negative weights", {"model": model, "weights": [1.5, -0.5]}
    yield "weights in a list of lists", {"model": model, "weights": [[0.5, 0.5]]}
    yield "weights as truth", {"model": model, "weights": {"kind": True, "short": False}}
    yield "an unknown field", {"weigths": [0.5, 0.5]}
    yield "no messages", {"messages": None}
    yield "empty messages", {"messages": []}
    yield "messages as text", {"messages": "hi"}
    yield "a message as text", {"messages": ["hi"]}
    yield "a message without role", {"messages": [{"content": "hi"}]}
    yield "a role that there is not", {"messages": [{"role": "king", "content": "hi"}]}
    yield "a tool's message", {"messages": [user, {"role": "tool", "content": "4", "tool_call_id": "1"}]}
    yield "content that is a number", {"messages": [{"role": "user", "content": 4}]}
    yield "an image", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}
    yield "the last word is the model's", {"messages": [user, {"role": "assistant", "content": "ho"}]}
    yield "temperature as text", {"temperature": "hot"}
    yield "negative temperature", {"temperature": -1}
    yield "top_p of nothing", {"top_p": 0}
    yield "no tokens", {"max_tokens": 0}
    yield "tokens as a fraction", {"max_tokens": 1.5}
    yield "tokens beyond the limit", {"max_tokens": 10**9}
    yield "tokens beyond all numbers", {"max_tokens": 10**30}
    yield "a prompt beyond the limit", {"messages": [{"role": "user", "content": "long " * 2000}]}
    yield "a seed as text", {"seed": "lucky"}
    yield "an empty stop", {"stop": ""}
    yield "five stops", {"stop": list("abcde")}
    yield "a stop that is a number", {"stop": [1]}
    yield "stream as text", {"stream": "yes"}
    yield "two answers", {"n": 2}
    yield "log-probabilities", {"logprobs": True}
    yield "tools", {"tools": [{"type": "function", "function": {"name": "f"}}]}
    yield "penalties", {"frequency_penalty": 1.5}
    turn = {"role": "assistant", "content": "ho"}
    yield "calls of tools in a turn", {"messages": [user, {**turn, "tool_calls": [{"id": "1"}]}, user]}
    yield "a misspelt field of a message", {"messages": [{**user, "contnet": "ho"}]}
    yield "a user's content that is null", {"messages": [{**user, "content": None}]}
    yield (
        "a field of a part",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "lang": "en"}]}]},
    )
    yield "an unknown field of stream_options", {"stream": True, "stream_options": {"continuous_usage_stats": True}}
    yield "stream_options without a stream", {"stream_options": {"include_usage": True}}
    yield "two longest answers", {"max_tokens": 2, "max_completion_tokens": 3}
    yield "a format of answers", {"response_format": {"type": "json_object"}}


def _completions(model: str) -> Iterator[Malformed]:
    body = {"model": f"{model}@0.5,0.5", "max_tokens": 2}
    for name, prompt in (
        ("no prompt", None),
        ("an empty list of tokens", []),
        ("several prompts", ["a", "b"]),
        ("tokens outside of the vocabulary", [5, 10**6]),
        ("negative tokens", [-1]),
        ("text and tokens", ["a", 5]),
        ("a prompt that is an object", {"text": "a"}),
    ):
        yield Malformed(name, json.dumps({**body, "prompt": prompt}).encode(), COMPLETIONS)


def _requests(model: str) -> Iterator[Malformed]:
    whole = json.dumps(valid(model)).encode()
    yield Malformed("no type", whole, headers={})
    yield Malformed("a form's type", whole, headers={"content-type": "text/plain"})
    yield Malformed("a wrong method", method="GET")
    yield Malformed("another wrong method", whole, method="DELETE")
    yield Malformed("a path that there is not", whole, "/v1/chat")
    yield Malformed("a way out of the page's folder", b"", "/page/..%2f..%2fapp.py", "GET")
    yield Malformed("a model that there is not", b"", "/v1/models/gpt-4", "GET")


# what is no HTTP at all, or breaks off
RAW = (
    b"\r\n\r\n",
    b"HELLO\r\n\r\n",
    b"GET / HTTP/9.9\r\nhost: localhost\r\n\r\n",
    b"GET /health HTTP/1.1\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: minus one\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\n{",
    bytes(range(256)),
)
