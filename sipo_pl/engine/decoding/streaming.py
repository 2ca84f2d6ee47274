"""Fused decoding of requests that come and go: each step gives a token to every one that runs.

A request joins the running batch with weights, settings and a length of its own, and leaves it when it ends or is
cancelled. In float32 its text is the one that `generate` would give, whatever its company.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from sipo_pl.engine.decoding.batch import DecodingBatch, DecodingRow, SlotRules
from sipo_pl.engine.decoding.fused_rows import Fusion
from sipo_pl.engine.decoding.generation import check_requests, fused_groups, weights_over
from sipo_pl.engine.decoding.noise import Noise
from sipo_pl.engine.decoding.options import Decoding, FinishReason, Request, end_ids
from sipo_pl.engine.lora.policies import PolicySet
from sipo_pl.messages.errors import UserError
from sipo_pl.method.divergences import Divergence

RULES = SlotRules(refill=0, shrink=1 / 2, shrink_on_gpu=1 / 4, shrink_at_any_step=True, forget_prompts=True)


class Event(NamedTuple):
    """What a step did for one request.

    Args:
        key: which request
        token_id: its new token; none where EOS ended it
        finish_reason: "eos" or "length" where it ended, after which nothing more comes of it
    """

    key: str
    token_id: int | None
    finish_reason: FinishReason | None


@contextmanager
def stream(
    policies: PolicySet, count: int, divergence: Divergence, eos_id: int | Collection[int], *, slots: int, seed: int
) -> Iterator["Stream"]:
    """Open a stream; within the block, the policies are its own.

    Args:
        policies: the policies, frozen, over their base models.
        count: how many of the first groups are fused; a request has a weight for each.
        divergence: its rule fuses the policies.
        eos_id: token that ends a response, or several of which any does.
        slots: requests that are decoded at once; more wait.
        seed: with a request's key, seeds its noise.
    """
    groups, reference = fused_groups(policies, tuple(range(count)), divergence)
    with policies.active(groups) as forward:
        yield Stream(Fusion(forward, divergence, reference), groups, eos_id, slots, seed)


class Stream:
    """Requests that are decoded together while others join and leave. One thread at a time may call it.

    Args:
        fusion: how scores are made.
        groups: what the groups of its forward are called in the weights of requests.
        eos_id: token that ends a response, or several of which any does.
        slots: requests that are decoded at once.
        seed: with a request's key, seeds its noise.
    """

    def __init__(
        self, fusion: Fusion, groups: Iterable[int], eos_id: int | Collection[int], slots: int, seed: int
    ) -> None:
        self.groups, self.seed = tuple(groups), seed
        self.batch = DecodingBatch(fusion, end_ids(eos_id), slots, RULES)

    @property
    def busy(self) -> int:
        """Return how many requests run or wait."""
        return self.batch.busy

    @property
    def running(self) -> int:
        """Return how many requests hold a slot."""
        return self.batch.running

    def add(self, request: Request, decoding: Decoding, noise: Noise | None = None) -> None:
        """Let a request join at the next step, or as soon as a slot is free; first come, first served.

        Args:
            request: its weights are one for each policy; its key is not that of another one that runs or waits.
            decoding: its settings; `batch_rows` is not looked at.
            noise: its noise; that of the stream's seed and its key where not given.

        Raises:
            UserError: no token is left for an answer, it may grow beyond what the model takes, beams, or a key that is
                taken.
        """
        if decoding.beams > 1:
            raise UserError("decoding.beams: a stream follows one text of a request; set it to 1")
        if any(row.request.key == request.key for row in self.batch):
            raise UserError(f"a request {request.key!r} is being decoded already")
        row = DecodingRow(
            request._replace(weights=weights_over(request.weights, self.groups)),
            decoding,
            noise or Noise(self.seed, request.key),
        )
        if row.limit < 1:
            raise UserError(
                f"the prompt has {len(request.prompt_ids)} tokens, and prompt and answer together may have "
                f"{decoding.max_length} (max_length): nothing is left for an answer"
            )
        check_requests(self.batch.fusion.forward, [request], decoding)
        self.batch.add(row)

    def cancel(self, key: str) -> bool:
        """Drop a request; return whether there was one. No event comes of it any more."""
        return self.batch.cancel(key)

    def step(self) -> list[Event]:
        """Decode one token of every request that runs, and let waiting ones join; return what came of each.

        Returns:
            One event for each request that runs; none where there is nothing to do.
        """
        try:
            stepped = self.batch.step()
        except torch.OutOfMemoryError:
            raise UserError(
                f"{self.running} answers at once are too much for the GPU's memory; fewer slots need less"
            ) from None
        return [_event(row) for row in stepped]


def _event(row: DecodingRow) -> Event:
    return Event(row.request.key, None if row.finish_reason == "eos" else row.tokens[-1], row.finish_reason)
