"""Work for a client, as long as it is there and its time lasts."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

from sipo_pl.serve.errors import client_gone

T = TypeVar("T")


async def attended(request: Request, work: Coroutine[Any, Any, T], seconds: float | None) -> T:
    """Return what comes of work, which ends when the client goes away or its time is up.

    Args:
        request: whose body has been read.
        work: what is to be done.
        seconds: that it may take; none where it bounds its time itself.

    Raises:
        ApiError: nobody waits for it any more.
        TimeoutError: its time is up.
    """
    working, leaving = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        done, _ = await asyncio.wait(
            (working, leaving),
            timeout=None if seconds is None else max(0.0, seconds),
            return_when=asyncio.FIRST_COMPLETED,
        )
        if working in done:
            return working.result()
        raise client_gone() if done else TimeoutError
    finally:
        working.cancel()
        leaving.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
