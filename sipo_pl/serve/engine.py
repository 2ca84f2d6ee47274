"""The thread that owns the policies: requests go in by a queue, pieces of their answers come out to the event loop.

All requests are decoded together, whatever their weights, lengths and settings; see `engine.decoding.streaming`.
"""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from sipo_pl.engine.decoding.noise import Noise
from sipo_pl.engine.decoding.options import Request
from sipo_pl.engine.decoding.streaming import Event, Stream
from sipo_pl.messages.errors import UserError
from sipo_pl.serve.answer_text import AnswerText
from sipo_pl.serve.errors import GONE, RETRY_LATER, RETRY_NEVER, ApiError, invalid, stopping, too_late
from sipo_pl.serve.limits import Limits
from sipo_pl.serve.metrics import Metrics
from sipo_pl.serve.work import ApiFinishReason, Held, Piece, Work
from sipo_pl.use.api import Policies

log = logging.getLogger("sipo_pl")

OPENAI_REASON: dict[str, ApiFinishReason] = {"eos": "stop", "length": "length"}
PATIENCE = 3  # failures without a token in between, after which the engine gives up
BATCH_NOISE = "0"  # what `api.Fused.generate` calls the first row, so that a seed draws the same text there


class Answering:
    """An answer on its way, for the event loop.

    Args:
        engine: decodes it.
        work: what was asked.
    """

    def __init__(self, engine: "Engine", work: Work) -> None:
        self.engine, self.work = engine, work
        self.queue: asyncio.Queue[Piece] = asyncio.Queue()

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield pieces up to the one with a reason to finish.

        Raises:
            ApiError: the engine failed, or time was up.
        """
        limit = self.engine.limits.timeout
        ended = False
        while not ended:
            left = self.work.begun + limit - time.monotonic()
            try:
                piece = await asyncio.wait_for(self.queue.get(), max(0.0, left))
            except TimeoutError:
                self.cancel("timeout")
                raise too_late(limit) from None
            if piece.error:
                raise piece.error
            ended = piece.finish_reason is not None
            yield piece

    def cancel(self, reason: str = "cancelled") -> None:
        """Free the slot; nothing happens where the answer has ended."""
        self.engine.cancel(self.work.key, reason)


class Engine:
    """Decodes requests in a thread of its own; its methods are for the thread of the event loop.

    Args:
        policies: fused; nobody else may use them meanwhile.
        limits: of the server.
        metrics: take what happens.
    """

    def __init__(self, policies: Policies, limits: Limits, metrics: Metrics) -> None:
        self.policies, self.limits, self.metrics = policies, limits, metrics
        self.answers: dict[str, Answering] = {}  # those that have not ended
        self._arriving: set[asyncio.Task[Any]] = set()  # of requests whose prompts are not yet made
        self.broken = self.stopping = False
        self._inbox: queue.SimpleQueue[Work | str | None] = queue.SimpleQueue()  # a key cancels, none ends
        self._held: dict[str, Held] = {}  # of the thread, as is all below
        self._stream: Stream | None = None
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        metrics.watch(lambda: self.running, lambda: max(0, self.open - self.running))

    @property
    def running(self) -> int:
        """Return how many requests hold a slot."""
        stream = self._stream
        return stream.running if stream else 0

    @property
    def open(self) -> int:
        """Return how many requests run or wait, those among them whose prompts are being made."""
        return len(self.answers) + len(self._arriving)

    def start(self) -> None:
        """Begin; to be called within the event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Within the block, hold a place among the requests that run or wait, for one that will be submitted.

        The block is cancelled when the server is being stopped. Its TimeoutError is told as an answer's.

        Raises:
            ApiError: too many run or wait, the engine has given up, or time is up.
        """
        self._check()
        if self.open >= self.limits.at_once:
            self.metrics.ended("refused")
            raise ApiError(429, f"{self.open} requests run or wait", code="queue_full", headers=RETRY_LATER)
        task = asyncio.current_task()
        assert task is not None
        self._arriving.add(task)
        try:
            yield
        except TimeoutError:
            self.metrics.ended("timeout")
            raise too_late(self.limits.timeout) from None
        except ApiError as error:
            if error.status == GONE:
                self.metrics.ended("cancelled")
            raise
        finally:
            self._arriving.discard(task)

    def _check(self) -> None:
        if self.broken:
            raise ApiError(503, "the engine has failed; the server's log says why", code="engine_failed")
        if self.stopping:
            raise stopping()

    def submit(self, work: Work) -> Answering:
        """Let a request join, which holds a place.

        Raises:
            ApiError: the engine has given up, or is being stopped.
        """
        self._check()
        answering = self.answers[work.key] = Answering(self, work)
        self.metrics.prompt_tokens.inc(len(work.prompt_ids))
        self._inbox.put(work)
        return answering

    def cancel(self, key: str, reason: str) -> None:
        """Drop a request, if it has not ended."""
        if self.answers.pop(key, None):
            self.metrics.ended(reason)
            self._inbox.put(key)

    def end_answers(self) -> None:
        """End all answers, and what waits to become one, with an error, because the server is being stopped."""
        self.stopping, error = True, stopping()
        for task in self._arriving:
            task.cancel()
        for key, answering in list(self.answers.items()):
            self.cancel(key, "error")
            answering.queue.put_nowait(Piece("", 0, error=error))

    def close(self) -> None:
        """End the thread, once there are no answers any more."""
        self._inbox.put(None)
        self._thread.join()

    def _deliver(self, pieces: list[tuple[str, Piece]]) -> None:
        """Hand pieces to those who wait for them; runs in the event loop."""
        for key, piece in pieces:
            answering = self.answers.get(key)
            if answering is None:  # cancelled meanwhile
                continue
            if piece.finish_reason or piece.error:
                del self.answers[key]
                self.metrics.ended(piece.finish_reason or "error")
            answering.queue.put_nowait(piece)

    # in the engine's thread

    def _run(self) -> None:
        while not self.broken:
            try:
                with self.policies.stream(self.limits.slots) as self._stream:
                    self._decode(self._stream)
                    return
            except Exception as error:
                self._failures += 1
                log.exception("the engine failed on %d requests", len(self._held))
                self.broken = self._failures >= PATIENCE
                self._fail(str(error) if isinstance(error, UserError) else "the engine failed")
            finally:
                self._stream = None

    def _decode(self, stream: Stream) -> None:
        """Decode until the end is asked for; wait where there is nothing to do."""
        while self._take(stream):
            events = stream.step()
            pieces = [piece for event in events if (piece := self._hear(stream, event))]
            self.metrics.completion_tokens.inc(len(events))
            self._failures = 0 if events else self._failures
            if pieces:
                self._send(pieces)

    def _take(self, stream: Stream) -> bool:
        """Read the inbox; return whether to go on."""
        if not stream.busy:
            stream.step()  # lets go of what the last ones held
        while not (self._inbox.empty() and stream.busy):
            item = self._inbox.get()
            if item is None:
                return False
            if isinstance(item, str):
                self._drop(stream, item)
            else:
                self._add(stream, item)
        return True

    def _add(self, stream: Stream, work: Work) -> None:
        self._held[work.key] = Held(work, AnswerText(self.policies.template, work.stops, work.eager))
        noise = None if work.seed is None else Noise(work.seed, BATCH_NOISE)
        try:
            stream.add(Request(work.key, work.prompt_ids, work.weights), work.decoding, noise)
        except UserError as error:
            del self._held[work.key]
            self._send([(work.key, Piece("", 0, error=invalid(str(error))))])

    def _drop(self, stream: Stream, key: str) -> None:
        stream.cancel(key)
        self._held.pop(key, None)

    def _hear(self, stream: Stream, event: Event) -> tuple[str, Piece] | None:
        held = self._held[event.key]
        held.tokens += 1
        if held.tokens == 1:
            self.metrics.first_token.observe(time.monotonic() - held.work.begun)
        text = held.text.push(event.token_id) if event.token_id is not None else ""
        reason = OPENAI_REASON[event.finish_reason] if event.finish_reason else None
        if reason and not held.text.stopped:
            text += held.text.close()
        if held.text.stopped:
            reason = "stop"
        if reason:
            self._drop(stream, event.key)
        elif not text:
            return None
        return event.key, Piece(text, held.tokens, reason)

    def _fail(self, message: str) -> None:
        """Tell all that are being decoded; those that wait in the inbox too, where nobody will read it any more."""
        keys = set(self._held)
        self._held.clear()
        while self.broken and not self._inbox.empty():
            item = self._inbox.get()
            keys |= {item.key} if isinstance(item, Work) else set()
        error = ApiError(500, message, headers=RETRY_NEVER)
        self._send([(key, Piece("", 0, error=error)) for key in keys])

    def _send(self, pieces: list[tuple[str, Piece]]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, pieces)
