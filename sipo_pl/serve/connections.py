"""Connections of clients: each has deadlines, and those without a whole request make room where there are too many.

uvicorn bounds the time after an answer alone. A connection that never asks, or whose header never ends, would stay open
for ever, and enough of them would lock out everybody else.
"""

import asyncio
import json
import time
from typing import Any, Literal

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from sipo_pl.serve.errors import ApiError
from sipo_pl.serve.limits import Limits

CROWDED = "crowded"  # in the state of a request's scope: the server answers nothing but how it is
BEYOND = 64  # connections beyond the most, for those who ask how the server is
LINGER = 2.0  # seconds in which a client has to take the last that it is sent
READING = 60.0  # seconds beyond a request's time in which a client has to read its answer

Phase = Literal["idle", "header", "answer"]


class Connection(H11Protocol):
    """A connection that is closed when its client is too slow, or when others need its place.

    Args:
        config: of uvicorn.
        server_state: of uvicorn; holds the connections.
        app_state: goes into the scope of every request.
    """

    limits = Limits()  # a server has a subclass with its own

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.since = time.monotonic()  # when its phase began
        self._phase: Phase | None = None
        self._heard = False  # bytes of a header came
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def answering(self) -> bool:
        """Return whether a request has begun that is not answered."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def spare(self) -> bool:
        """Return whether the connection may be closed where there are too many: it has no whole request."""
        return not self.answering or self.cycle.more_body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, and close another where there are too many."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._enter("header")
        alive = [one for one in self.connections if isinstance(one, Connection) and not one.transport.is_closing()]
        most = self.limits.most_connections
        if len(alive) <= most:
            return
        if spare := [one for one in alive if one.spare and one is not self]:
            min(spare, key=lambda one: one.since).transport.abort()
        elif len(alive) <= most + BEYOND:
            self.app_state = {**self.app_state, CROWDED: True}
        else:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take bytes; a header that has begun has a time in which to end."""
        super().data_received(data)
        self._heard = True
        self._enter("answer" if self.answering else "header")

    def on_response_complete(self) -> None:
        """Wait for the next request, which may be here already."""
        self._phase, self._heard = None, False
        super().on_response_complete()
        self._enter("answer" if self.answering else "idle")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        super().connection_lost(exc)
        if self._deadline:
            self._deadline.cancel()

    def send_400_response(self, msg: str) -> None:
        """Tell a client that what it sent is no HTTP."""
        self._tell(ApiError(400, "the request is no valid HTTP"))

    def _enter(self, phase: Phase) -> None:
        """Begin the time in which a phase has to end, if the connection is not in it already."""
        if phase == self._phase or self.transport.is_closing():
            return
        self._phase, self.since = phase, time.monotonic()
        if self._deadline:
            self._deadline.cancel()
        limits = self.limits
        seconds = {
            "idle": limits.idle_seconds + LINGER,  # uvicorn closes it before, more politely
            "header": limits.header_seconds,
            "answer": limits.timeout + READING,
        }
        end = self._end_header if phase == "header" else self.transport.abort
        self._deadline = self.loop.call_later(seconds[phase], end)

    def _end_header(self) -> None:
        if self._heard:
            self._tell(ApiError(408, f"the header did not come within {self.limits.header_seconds:g} s"))
        else:
            self.transport.abort()

    def _tell(self, error: ApiError) -> None:
        """Say what is wrong, outside of any request, and close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps(error.body).encode()
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            head = h11.Response(status_code=error.status, headers=headers)
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        self._deadline = self.loop.call_later(LINGER, self.transport.abort)


def connections(limits: Limits) -> type[Connection]:
    """Return the connections of a server with these limits."""
    return type("ServedConnection", (Connection,), {"limits": limits})
