"""From a request that is known to be right to its response: whole, or in pieces while it is made."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from sipo_pl.serve.bodies import read_body
from sipo_pl.serve.catalogue import Catalogue
from sipo_pl.serve.engine import Answering, Engine
from sipo_pl.serve.errors import TOO_LONG, ApiError, invalid
from sipo_pl.serve.limits import Limits
from sipo_pl.serve.presence import attended
from sipo_pl.serve.prompts import Prompts
from sipo_pl.serve.replies import DONE, Reply, event
from sipo_pl.serve.schemas import Sampling
from sipo_pl.serve.work import Work
from sipo_pl.use.api import Policies

log = logging.getLogger("sipo_pl")
READING = 30.0  # seconds beyond the time limit in which a client has to read what it was sent

Body = TypeVar("Body", bound=Sampling)


@dataclass(frozen=True)
class Defaults:
    """Settings of requests that do not give them.

    Args:
        temperature: divides the fused scores; zero is greedy
        top_p: share of probability that the likeliest tokens must hold to be drawn from
        max_new_tokens: longest answer in tokens
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 256


@dataclass(frozen=True)
class Service:
    """What handlers need.

    Args:
        policies: the served ones
        catalogue: names and weights
        engine: decodes
        prompts: tokenises
        limits: of the server
        defaults: of requests
    """

    policies: Policies
    catalogue: Catalogue
    engine: Engine
    prompts: Prompts
    limits: Limits
    defaults: Defaults

    async def answer(
        self,
        request: Request,
        kind: type[Body],
        tokens: Callable[[Body, int], Coroutine[Any, Any, tuple[int, ...]]],
        reply: type[Reply],
    ) -> Response:
        """Answer a request; its time begins here, and a client that goes away is not served any further.

        Args:
            request: of a client.
            kind: of its body.
            tokens: make the prompt's, given the body and how many the prompt may have.
            reply: what the answer is put into.

        Raises:
            ApiError: the body is wrong, too many wait, or time is up.
        """
        begun = time.monotonic()
        body = await read_body(request, kind, self.limits)
        point = self.catalogue.point(body.model, body.weights)  # what is wrong there is said before a prompt is read
        room = self._room(body)
        with self.engine.place():
            left = begun + self.limits.timeout - time.monotonic()
            prompt_ids = await attended(request, tokens(body, room), left)
            answering = self.engine.submit(self._work(body, point, prompt_ids, begun))
        named = dict(zip(self.policies.objectives, point, strict=True))
        told = reply(self.catalogue.called(point), named, len(prompt_ids))
        if body.stream:
            count = body.stream_options is not None and body.stream_options.include_usage
            return AnswerStream(answering, _events(answering, told, count), self.limits.timeout + READING)
        try:
            return await attended(request, _whole(answering, told), None)
        finally:
            answering.cancel()

    def _room(self, body: Sampling) -> int:
        """Return how many tokens the prompt may have."""
        longest, wanted = self.limits.max_length, body.longest or 1
        if wanted >= longest:
            said = f"{wanted} tokens of an answer are asked for; prompt and answer together may have {longest}"
            raise invalid(said, "max_tokens", TOO_LONG)
        return longest - wanted

    def _work(self, body: Sampling, point: tuple[float, ...], prompt_ids: tuple[int, ...], begun: float) -> Work:
        longest, wanted = self.limits.max_length, body.longest
        if len(prompt_ids) > self._room(body):
            asked = f", and {wanted} of an answer are asked for" if wanted else ""
            raise invalid(
                f"the prompt has {len(prompt_ids)} tokens{asked}; prompt and answer together may have {longest}",
                "max_tokens" if wanted and len(prompt_ids) < longest else None,
                TOO_LONG,
            )
        mine = self.defaults
        decoding = self.policies.decoding(
            mine.temperature if body.temperature is None else body.temperature,
            mine.top_p if body.top_p is None else body.top_p,
            wanted or mine.max_new_tokens,
            longest,
        )
        return Work(prompt_ids, point, decoding, body.seed, body.stops, body.stream, begun=begun)


async def _whole(answering: Answering, reply: Reply) -> Response:
    text, tokens = "", 0
    async for piece in answering.pieces():
        text, tokens = text + piece.text, piece.tokens
        if piece.finish_reason:
            return JSONResponse(reply.whole(text, piece.finish_reason, tokens))
    raise AssertionError("answers end with a reason")


async def _events(answering: Answering, reply: Reply, count: bool) -> AsyncIterator[bytes]:
    if begin := reply.begin():
        yield begin
    try:
        async for piece in answering.pieces():
            if piece.text:
                yield reply.chunk(piece.text)
            if piece.finish_reason:
                yield reply.chunk("", piece.finish_reason)
                if count:
                    yield reply.count(piece.tokens)
    except ApiError as error:
        yield event(error.body)
        return
    yield DONE


class AnswerStream(StreamingResponse):
    """A response of events that frees the slot whenever and however it ends.

    Args:
        answering: the answer.
        content: its events.
        seconds: how long the response may take.
    """

    def __init__(self, answering: Answering, content: AsyncIterator[bytes], seconds: float) -> None:
        super().__init__(content, media_type="text/event-stream", headers={"cache-control": "no-store"})
        self.answering, self.seconds = answering, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self.seconds):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            log.warning("a client did not read its answer within %g s", self.seconds)
        finally:
            self.answering.cancel()
