"""From a request that is known to be right to its response: whole, or in pieces while it is made."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from sipo_pl.serve.catalogue import Catalogue
from sipo_pl.serve.engine import Answering, Engine
from sipo_pl.serve.errors import ApiError, invalid
from sipo_pl.serve.limits import Limits
from sipo_pl.serve.prompts import Prompts
from sipo_pl.serve.replies import DONE, Reply, event
from sipo_pl.serve.schemas import Sampling
from sipo_pl.serve.work import Work
from sipo_pl.use.api import Policies

log = logging.getLogger("sipo_pl")
READING = 30.0  # seconds beyond the time limit in which a client has to read what it was sent


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

    def work(self, body: Sampling, prompt_ids: tuple[int, ...]) -> Work:
        """Return what the engine is to do.

        Raises:
            ApiError: weights that are wrong, or more tokens than are granted.
        """
        point = self.catalogue.point(body.model, body.weights)
        longest = self.limits.max_length
        room = longest - len(prompt_ids)
        wanted = body.longest
        if room < (wanted or 1):
            asked = f", and {wanted} of an answer are asked for" if wanted else ""
            raise invalid(
                f"the prompt has {len(prompt_ids)} tokens{asked}; prompt and answer together may have {longest}",
                code="context_length_exceeded",
                param="max_tokens" if wanted and room > 0 else None,
            )
        mine = self.defaults
        decoding = self.policies.decoding(
            mine.temperature if body.temperature is None else body.temperature,
            mine.top_p if body.top_p is None else body.top_p,
            wanted or mine.max_new_tokens,
            longest,
        )
        return Work(prompt_ids, point, decoding, body.seed, body.stops, body.stream)

    async def respond(
        self, request: Request, body: Sampling, prompt_ids: tuple[int, ...], kind: type[Reply]
    ) -> Response:
        """Answer a request; a client that goes away frees its slot."""
        work = self.work(body, prompt_ids)
        named = dict(zip(self.policies.objectives, work.weights, strict=True))
        reply = kind(self.catalogue.called(work.weights), named, len(prompt_ids))
        answering = self.engine.submit(work)
        if body.stream:
            count = body.stream_options is not None and body.stream_options.include_usage
            return AnswerStream(answering, _events(answering, reply, count), self.limits.timeout + READING)
        return await _whole(request, answering, reply)


async def _whole(request: Request, answering: Answering, reply: Reply) -> Response:
    async def collect() -> Response:
        text, tokens = "", 0
        async for piece in answering.pieces():
            text, tokens = text + piece.text, piece.tokens
            if piece.finish_reason:
                return JSONResponse(reply.whole(text, piece.finish_reason, tokens))
        raise AssertionError("answers end with a reason")

    async def gone() -> Response:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        return Response(status_code=499)  # nobody reads it

    tasks = {asyncio.create_task(collect()), asyncio.create_task(gone())}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        for task in tasks:
            task.cancel()
        answering.cancel()


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
