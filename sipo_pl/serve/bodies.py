"""From the bytes of a request to a body that is known to be right."""

import asyncio
import json
from typing import Any, TypeVar

from fastapi import Request
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from sipo_pl.messages.errors import nearest
from sipo_pl.serve.errors import ApiError, invalid
from sipo_pl.serve.limits import Limits
from sipo_pl.serve.schemas import IGNORED, NEUTRAL, Message, Part, Sampling, StreamOptions

Body = TypeVar("Body", bound=Sampling)


async def read_body(request: Request, kind: type[Body], limits: Limits) -> Body:
    """Return the body of a request.

    Raises:
        ApiError: too long, too slow, no JSON, or fields that are wrong.
    """
    # a page of another site cannot send this type without asking first, which nobody answers
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ApiError(415, f"content-type: expected application/json, found {media_type or 'none'!r}")
    values = _parse(await _read(request, limits))
    if not isinstance(values, dict):
        raise invalid(f"expected a JSON object, found {_kind(values)}")
    return _validate(values, kind)


async def _read(request: Request, limits: Limits) -> bytes:
    told = request.headers.get("content-length", "0")
    raw = bytearray()
    try:
        async with asyncio.timeout(limits.timeout):
            if int(told) <= limits.body_bytes:
                async for chunk in request.stream():
                    raw += chunk
                    if len(raw) > limits.body_bytes:
                        break
                else:
                    return bytes(raw)
    except TimeoutError:
        raise ApiError(408, f"the body did not come within {limits.timeout:g} s") from None
    except ClientDisconnect:
        raise invalid("the client went away") from None
    raise ApiError(413, f"the body is longer than {limits.body_bytes} bytes", headers={"connection": "close"})


def _parse(raw: bytes) -> Any:
    try:
        text = raw.decode("utf-8")
        values = json.loads(text, parse_constant=_refuse_constant)
        if "\\u" in text:
            json.dumps(values, ensure_ascii=False).encode("utf-8")  # halves of characters are no text
    except UnicodeError:
        raise invalid("the body is not valid UTF-8 text") from None
    except RecursionError:
        raise invalid("the body is nested too deeply") from None
    except ValueError as error:
        raise invalid(f"the body is no JSON: {str(error)[:200]}") from None
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _validate(values: dict[str, Any], kind: type[Body]) -> Body:
    known = set(kind.model_fields)
    kept = {}
    for key, value in values.items():
        if value is None or key in IGNORED:
            continue
        if key in known:
            kept[key] = value
        elif key not in NEUTRAL:
            raise invalid(f"no field {key[:100]!r}{nearest(key[:100], known)}", key[:100], "unknown_field")
        elif not any(_same(value, neutral) for neutral in NEUTRAL[key]):
            raise invalid(f"{key}: not supported by this server; leave it out", key, "unsupported_field")
    try:
        return kind.model_validate(kept)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        names = {name for model in (kind, Message, Part, StreamOptions) for name in model.model_fields}
        place = [str(part) for part in first["loc"] if isinstance(part, int) or part in names]
        param = ".".join(place)
        raise invalid(f"{param}: {first['msg']}" if param else first["msg"], param or None) from None


def _same(value: Any, neutral: Any) -> bool:
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), "null")
