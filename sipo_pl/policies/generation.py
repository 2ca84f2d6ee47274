"""MOD decoding: all policies of a batch in one forward, their next-token distributions fused (arXiv 2406.18853).

A batch holds K policies x R rows, group k under policy k. Each prompt is prefilled once for all its rows, because its
cache depends neither on the weights nor on the sample.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from sipo_pl.errors import UserError
from sipo_pl.fusion import fuse_reverse_kl, next_tokens
from sipo_pl.policies.grouped import GroupedForward
from sipo_pl.policies.logprobs import logits_of
from sipo_pl.policies.lora import LoRAStack
from sipo_pl.seeds import seed_of


@dataclass(frozen=True)
class Decoding:
    """How responses are decoded.

    Args:
        temperature: divides the fused scores; zero is greedy
        top_p: share of probability that the likeliest tokens must hold to be drawn from; one is all
        max_length: longest prompt + response in tokens
        max_new_tokens: longest response in tokens; whatever max_length leaves where not given
        batch_rows: rows decoded at once
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_length: int = 512
    max_new_tokens: int | None = None
    batch_rows: int = 64

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"decoding.temperature: {self.temperature:g} is not in [0, inf); zero is greedy")
        if not 0 < self.top_p <= 1:
            raise UserError(f"decoding.top_p: {self.top_p:g} is not in (0, 1]")
        counts = {name: getattr(self, name) for name in ("max_length", "max_new_tokens", "batch_rows")}
        if wrong := [name for name, count in counts.items() if count is not None and count < 1]:
            raise UserError(f"decoding.{wrong[0]}: {counts[wrong[0]]} is less than one")


class Request(NamedTuple):
    """One response to be decoded.

    Args:
        key: identifies the row; seeds its noise
        prompt_ids: tokens of the rendered prompt
        weights: one weight per policy
    """

    key: str
    prompt_ids: tuple[int, ...]
    weights: tuple[float, ...]


class Generated(NamedTuple):
    """A decoded response.

    Args:
        token_ids: without EOS
        finish_reason: "eos", or "length" where it was cut
    """

    token_ids: list[int]
    finish_reason: Literal["eos", "length"]


@torch.inference_mode()
def generate(
    stack: LoRAStack,
    requests: Sequence[Request],
    decoding: Decoding,
    eos_id: int,
    seed: int,
    on_progress: Callable[[int, int], None] = lambda rows, tokens: None,
) -> list[Generated]:
    """Decode every request, in batches of `decoding.batch_rows`.

    Rows whose weights are positive for the same policies run together, and no other policy is computed for them.

    Args:
        stack: the policies, frozen, over their base model.
        requests: what to decode; the same prompt may appear with several weights and keys.
        decoding: settings.
        eos_id: token that ends a response.
        seed: with a request's key, seeds the row's noise.
        on_progress: told, at each step, the rows that ended and the tokens made.

    Returns:
        One response per request, in order.
    """
    by_support: dict[tuple[int, ...], list[int]] = {}
    for index, request in enumerate(requests):
        support = tuple(k for k, weight in enumerate(request.weights) if weight > 0)
        by_support.setdefault(support, []).append(index)
    results: dict[int, Generated] = {}
    for support, members in by_support.items():
        # rows of a prompt stand together, so that they share its prefill
        members.sort(key=lambda i: (-len(requests[i].prompt_ids), requests[i].prompt_ids))
        with stack.active(support):
            for start in range(0, len(members), decoding.batch_rows):
                chunk = members[start : start + decoding.batch_rows]
                reduced = [requests[i]._replace(weights=tuple(requests[i].weights[k] for k in support)) for i in chunk]
                batch = _Batch(stack.model, len(support), reduced, decoding, eos_id, seed)
                results.update(zip(chunk, batch.run(on_progress), strict=True))
    return [results[index] for index in range(len(requests))]


class _Batch:
    """Rows that are decoded together; a row leaves as soon as it ends."""

    def __init__(
        self,
        model: PreTrainedModel,
        policies: int,
        requests: Sequence[Request],
        decoding: Decoding,
        eos_id: int,
        seed: int,
    ) -> None:
        self.model, self.forward, self.requests = model, GroupedForward(model, policies), requests
        self.decoding, self.eos_id, self.device = decoding, eos_id, model.device
        longest = decoding.max_length if decoding.max_new_tokens is None else decoding.max_new_tokens
        self.limits = [max(0, min(longest, decoding.max_length - len(r.prompt_ids))) for r in requests]
        self.noise = self._uniforms(seed) if decoding.temperature > 0 else torch.zeros(len(requests), 1)
        self.tokens: list[list[int]] = [[] for _ in requests]
        self.reasons: list[Literal["eos", "length"]] = ["length"] * len(requests)

    def _uniforms(self, seed: int) -> Tensor:
        steps = max(1, *self.limits) if self.limits else 1
        generator = torch.Generator()
        rows = []
        for request in self.requests:
            rows.append(torch.rand(steps, generator=generator.manual_seed(seed_of(seed, request.key))))
        return torch.stack(rows)

    def run(self, on_progress: Callable[[int, int], None]) -> list[Generated]:
        alive = [row for row, limit in enumerate(self.limits) if limit > 0]
        if alive:
            hidden, cache, mask = self.forward.prefill([self.requests[row].prompt_ids for row in alive])
            step = 0
            while True:
                chosen = self._choose(hidden, alive, step)
                keep = self._record(alive, chosen)
                on_progress(len(alive) - len(keep), len(alive))
                if not keep:
                    break
                if len(keep) < len(alive):
                    alive, mask, chosen = self._compact(alive, keep, cache, mask, chosen)
                step += 1
                hidden, mask = self._decode(chosen, cache, mask)
        return [Generated(ids, reason) for ids, reason in zip(self.tokens, self.reasons, strict=True)]

    def _decode(self, chosen: Tensor, cache: DynamicCache, mask: Tensor) -> tuple[Tensor, Tensor]:
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        hidden = self.forward.forward(chosen[:, None], mask, mask.sum(dim=1, keepdim=True) - 1, cache)
        return hidden[:, :, -1], mask

    def _choose(self, hidden: Tensor, alive: list[int], step: int) -> Tensor:
        logps = torch.log_softmax(logits_of(self.model, hidden), dim=-1)
        weights = torch.tensor([self.requests[row].weights for row in alive], device=self.device)
        uniforms = self.noise[alive, min(step, self.noise.shape[1] - 1)].to(self.device)
        scores = fuse_reverse_kl(logps, weights)
        return next_tokens(scores, uniforms, self.decoding.temperature, self.decoding.top_p)

    def _record(self, alive: list[int], chosen: Tensor) -> list[int]:
        """Append each row's token; return the positions within `alive` of the rows that go on."""
        keep = []
        for position, (row, token) in enumerate(zip(alive, chosen.tolist(), strict=True)):
            if token == self.eos_id:
                self.reasons[row] = "eos"
                continue
            self.tokens[row].append(token)
            if len(self.tokens[row]) < self.limits[row]:
                keep.append(position)
        return keep

    def _compact(
        self, alive: list[int], keep: list[int], cache: DynamicCache, mask: Tensor, chosen: Tensor
    ) -> tuple[list[int], Tensor, Tensor]:
        kept = torch.tensor(keep, device=self.device)
        self.forward.select(cache, kept, len(alive))
        return [alive[position] for position in keep], mask[kept], chosen[kept]
