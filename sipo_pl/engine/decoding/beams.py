"""Beam search over fused scores: the texts of a row that are likeliest so far are followed at once.

A text is judged by its fused cumulative log-probability, EOS included, divided by its length in tokens, the prompt's
included and EOS not, as in the search of transformers 4.34 that the released code calls. So long prompts even out
lengths, and responses to short ones tend to be longer.
"""

import math
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import torch

from sipo_pl.engine.decoding.fused_rows import FusedRows, Fusion
from sipo_pl.engine.decoding.options import Decoding, Generated, Request, end_ids
from sipo_pl.engine.decoding.slot_sizes import SlotSizes


class BeamCandidate(NamedTuple):
    """A beam of a row with one more token.

    Args:
        total: fused cumulative score
        beam: number of the beam
        token: the token
    """

    total: float
    beam: int
    token: int


class Hypothesis(NamedTuple):
    """A text that is finished.

    Args:
        score: total by length
        generated: the response
    """

    score: float
    generated: Generated


def beam_search(
    fusion: Fusion,
    requests: Sequence[Request],
    decoding: Decoding,
    eos_id: int | Collection[int],
    on_progress: Callable[[int, int], None] = lambda rows, tokens: None,
) -> list[Generated]:
    """Decode requests together, each with `decoding.beams` beams; what a request gets does not depend on the others.

    Args:
        fusion: how scores are made; cumulative.
        requests: what to decode; weights follow the groups of the fusion.
        decoding: settings.
        eos_id: token that ends a response, or several of which any does.
        on_progress: told, at each step, the requests that ended and the positions decoded.

    Returns:
        One response per request, in order.
    """
    width, ends = decoding.beams, end_ids(eos_id)
    searches = [_Search(len(one.prompt_ids), decoding.limit(len(one.prompt_ids)), width, ends) for one in requests]
    alive = [index for index, search in enumerate(searches) if search.limit > 0]
    if alive:
        beams = [requests[index] for index in alive for _ in range(width)]
        longest = max(search.limit for search in searches)
        rows = FusedRows(fusion, SlotSizes.of([one.prompt_ids for one in beams], len(beams), longest), graphs=False)
        rows.admit(range(len(beams)), beams)
    while alive:
        totals = rows.totals()
        size = totals.shape[-1]
        totals = totals.view(len(alive), width, size)
        for position, index in enumerate(alive):
            totals[position, searches[index].open :] = -math.inf
        # each beam ends in one way a token, so that a beam's worth of the others is left
        best, places = totals.flatten(1).topk(min((1 + len(ends)) * width, width * size), dim=1)
        going, parents, tokens = [], [], []
        for position, (index, values, where) in enumerate(zip(alive, best.tolist(), places.tolist(), strict=True)):
            ranked = [BeamCandidate(total, *divmod(place, size)) for total, place in zip(values, where, strict=True)]
            if chosen := searches[index].step(ranked):
                going.append(index)
                chosen += [chosen[0]] * (width - len(chosen))  # rows without a beam, passed over
                parents += [position * width + one.beam for one in chosen]
                tokens += [one.token for one in chosen]
        on_progress(len(alive) - len(going), len(alive))
        alive = going
        if alive:
            rows.select(parents)
            rows.advance(torch.tensor(tokens, device=fusion.forward.device))
    return [search.best for search in searches]


class _Search:
    """The beams of one request, and its finished texts."""

    def __init__(self, prompt_length: int, limit: int, width: int, ends: frozenset[int]) -> None:
        self.prompt_length, self.limit, self.width, self.end_ids = prompt_length, limit, width, ends
        self.beams: list[list[int]] = [[]]  # at first all beams are the prompt
        self.finished: list[Hypothesis] = []

    @property
    def open(self) -> int:
        return len(self.beams)

    @property
    def best(self) -> Generated:
        return max(self.finished, key=lambda one: one.score).generated if self.finished else Generated([], "length")

    def step(self, ranked: Sequence[BeamCandidate]) -> list[BeamCandidate]:
        """Take the candidates of a step, best first; return those that become the beams, none at the end."""
        chosen: list[BeamCandidate] = []
        length = self.prompt_length + len(self.beams[0])
        for rank, candidate in enumerate(ranked):
            if len(chosen) == self.width or candidate.total == -math.inf:
                break
            if candidate.token not in self.end_ids:
                chosen.append(candidate)
            elif rank < self.width:  # an end that is less likely than all beams is no text
                self._finish(candidate.total / length, self.beams[candidate.beam], candidate.token)
        self.beams = [[*self.beams[one.beam], one.token] for one in chosen]
        # what goes on can only become less likely; one more token is all the length it can gain now
        hopeless = len(self.finished) == self.width and self._worst >= ranked[0].total / (length + 1)
        if hopeless or not chosen:
            return []
        if len(self.beams[0]) == self.limit:
            for one, beam in zip(chosen, self.beams, strict=True):
                self._finish(one.total / (length + 1), beam, None)
            return []
        return chosen

    @property
    def _worst(self) -> float:
        return min(one.score for one in self.finished)

    def _finish(self, score: float, tokens: list[int], end_id: int | None) -> None:
        """Keep a text, and the token that ended it, among the best finished ones, as many as there are beams."""
        if len(self.finished) == self.width:
            if score <= self._worst:
                return
            self.finished.remove(min(self.finished, key=lambda one: one.score))
        self.finished.append(Hypothesis(score, Generated(tokens, "length" if end_id is None else "eos", end_id)))
