"""MOD decoding: all policies of a batch in one forward, their next-token distributions fused (arXiv 2406.18853).

A batch holds K policies x R rows, group k under policy k. Each prompt is computed once for all its rows, because its
keys and values depend neither on the weights nor on the sample. A row that ends leaves its slot to the next.
"""

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from sipo_pl.engine.decoding.batch import DecodingBatch, DecodingRow, SlotRules
from sipo_pl.engine.decoding.beams import beam_search
from sipo_pl.engine.decoding.fused_rows import Fusion, log_probabilities
from sipo_pl.engine.decoding.noise import Noise
from sipo_pl.engine.decoding.options import Decoding, Generated, Request, end_ids
from sipo_pl.engine.decoding.slot_sizes import SlotSizes
from sipo_pl.engine.lora.groups import GroupedForward
from sipo_pl.engine.lora.policies import PolicySet
from sipo_pl.engine.memory_budget import rows_at_once
from sipo_pl.engine.models.text_limit import check_tokens
from sipo_pl.method.divergences import Divergence

OnProgress = Callable[[int, int], None]  # is told the rows that ended and the tokens made

RULES = SlotRules(refill=1 / 8, shrink=3 / 4, shrink_on_gpu=1 / 2, shrink_at_any_step=False, forget_prompts=False)


@torch.inference_mode()
def generate(
    policies: PolicySet,
    requests: Sequence[Request],
    decoding: Decoding,
    divergence: Divergence,
    eos_id: int | Collection[int],
    seed: int,
    on_progress: OnProgress = lambda rows, tokens: None,
    greedy_scores: Callable[[Tensor], Tensor] = log_probabilities,
) -> list[Generated]:
    """Decode every request, `decoding.batch_rows` at once, longest prompts first.

    Rows whose weights are positive for the same policies run together. No other policy is computed for them, except the
    reference where several are fused and the divergence needs it.

    Args:
        policies: the policies, frozen, over their base models.
        requests: what to decode; the same prompt may appear with several weights and keys.
        decoding: settings.
        divergence: its rule fuses the policies.
        eos_id: token that ends a response, or several of which any does.
        seed: with a request's key, seeds the row's noise.
        on_progress: is told, at each step, the rows that ended and the tokens made.
        greedy_scores: makes of logits the scores that greedy decoding sums and fuses, see `log_probabilities`.

    Returns:
        One response per request, in order.
    """
    ends, greedy = end_ids(eos_id), decoding.temperature == 0 and decoding.beams == 1
    scores_of = greedy_scores if greedy else log_probabilities
    by_support: dict[tuple[int, ...], list[int]] = {}
    for index, request in enumerate(requests):
        support = tuple(k for k, weight in enumerate(request.weights) if weight > 0)
        by_support.setdefault(support, []).append(index)
    results: dict[int, Generated] = {}
    for support, members in by_support.items():
        # rows of one prompt follow one another, so that they share its prefill
        members.sort(key=lambda i: (-len(requests[i].prompt_ids), requests[i].prompt_ids))
        groups, reference = fused_groups(policies, support, divergence)
        with policies.active(groups) as forward:
            check_requests(forward, [requests[i] for i in members], decoding)
            fusion = Fusion(forward, divergence, reference, decoding.beams > 1, scores_of)
            ordered = [requests[i]._replace(weights=weights_over(requests[i].weights, groups)) for i in members]

            def decode(count: int, fusion: Fusion = fusion, ordered: Sequence[Request] = ordered) -> list[Generated]:
                progress = UndoableProgress(on_progress)
                try:
                    if decoding.beams > 1:
                        return _search(fusion, ordered, decoding, max(1, count // decoding.beams), ends, progress)
                    return _decode(fusion, ordered, decoding, count, ends, seed, progress)
                except torch.OutOfMemoryError:
                    progress.undo()
                    raise

            count = rows_at_once(forward, ordered, decoding)
            generated = policies.memory_budget.run("decoding.batch_rows", count, decode)
            results.update(zip(members, generated, strict=True))
    return [results[index] for index in range(len(requests))]


class UndoableProgress:
    """Reports progress, and can undo its report where rows are decoded again with fewer at once.

    Args:
        on_progress: is told the rows that ended and the tokens made.
    """

    def __init__(self, on_progress: OnProgress) -> None:
        self.on_progress, self.rows = on_progress, 0

    def __call__(self, rows: int, tokens: int) -> None:
        self.rows += rows
        self.on_progress(rows, tokens)

    def undo(self) -> None:
        """Report that the rows that ended are to be decoded again."""
        self.on_progress(-self.rows, 0)


def check_requests(forward: GroupedForward, requests: Sequence[Request], decoding: Decoding) -> None:
    """Raise UserError where a prompt holds a token that a model has not, or a text may grow beyond its longest."""
    counts = [len(request.prompt_ids) for request in requests]
    check_tokens(max(max(request.prompt_ids, default=0) for request in requests), forward.vocabulary, "a prompt")
    forward.check_text(
        max(count + decoding.limit(count) for count in counts),
        "prompt and response may have more than the model takes (decoding.max_length)",
    )


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
    fusion: Fusion,
    requests: Sequence[Request],
    decoding: Decoding,
    size: int,
    ends: frozenset[int],
    on_progress: OnProgress,
) -> list[Generated]:
    """Search with beams, `size` requests at once."""
    found: list[Generated] = []
    for start in range(0, len(requests), size):
        found += beam_search(fusion, requests[start : start + size], decoding, ends, on_progress)
    return found


def _decode(
    fusion: Fusion,
    requests: Sequence[Request],
    decoding: Decoding,
    count: int,
    ends: frozenset[int],
    seed: int,
    on_progress: OnProgress,
) -> list[Generated]:
    """Decode one text of each request, `count` at once."""
    rows = [DecodingRow(request, decoding, Noise(seed, request.key)) for request in requests]
    waiting = [row for row in rows if row.limit > 0]
    if waiting:
        slots = min(count, len(waiting))
        prompts = [row.request.prompt_ids for row in waiting]
        sizes = SlotSizes.of(prompts, slots, max(row.limit for row in waiting))
        batch = DecodingBatch(fusion, ends, slots, RULES, sizes)
        for row in waiting:
            batch.add(row)
        while batch.busy:
            stepped = batch.step()
            on_progress(sum(row.finish_reason is not None for row in stepped), len(stepped))
    return [Generated(row.tokens, row.finish_reason or "length", row.end_id) for row in rows]
