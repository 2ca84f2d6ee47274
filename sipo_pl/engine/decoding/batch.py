"""A batch of rows that are decoded together, one token a step: the engine of a stage's generation and of a stream.

A row holds a slot while it runs. A row that ends, or is cancelled, leaves its slot to one that waits.
"""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from sipo_pl.engine.decoding.fused_rows import FusedRows, Fusion
from sipo_pl.engine.decoding.noise import Noise, row_uniforms
from sipo_pl.engine.decoding.options import Decoding, FinishReason, Request
from sipo_pl.engine.decoding.slot_sizes import SlotSizes
from sipo_pl.method.fusion import next_tokens


@dataclass(eq=False)
class DecodingRow:
    """A request that waits for a slot, runs or has ended.

    Args:
        request: what to decode; its weights follow the groups of the fusion
        decoding: its settings; `beams` and `batch_rows` have no effect here
        noise: which noise its tokens are drawn by
        tokens: its tokens so far, without the one that ended it
        end_id: the token that ended it; none where it runs or was cut
        finish_reason: "eos" or "length" once it has ended
    """

    request: Request
    decoding: Decoding
    noise: Noise
    tokens: list[int] = field(default_factory=list)
    end_id: int | None = None
    finish_reason: FinishReason | None = None

    @cached_property
    def limit(self) -> int:
        """Return the most tokens that the row may grow to, the one that ends it included."""
        return self.decoding.limit(len(self.request.prompt_ids))

    @property
    def is_sampled(self) -> bool:
        return self.decoding.temperature > 0

    @cached_property
    def uniforms(self) -> list[float]:
        """Return the noise of a sampled row, one number in [0, 1) for each step."""
        return row_uniforms(*self.noise, self.limit).tolist()

    def append(self, token: int, end_ids: frozenset[int]) -> None:
        """Take the next token, and say by `finish_reason` where the row ends with it."""
        if token in end_ids:
            self.end_id, self.finish_reason = token, "eos"
        else:
            self.tokens.append(token)
            if len(self.tokens) == self.limit:
                self.finish_reason = "length"
        if self.finish_reason and self.is_sampled:
            del self.uniforms  # a stage keeps its rows to the end; their noise would add up


@dataclass(frozen=True)
class SlotRules:
    """When rows take free slots, and when free slots are dropped.

    Args:
        refill: rows that wait take slots once more than this share of the slots is free, or all are
        shrink: on a CPU, free slots are dropped once no more than this share is in use and no row waits
        shrink_on_gpu: the same on a GPU, where another number of slots needs another CUDA graph
        shrink_at_any_step: free slots are dropped at any step; otherwise only after a step in which a row ended
        forget_prompts: drop, with the slots, the prompts that no row continues any more
    """

    refill: float
    shrink: float
    shrink_on_gpu: float
    shrink_at_any_step: bool
    forget_prompts: bool


class DecodingBatch:
    """Rows that are decoded together while others join and leave. One thread at a time may call it.

    Args:
        fusion: how scores are made.
        end_ids: tokens of which any ends a row.
        slots: rows that are decoded at once; more wait.
        rules: when slots are taken and dropped.
        sizes: what the slots have room for, where all rows are known; otherwise they grow as rows come.
    """

    def __init__(
        self, fusion: Fusion, end_ids: frozenset[int], slots: int, rules: SlotRules, sizes: SlotSizes | None = None
    ) -> None:
        self.fusion, self.end_ids, self.most, self.rules, self.sizes = fusion, end_ids, slots, rules, sizes
        self.device = fusion.forward.device
        self.shrink_share = rules.shrink_on_gpu if self.device.type == "cuda" else rules.shrink
        self.waiting: deque[DecodingRow] = deque()
        self.slots: list[DecodingRow | None] = []  # the row in each
        self.rows: FusedRows | None = None  # none while no row runs, so that no memory is held
        self.chosen = torch.zeros(0, dtype=torch.long, device=self.device)  # the last step's token of each slot
        self.released = False  # whether slots became free after the last step

    def __iter__(self) -> Iterator[DecodingRow]:
        """Yield the rows that wait, then those that run."""
        yield from self.waiting
        yield from (row for row in self.slots if row is not None)

    @property
    def running(self) -> int:
        """Return how many rows hold a slot."""
        return sum(row is not None for row in self.slots)

    @property
    def busy(self) -> int:
        """Return how many rows run or wait."""
        return len(self.waiting) + self.running

    def add(self, row: DecodingRow) -> None:
        """Let a row join at the next step, or as soon as a slot is free; first come, first served.

        Args:
            row: its limit is at least one token.
        """
        self.waiting.append(row)

    @torch.inference_mode()
    def cancel(self, key: str) -> bool:
        """Drop the row of a request; return whether there was one."""
        for row in self.waiting:
            if row.request.key == key:
                self.waiting.remove(row)
                return True
        found = [slot for slot, row in enumerate(self.slots) if row is not None and row.request.key == key]
        self._release(found)
        return bool(found)

    @torch.inference_mode()
    def step(self) -> list[DecodingRow]:
        """Decode one token of every row that runs, after waiting ones have joined.

        Returns:
            The rows that got a token, those among them that ended with it; none where there is nothing to do.
        """
        self._shrink()
        self._advance()
        self._admit()
        if self.rows is None:
            return []
        self.chosen = self._choose(self.rows.scores())
        stepped = []
        for row, token in zip(self.slots, self.chosen.tolist(), strict=True):
            if row is not None:
                row.append(token, self.end_ids)
                stepped.append(row)
        self._release([slot for slot, row in enumerate(self.slots) if row is not None and row.finish_reason])
        return stepped

    def _release(self, slots: Sequence[int]) -> None:
        if slots:
            assert self.rows is not None
            self.rows.release(slots)
            self.released = True
        for slot in slots:
            self.slots[slot] = None

    def _shrink(self) -> None:
        """Drop free slots once they are many and no row waits; with the last row, drop all that is held."""
        due, self.released = self.released or self.rules.shrink_at_any_step, False
        busy = [slot for slot, row in enumerate(self.slots) if row is not None]
        if not due or self.rows is None or self.waiting or len(busy) > len(self.slots) * self.shrink_share:
            return
        if not busy:
            self.rows, self.slots = None, []
            return
        self.rows.select(busy)
        if self.rules.forget_prompts:
            self.rows.slots.forget_prompts()
        self.slots = [self.slots[slot] for slot in busy]
        self.chosen = self.chosen[torch.tensor(busy, device=self.device)]

    def _advance(self) -> None:
        """Run the policies over the tokens of the last step."""
        running = [row for row in self.slots if row is not None]
        if self.rows is None or not running:
            return
        longest = max(len(row.tokens) for row in running)
        if longest > self.rows.slots.responses.capacity:
            self.rows.grow(SlotSizes.grown(response_tokens=longest))
        self.rows.advance(self.chosen)

    def _admit(self) -> None:
        """Let waiting rows take slots, the longest prompts first; prompts of one step are computed together."""
        free = self.most - self.running
        if not self.waiting or (self.running and free <= self.most * self.rules.refill):
            return
        coming = sorted(itertools.islice(self.waiting, free), key=lambda row: -len(row.request.prompt_ids))
        rows = self._with_room(self.running + len(coming), len(coming[0].request.prompt_ids))
        slots = [slot for slot, row in enumerate(self.slots) if row is None]
        count = rows.admit(slots, [row.request for row in coming])
        for slot, row in zip(slots, coming[:count], strict=False):
            self.slots[slot] = row
            self.waiting.remove(row)

    def _with_room(self, count: int, prompt_tokens: int) -> FusedRows:
        """Return the fused rows, with at least so many slots, and room for a prompt of so many tokens."""
        sizes = SlotSizes.grown(count, prompt_tokens, most_rows=self.most)
        if self.rows is None:
            self.rows = FusedRows(self.fusion, self.sizes or sizes)
        held = self.rows.slots
        if count > held.rows or prompt_tokens - len(held.header) > held.prompts.capacity:
            self.rows.grow(sizes)
        self.slots += [None] * (held.rows - len(self.slots))
        return self.rows

    def _choose(self, scores: Tensor) -> Tensor:
        """Return a token for every slot, (R,), each by the settings of its own row."""
        tokens = scores.argmax(dim=-1)
        sampled: dict[tuple[float, float], list[int]] = {}
        for slot, row in enumerate(self.slots):
            if row is not None and row.is_sampled:
                sampled.setdefault((row.decoding.temperature, row.decoding.top_p), []).append(slot)
        for (temperature, top_p), slots in sampled.items():
            rows = [self.slots[slot] for slot in slots]
            noise = [row.uniforms[len(row.tokens)] for row in rows if row is not None]
            uniforms = torch.tensor(noise, dtype=torch.float32, device=self.device)
            if len(slots) == len(self.slots):
                return next_tokens(scores, uniforms, temperature, top_p)
            where = torch.tensor(slots, device=self.device)
            tokens[where] = next_tokens(scores[where], uniforms, temperature, top_p)
        return tokens
