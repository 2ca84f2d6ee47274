"""What every request passes before anything else: the host it asked for, its key; and what is counted of it."""

import asyncio
import hmac
import ipaddress
import logging
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sipo_pl.messages.errors import UserError
from sipo_pl.serve.connections import CROWDED
from sipo_pl.serve.errors import CLOSE, RETRY_LATER, ApiError, stopping
from sipo_pl.serve.metrics import Metrics

OPEN = ("/", "/health", "/page/")  # need no key: the page itself, which asks for one, and what tells that all is well
HEALTH = OPEN[1]
LOCALHOST = "localhost"

log = logging.getLogger("sipo_pl")


class Guard:
    """Refuses requests without a key or for another host, and counts all.

    Args:
        app: what lies behind.
        keys: one of them is needed; none needed where there is none.
        host: a name of this machine that is taken beside its own addresses, and no other is, because other sites'
            pages could reach the server under names of theirs; where none is given, all are taken.
        metrics: take counts.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str], host: str | None, metrics: Metrics) -> None:
        self.app, self.host, self.metrics = app, host, metrics
        self.keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.monotonic(), "none"

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = uuid.uuid4().hex
                headers["x-content-type-options"] = "nosniff"
            await send(message)

        async def tell(error: ApiError) -> None:
            await JSONResponse(error.body, error.status, error.headers)(scope, receive, counted)

        try:
            if refused := self._refused(scope):
                await tell(refused)
            else:
                await self.app(scope, receive, counted)
        except asyncio.CancelledError:  # the server ends, and gives no more time
            if status == "none":
                await tell(stopping())
            else:
                log.warning("an answer was cut off, because the server was stopped")
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, status).inc()
            self.metrics.seconds.labels(route).observe(time.monotonic() - begun)

    def _refused(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.host is not None and not (is_local(_name(host)) or _name(host) == _name(self.host)):
            return ApiError(403, f"host: {host[:100]!r} is not this machine", code="wrong_host")
        path = scope["path"]
        if CROWDED in scope.get("state", {}) and path != HEALTH:
            return ApiError(503, "too many connections", code="too_many_connections", headers=CLOSE | RETRY_LATER)
        if not self.keys or path in OPEN[:2] or path.startswith(OPEN[2]):
            return None
        kind, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip().encode() if kind.lower() == "bearer" else b""
        if sum(hmac.compare_digest(given, known) for known in self.keys):  # all are compared, whichever it is
            return None
        what = "wrong key" if given else "no key; expected the header 'Authorization: Bearer KEY'"
        headers_of_it = {"www-authenticate": "Bearer"}
        return ApiError(401, f"authorization: {what}", code="invalid_api_key", headers=headers_of_it)


def _name(host: str) -> str:
    """Return the name of a host without its port, brackets and case, as a resolver takes it."""
    name, _, port = host.rpartition(":")
    alone = name if name and port.isdecimal() and (host[0] == "[" or ":" not in name) else host
    return alone.lower().removeprefix("[").removesuffix("]").removesuffix(".")


def is_local(name: str) -> bool:
    """Return whether only this machine can be meant by a host's name or address."""
    if name.lower() == LOCALHOST:
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback
    return False


def read_keys(path: str | None) -> list[str]:
    """Return the keys of a file, one a line.

    Raises:
        UserError: no such file, or none in it.
    """
    if path is None:
        return []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no file of keys can be read there: {error}") from None
    keys = [line.strip() for line in lines if line.strip()]
    if not keys:
        raise UserError(f"{path}: no key in it; expected one a line")
    return keys
