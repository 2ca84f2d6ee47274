"""From the bytes of a request to a body that is known to be right."""

import asyncio
import json
from collections.abc import Sequence, Set
from typing import Any, TypeVar

from fastapi import Request
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import ClientDisconnect

from sipo_pl.serve.errors import CLOSE, ApiError, client_gone, invalid
from sipo_pl.serve.limits import Limits
from sipo_pl.serve.schemas import LONGEST_NAME, Message, Part, Sampling, StreamOptions

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
        async with asyncio.timeout(limits.to_arrive):
            if int(told) <= limits.body_bytes:
                async for chunk in request.stream():
                    raw += chunk
                    if len(raw) > limits.body_bytes:
                        break
                else:
                    return bytes(raw)
    except TimeoutError:
        raise ApiError(408, f"the body did not come within {limits.to_arrive:g} s", headers=CLOSE) from None
    except ClientDisconnect:
        raise client_gone() from None
    raise ApiError(413, f"the body is longer than {limits.body_bytes} bytes", headers=CLOSE)


def _parse(raw: bytes) -> Any:
    try:
        text = raw.decode("utf-8")
        values = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_object)
        if "\\u" in text:
            json.dumps(values, ensure_ascii=False).encode("utf-8")  # halves of characters are no text
    except UnicodeError:
        raise invalid("the body is not valid UTF-8 text") from None
    except RecursionError:
        raise invalid("the body is nested too deeply") from None
    except ValueError as error:
        raise invalid(f"the body is no JSON: {str(error)[:200]}") from None
    return values


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; of a field that stands in it twice one would be passed over."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise invalid(f"the field {name[:LONGEST_NAME]!r} is given twice")
        found[name] = value
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _validate(values: dict[str, Any], kind: type[Body]) -> Body:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _told(error.errors(include_url=False), _names(kind)) from None


def _told(errors: Sequence[ErrorDetails], names: Set[str]) -> ApiError:
    """Return the first error; where a field may be of several types, that of the type which fits farthest."""
    place = _place(errors[0], names)
    found = max((one for one in errors if _place(one, names)[: len(place)] == place), key=lambda one: len(one["loc"]))
    place, said = _place(found, names), found["msg"]
    if field := found.get("ctx", {}).get("field"):
        param = ".".join([*place, field])
        return invalid(f"{param}: {said}", param, found["type"])
    if found["input"] is None:
        said += ", found null"
    param = ".".join(place)
    return invalid(f"{param}: {said}" if param else said, param or None)


def _place(error: ErrorDetails, names: Set[str]) -> list[str]:
    """Return the fields and indices that lead to an error, without the names of types among them."""
    return [str(part) for part in error["loc"] if isinstance(part, int) or part in names]


def _names(kind: type[Sampling]) -> set[str]:
    return {name for model in (kind, Message, Part, StreamOptions) for name in model.model_fields}


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), "null")
