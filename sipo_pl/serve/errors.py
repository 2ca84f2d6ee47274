"""Errors as OpenAI's clients expect them."""

from collections.abc import Mapping
from typing import Any

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
}
GONE = 499  # no status of HTTP: for the counts alone
CLOSE = {"connection": "close"}
TOO_LONG = "context_length_exceeded"
RETRY_LATER = {"retry-after": "1"}
RETRY_NEVER = {"x-should-retry": "false"}  # the official client would ask twice more


class ApiError(Exception):
    """What a client is told instead of an answer.

    Args:
        status: of HTTP.
        message: what was found and what was expected.
        code: a name for programs.
        param: the field of the request that is wrong.
        headers: of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """Return the error as JSON's object."""
        kind = TYPES.get(self.status, "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def client_gone() -> ApiError:
    """Return the error of a request whose client went away; nobody reads it."""
    return ApiError(GONE, "the client went away")


def too_late(limit: float) -> ApiError:
    """Return the error of a request that took longer than its seconds."""
    return ApiError(504, f"no answer within {limit:g} s", code="timeout", headers=RETRY_NEVER)


def stopping() -> ApiError:
    """Return the error of a request that has no time any more."""
    return ApiError(503, "the server is being stopped", code="stopping", headers=CLOSE)


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """Return the error of a request that cannot be right."""
    return ApiError(400, message, param=param, code=code)
