"""MOD decoding: all policies of a batch in one forward, their next-token distributions fused (arXiv 2406.18853).

A batch holds K policies x R rows, group k under policy k. Each prompt is computed once for all its rows, because its
keys and values depend neither on the weights nor on the sample. A row that ends leaves its slot to the next.
"""

from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sipo_pl.engine.decoding.beams import beam_search
from sipo_pl.engine.decoding.fused_rows import FusedRows, Fusion
from sipo_pl.engine.decoding.noise import row_uniforms
from sipo_pl.engine.decoding.options import Decoding, FinishReason, Generated, Request
from sipo_pl.engine.decoding.slot_sizes import SlotSizes
from sipo_pl.engine.lora.policies import PolicySet
from sipo_pl.engine.memory_budget import rows_at_once
from sipo_pl.method.divergences import Divergence
from sipo_pl.method.fusion import next_tokens

Progress = Callable[[int, int], None]

REFILL = 1 / 8  # share of the slots that are free before waiting rows take them
SHRINK = {False: 3 / 4, True: 1 / 2}  # share of the slots in use at which the others go; on a GPU a new graph is due


@torch.inference_mode()
def generate(
    policies: PolicySet,
    requests: Sequence[Request],
    decoding: Decoding,
    divergence: Divergence,
    eos_id: int,
    seed: int,
    on_progress: Progress = lambda rows, tokens: None,
    raw_logits: bool = False,
) -> list[Generated]:
    """Decode every request, `decoding.batch_rows` at once, longest prompts first.

    Rows whose weights are positive for the same policies run together. No other policy is computed for them, except the
    reference where several are fused and the divergence needs it.

    Args:
        policies: the policies, frozen, over their base models.
        requests: what to decode; the same prompt may appear with several weights and keys.
        decoding: settings.
        divergence: its rule fuses the policies.
        eos_id: token that ends a response.
        seed: with a request's key, seeds the row's noise.
        on_progress: told, at each step, the rows that ended and the tokens made.
        raw_logits: greedy decoding cumulates logits in place of log-probabilities (`compat.raw_logits`).

    Returns:
        One response per request, in order.
    """
    greedy = decoding.temperature == 0 and decoding.beams == 1
    by_support: dict[tuple[int, ...], list[int]] = {}
    for index, request in enumerate(requests):
        support = tuple(k for k, weight in enumerate(request.weights) if weight > 0)
        by_support.setdefault(support, []).append(index)
    results: dict[int, Generated] = {}
    for support, members in by_support.items():
        # rows of a prompt stand together, so that they share its prefill
        members.sort(key=lambda i: (-len(requests[i].prompt_ids), requests[i].prompt_ids))
        groups, reference = fused_groups(policies, support, divergence)
        with policies.active(groups) as forward:
            fusion = Fusion(forward, divergence, reference, decoding.beams > 1, raw_logits and greedy)
            ordered = [requests[i]._replace(weights=weights_over(requests[i].weights, groups)) for i in members]

            def decode(count: int, fusion: Fusion = fusion, ordered: Sequence[Request] = ordered) -> list[Generated]:
                told = Told(on_progress)
                try:
                    if decoding.beams > 1:
                        return _search(fusion, ordered, decoding, max(1, count // decoding.beams), eos_id, told)
                    return _Batch(fusion, ordered, count, decoding, eos_id, seed).run(told)
                except torch.OutOfMemoryError:
                    told.take_back()
                    raise

            count = rows_at_once(forward, ordered, decoding)
            generated = policies.room.run("decoding.batch_rows", count, decode)
            results.update(zip(members, generated, strict=True))
    return [results[index] for index in range(len(requests))]


class Told:
    """Hands progress on, and can take it back.

    Args:
        on_progress: who is told
    """

    def __init__(self, on_progress: Progress) -> None:
        self.on_progress, self.rows = on_progress, 0

    def __call__(self, rows: int, tokens: int) -> None:
        self.rows += rows
        self.on_progress(rows, tokens)

    def take_back(self) -> None:
        """Tell that the rows are to be done again."""
        self.on_progress(-self.rows, 0)


def fused_groups(
    policies: PolicySet, support: tuple[int, ...], divergence: Divergence
) -> tuple[tuple[int, ...], int | None]:
    """Return the groups to run, and the reference's position among them where it is needed."""
    if not divergence.needs_reference or len(support) == 1:
        return support, None
    reference = policies.common_reference(support)
    groups = tuple(sorted({*support, reference}))
    return groups, groups.index(reference)


def weights_over(weights: Sequence[float], groups: Sequence[int]) -> tuple[float, ...]:
    """Return the weight of each of `groups`; groups beyond `weights` have none."""
    return tuple(weights[k] if k < len(weights) else 0.0 for k in groups)


def _search(
    fusion: Fusion, requests: Sequence[Request], decoding: Decoding, size: int, eos_id: int, on_progress: Progress
) -> list[Generated]:
    """Search with beams, `size` requests at once."""
    found: list[Generated] = []
    for start in range(0, len(requests), size):
        found += beam_search(fusion, requests[start : start + size], decoding, eos_id, on_progress)
    return found


class _Batch:
    """Rows that are decoded together, a token at a time; the next one takes the slot of a row that ends."""

    def __init__(
        self, fusion: Fusion, requests: Sequence[Request], count: int, decoding: Decoding, eos_id: int, seed: int
    ) -> None:
        self.fusion, self.requests, self.decoding, self.eos_id = fusion, requests, decoding, eos_id
        self.device = fusion.forward.device
        self.limits = [decoding.limit(len(request.prompt_ids)) for request in requests]
        if decoding.temperature > 0:
            self.noise = self._uniforms(seed)
        self.tokens: list[list[int]] = [[] for _ in requests]
        self.reasons: list[FinishReason] = ["length"] * len(requests)
        self.waiting = deque(row for row, limit in enumerate(self.limits) if limit > 0)
        self.slots: list[int | None] = [None] * min(count, len(self.waiting))  # the row in each

    def _uniforms(self, seed: int) -> Tensor:
        steps = max(1, *self.limits) if self.limits else 1
        return torch.stack([row_uniforms(seed, request.key, steps) for request in self.requests])

    def run(self, on_progress: Progress) -> list[Generated]:
        if self.waiting:
            prompts = [self.requests[row].prompt_ids for row in self.waiting]
            rows = FusedRows(self.fusion, SlotSizes.of(prompts, len(self.slots), max(self.limits)))
        while self.waiting or any(row is not None for row in self.slots):
            self._fill(rows)
            chosen = self._choose(rows.scores())
            busy = sum(row is not None for row in self.slots)
            ended = self._record(chosen.tolist())
            on_progress(len(ended), busy)
            if ended:
                rows.release(ended)
                chosen = self._shrink(rows, chosen)
            if any(row is not None for row in self.slots):
                rows.advance(chosen)
        return [Generated(ids, reason) for ids, reason in zip(self.tokens, self.reasons, strict=True)]

    def _fill(self, rows: FusedRows) -> None:
        """Let rows that wait take free slots, several at once, because their prompts are computed together."""
        free = [slot for slot, row in enumerate(self.slots) if row is None]
        if self.waiting and (len(free) == len(self.slots) or len(free) > len(self.slots) * REFILL):
            coming = [self.waiting[i] for i in range(min(len(free), len(self.waiting)))]
            count = rows.admit(free, [self.requests[row] for row in coming])
            for slot in free[:count]:
                self.slots[slot] = self.waiting.popleft()

    def _choose(self, scores: Tensor) -> Tensor:
        uniforms = torch.zeros(len(self.slots), device=self.device)
        if self.decoding.temperature > 0:
            steps = [(0, 0) if row is None else (row, len(self.tokens[row])) for row in self.slots]
            uniforms = self.noise[tuple(zip(*steps, strict=True))].to(self.device)
        return next_tokens(scores, uniforms, self.decoding.temperature, self.decoding.top_p)

    def _record(self, chosen: Sequence[int]) -> list[int]:
        """Append each row's token; return the slots of the rows that ended, which are free now."""
        ended = []
        for slot, row in enumerate(self.slots):
            if row is None:
                continue
            if chosen[slot] == self.eos_id:
                self.reasons[row] = "eos"
            else:
                self.tokens[row].append(chosen[slot])
            if chosen[slot] == self.eos_id or len(self.tokens[row]) == self.limits[row]:
                self.slots[slot] = None
                ended.append(slot)
        return ended

    def _shrink(self, rows: FusedRows, chosen: Tensor) -> Tensor:
        """Drop free slots that no row will take, once they are many; return the tokens of those that stay."""
        busy = [slot for slot, row in enumerate(self.slots) if row is not None]
        if self.waiting or not busy or len(busy) > len(self.slots) * SHRINK[self.device.type == "cuda"]:
            return chosen
        rows.select(busy)
        self.slots = [self.slots[slot] for slot in busy]
        return chosen[torch.tensor(busy, device=self.device)]
