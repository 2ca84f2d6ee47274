"""Fused decoding of requests that come and go: each step gives a token to every one that runs.

A request joins the running batch with weights, settings and a length of its own, and leaves it when it ends or is
cancelled. In float32 its text is the one that `generate` would give, whatever its company.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sipo_pl.engine.decoding.fused_rows import FusedRows, Fusion
from sipo_pl.engine.decoding.generation import fused_groups, weights_over
from sipo_pl.engine.decoding.noise import Noise, row_uniforms
from sipo_pl.engine.decoding.options import Decoding, FinishReason, Request
from sipo_pl.engine.decoding.slot_sizes import SlotSizes
from sipo_pl.engine.lora.policies import PolicySet
from sipo_pl.messages.errors import UserError
from sipo_pl.method.divergences import Divergence
from sipo_pl.method.fusion import next_tokens

LEAST_TOKENS = 64  # tokens that prompts and responses have room for at first; each growth doubles it
SHRINK = {False: 1 / 2, True: 1 / 4}  # share of the slots in use at which the others go; on a GPU a new graph is due


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


@dataclass
class Running:
    """A request in the batch or on its way there.

    Args:
        request: what to decode
        decoding: its settings
        limit: tokens that it may grow to, EOS included
        uniforms: its noise, one number a step; empty where it is greedy
        made: tokens so far
    """

    request: Request
    decoding: Decoding
    limit: int
    uniforms: Tensor
    made: int = 0


@contextmanager
def stream(
    policies: PolicySet, count: int, divergence: Divergence, eos_id: int, *, slots: int, seed: int
) -> Iterator["Stream"]:
    """Open a stream; within the block, the policies are its own.

    Args:
        policies: the policies, frozen, over their base models.
        count: how many of the first groups are fused; a request has a weight for each.
        divergence: its rule fuses the policies.
        eos_id: token that ends a response.
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
        eos_id: token that ends a response.
        slots: requests that are decoded at once.
        seed: with a request's key, seeds its noise.
    """

    def __init__(self, fusion: Fusion, groups: Iterable[int], eos_id: int, slots: int, seed: int) -> None:
        self.fusion, self.groups, self.eos_id = fusion, tuple(groups), eos_id
        self.most, self.seed, self.device = slots, seed, fusion.forward.device
        self.waiting: deque[Running] = deque()
        self.slots: list[Running | None] = []
        self.rows: FusedRows | None = None  # none while nothing runs, so that nothing is held
        self.chosen = torch.zeros(0, dtype=torch.long, device=self.device)

    @property
    def busy(self) -> int:
        """Return how many requests run or wait."""
        return len(self.waiting) + self.running

    @property
    def running(self) -> int:
        """Return how many requests hold a slot."""
        return sum(running is not None for running in self.slots)

    def add(self, request: Request, decoding: Decoding, noise: Noise | None = None) -> None:
        """Let a request join at the next step, or as soon as a slot is free; first come, first served.

        Args:
            request: its weights are one for each policy; its key is not that of another one that runs or waits.
            decoding: its settings; `batch_rows` is not looked at.
            noise: its noise; that of the stream's seed and its key where not given.

        Raises:
            UserError: no token is left for an answer, beams, or a key that is taken.
        """
        if decoding.beams > 1:
            raise UserError("decoding.beams: a stream follows one text of a request; set it to 1")
        if any(running.request.key == request.key for running in self._all()):
            raise UserError(f"a request {request.key!r} is being decoded already")
        limit = decoding.limit(len(request.prompt_ids))
        if limit < 1:
            raise UserError(
                f"the prompt has {len(request.prompt_ids)} tokens, and prompt and answer together may have "
                f"{decoding.max_length} (max_length): nothing is left for an answer"
            )
        request = request._replace(weights=weights_over(request.weights, self.groups))
        sampled = decoding.temperature > 0
        uniforms = row_uniforms(*(noise or (self.seed, request.key)), limit if sampled else 0)
        self.waiting.append(Running(request, decoding, limit, uniforms))

    @torch.inference_mode()
    def cancel(self, key: str) -> bool:
        """Drop a request; return whether there was one. No event comes of it any more."""
        for running in self.waiting:
            if running.request.key == key:
                self.waiting.remove(running)
                return True
        for slot, held in enumerate(self.slots):
            if held is not None and held.request.key == key:
                self._release([slot])
                return True
        return False

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Decode one token of every request that runs, and let waiting ones join; return what came of each.

        Returns:
            One event for each request that runs; none where there is nothing to do.
        """
        try:
            self._shrink()
            self._advance()
            self._admit()
            if self.rows is None:
                return []
            self.chosen = self._choose(self.rows.scores())
        except torch.OutOfMemoryError:
            raise UserError(
                f"{self.running} answers at once are too much for the GPU's memory; fewer slots need less"
            ) from None
        return self._record(self.chosen.tolist())

    def _all(self) -> Iterator[Running]:
        yield from self.waiting
        yield from (running for running in self.slots if running is not None)

    def _release(self, slots: list[int]) -> None:
        assert self.rows is not None
        self.rows.release(slots)
        for slot in slots:
            self.slots[slot] = None

    def _shrink(self) -> None:
        """Drop free slots once they are many and nobody waits for them; all of them, with what they hold, at last."""
        busy = [slot for slot, running in enumerate(self.slots) if running is not None]
        if self.rows is None or self.waiting or len(busy) > len(self.slots) * SHRINK[self.device.type == "cuda"]:
            return
        if not busy:
            self.rows, self.slots = None, []
            return
        self.rows.select(busy)
        self.rows.slots.forget_prompts()
        self.slots = [self.slots[slot] for slot in busy]
        self.chosen = self.chosen[torch.tensor(busy, device=self.device)]

    def _advance(self) -> None:
        """Run the policies over the tokens of the last step."""
        running = [one for one in self.slots if one is not None]
        if self.rows is None or not running:
            return
        longest = max(one.made for one in running)
        if longest > self.rows.slots.responses.capacity:
            self.rows.grow(self._sizes(response_tokens=longest))
        self.rows.advance(self.chosen)

    def _admit(self) -> None:
        """Let waiting requests take slots, with more of them where that is allowed; the longest prompts first."""
        free = [slot for slot, running in enumerate(self.slots) if running is None]
        count = min(len(self.waiting), self.most - (len(self.slots) - len(free)))
        if count < 1:
            return
        coming = [self.waiting.popleft() for _ in range(count)]
        coming.sort(key=lambda one: -len(one.request.prompt_ids))
        self._make_room(len(self.slots) - len(free) + count, len(coming[0].request.prompt_ids))
        free = [slot for slot, running in enumerate(self.slots) if running is None][:count]
        assert self.rows is not None
        admitted = self.rows.admit(free, [one.request for one in coming])
        assert admitted == count  # there are as many places for prompts as slots
        for slot, one in zip(free, coming, strict=True):
            self.slots[slot] = one

    def _make_room(self, rows: int, prompt_tokens: int) -> None:
        sizes = self._sizes(min(self.most, _power_of_two(rows)), prompt_tokens)
        if self.rows is None:
            self.rows = FusedRows(self.fusion, sizes)
        elif rows > len(self.slots) or prompt_tokens > self.rows.slots.prompts.capacity:
            self.rows.grow(sizes)
        self.slots += [None] * (self.rows.slots.rows - len(self.slots))

    def _sizes(self, rows: int = 0, prompt_tokens: int = 0, response_tokens: int = 0) -> SlotSizes:
        prompt, response = (max(LEAST_TOKENS, _power_of_two(count)) for count in (prompt_tokens, response_tokens))
        return SlotSizes(rows, rows, prompt, response)

    def _choose(self, scores: Tensor) -> Tensor:
        """Return a token for every slot, (R,), each by the settings of its own request."""
        tokens = scores.argmax(dim=-1)
        sampled = [
            (slot, one) for slot, one in enumerate(self.slots) if one is not None and one.decoding.temperature > 0
        ]

        def settings(pair: tuple[int, Running]) -> tuple[float, float]:
            return pair[1].decoding.temperature, pair[1].decoding.top_p

        for (temperature, top_p), alike in itertools.groupby(sorted(sampled, key=settings), key=settings):
            members = list(alike)
            slots = torch.tensor([slot for slot, _ in members], device=self.device)
            uniforms = torch.stack([one.uniforms[one.made] for _, one in members]).to(self.device)
            tokens[slots] = next_tokens(scores[slots], uniforms, temperature, top_p)
        return tokens

    def _record(self, chosen: list[int]) -> list[Event]:
        events, ended = [], []
        for slot, one in enumerate(self.slots):
            if one is None:
                continue
            one.made += 1
            reason: FinishReason | None = None
            if chosen[slot] == self.eos_id:
                reason = "eos"
            elif one.made == one.limit:
                reason = "length"
            events.append(Event(one.request.key, None if reason == "eos" else chosen[slot], reason))
            if reason:
                ended.append(slot)
        if ended:
            self._release(ended)
        return events


def _power_of_two(count: int) -> int:
    return 1 << max(0, count - 1).bit_length()
