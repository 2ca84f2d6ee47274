"""Packed rows padded to one of few sizes, so that a CUDA graph of one forward serves many.

No row is changed. What is added stands behind the rows, in spans and a distinct row of its own that no loss reads, so
that its gradient is zero.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from sipo_pl.engine.logprobs.packed_sequences import Layout, Packed, Span

BLOCK = 128  # tokens that matrix products and attention take at once
FEWEST = 8  # spans


class Size(NamedTuple):
    """Sizes of padded rows; forwards of equal sizes launch equal kernels.

    Args:
        tokens: of the sequence
        targets: response tokens
        spans: and distinct rows
        copies: tokens above, counted for each span
        longest: bound of the keys of a span
    """

    tokens: int
    targets: int
    spans: int
    copies: int
    longest: int


def padded(packed: Packed) -> Packed:
    """Return packed rows, padded.

    Tokens grow by one at least, and by an eighth at most where there are a thousand or more. What costs little is
    rounded up more coarsely, so that it makes few sizes.

    Args:
        packed: rows on a CPU.

    Returns:
        The same with a longer sequence, and more targets, spans and distinct rows; `places` are as they were.
    """
    length, spans = packed.layout.length, packed.layout.flat
    tokens = _geometric(length + 1)
    count = max(FEWEST, _power(1 + max(len(spans) + len(spans) // 8, packed.distinct)))
    copies = sum(span.depth for span in spans)
    more_copies = _multiple(copies, tokens // 2) - copies
    more_targets = _multiple(len(packed.targets), tokens // 4) - len(packed.targets)
    pads = tokens - length
    idle = _idle_spans(length, tokens, more_copies, count - len(spans))
    return packed._replace(
        input_ids=F.pad(packed.input_ids, (0, pads)),
        positions=F.pad(packed.positions, (0, pads)),
        sources=torch.cat([packed.sources, length + torch.arange(more_targets) % pads]),
        targets=F.pad(packed.targets, (0, more_targets)),
        owners=F.pad(packed.owners, (0, more_targets), value=count - 1),
        distinct=count,
        layout=Layout(tokens, ((*spans, *idle),)),
    )


def size_of(rows: Packed) -> Size:
    """Return the sizes of padded rows."""
    spans = rows.layout.flat
    longest = max(span.depth + span.length for span in spans)
    copies = sum(span.depth for span in spans)
    return Size(rows.layout.length, len(rows.targets), len(spans), copies, max(BLOCK, _power(longest)))


def _idle_spans(start: int, stop: int, copies: int, count: int) -> list[Span]:
    """Return spans of the tokens from `start` on, which look at `copies` tokens above them, all in even parts.

    Each has a token that looks, so that attention writes a gradient for every key; what is left of them is empty.
    """
    busy = min(count, stop - start)
    places = [start + (stop - start) * index // busy for index in range(busy + 1)]
    looks = [copies * index // busy for index in range(busy + 1)]
    spans = [Span(places[k], places[k + 1], 0, looks[k + 1] - looks[k]) for k in range(busy)]
    return spans + [Span(stop, stop, 0, 0)] * (count - busy)


def _geometric(count: int) -> int:
    """Return the next of eight numbers an octave, all of which are multiples of a block."""
    return _multiple(count, max(BLOCK, _power(count + 1) // 16))


def _multiple(count: int, step: int) -> int:
    return -(-count // step) * step


def _power(count: int) -> int:
    """Return the least power of two that is not less."""
    return 1 << (count - 1).bit_length()
