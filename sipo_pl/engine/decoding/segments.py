"""The KV cache, in levels of segments: what several rows have in common is computed, kept and read once.

A level holds segments of tokens, and each continues a segment of the level above: a header, the prompts behind it, the
responses behind each prompt. A row of a batch is the path from the top to its segment in the last level.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class CacheLevel:
    """One level of the KV cache: segments of tokens, in all layers of all models and all their adapter groups.

    Args:
        capacity: tokens that a segment may hold.
        parents: (S,), int64, the segment of the level above that each segment continues; zeros at the top.
        offsets: (S,), int64, tokens before each segment, in the levels above.
        lengths: (S,), int64, tokens that each segment holds.
        kept: whether keys and values are kept for later forwards.
        keys: one tensor for each layer, (K, S, key heads, capacity, head size), with the K groups of the layer's model;
            the layers of the first model come first.
        values: one tensor for each layer, in the same order and shape as the keys.
    """

    capacity: int
    parents: Tensor
    offsets: Tensor
    lengths: Tensor
    kept: bool = True
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    @classmethod
    def empty(cls, capacity: int, parents: Tensor, offsets: Tensor) -> "CacheLevel":
        """Return a level of segments without tokens."""
        return cls(capacity, parents, offsets, torch.zeros_like(offsets))

    @property
    def segments(self) -> int:
        return len(self.parents)

    def layer(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return a layer's keys and values, made at the first call for tokens like `key`, (K * S, heads, n, size)."""
        if index == len(self.keys):
            for kept, like in ((self.keys, key), (self.values, value)):
                rows, heads, _, size = like.shape
                kept.append(like.new_zeros(rows // self.segments, self.segments, heads, self.capacity, size))
        return self.keys[index], self.values[index]

    def put(self, segments: Tensor, other: "CacheLevel") -> None:
        """Copy all segments of `other`, which continues the same level above, to `segments` of this one."""
        for name in ("parents", "offsets", "lengths"):
            getattr(self, name)[segments] = getattr(other, name)
        if not self.keys:
            for kept, theirs in ((self.keys, other.keys), (self.values, other.values)):
                for t in theirs:
                    kept.append(t.new_zeros(len(t), self.segments, t.shape[2], self.capacity, t.shape[4]))
        for mine, new in zip([*self.keys, *self.values], [*other.keys, *other.values], strict=True):
            mine[:, segments.to(mine.device), :, : other.capacity] = new

    def grow(self, segments: int, capacity: int) -> None:
        """Add so many empty segments, and room for `capacity` tokens in each segment where there is less."""
        self.parents, self.offsets, self.lengths = (
            F.pad(kept, (0, segments)) for kept in (self.parents, self.offsets, self.lengths)
        )
        tokens = max(0, capacity - self.capacity)
        self.capacity += tokens
        room = (0, 0, 0, tokens, 0, 0, 0, segments)
        self.keys = [F.pad(kept, room) for kept in self.keys]
        self.values = [F.pad(kept, room) for kept in self.values]

    def select(self, segments: Tensor) -> None:
        """Keep `segments`, in their order; one may be kept several times."""
        self.parents, self.offsets, self.lengths = (
            kept[segments] for kept in (self.parents, self.offsets, self.lengths)
        )
        self.keys = [kept[:, segments.to(kept.device)] for kept in self.keys]
        self.values = [kept[:, segments.to(kept.device)] for kept in self.values]

    def on(self, device: torch.device) -> "CacheLevel":
        """Return the level as a layer on another device sees it; keys and values are the same."""
        parents, offsets, lengths = (one.to(device) for one in (self.parents, self.offsets, self.lengths))
        return CacheLevel(self.capacity, parents, offsets, lengths, self.kept, self.keys, self.values)


class LevelRead(NamedTuple):
    """How the rows of a forward read one level, where each row has one new token.

    Args:
        level: the level
        members: (S, most), int64, the rows behind each segment, padded with row 0
        where: (R,), int64, index of each row in the flattened members
        longest: keys of the longest segment, new tokens included
        places: (R, longest), int64, positions of the keys
        hidden: (R, longest), bool, keys that the row's segment does not hold
        own: whether each segment belongs to one row, in the order of the rows
    """

    level: CacheLevel
    members: Tensor
    where: Tensor
    longest: int
    places: Tensor
    hidden: Tensor
    own: bool


class SegmentPath:
    """The levels that a forward reads, top first; it adds tokens to the last one.

    Args:
        above: levels that are complete.
        last: level whose segments are the rows of the forward.
        members: of every level, (S, most), the rows behind each segment, -1 where there are fewer; computed where not
            given.
        first_layer: index, among the layers of a level, of the first layer of the model that runs.
    """

    def __init__(
        self,
        above: Sequence[CacheLevel],
        last: CacheLevel,
        members: Sequence[Tensor] | None = None,
        first_layer: int = 0,
    ) -> None:
        self.above, self.last, self.levels = tuple(above), last, (*above, last)
        self._members, self.first_layer = members, first_layer
        self._elsewhere: dict[torch.device, SegmentPath] = {}

    def on(self, device: torch.device) -> "SegmentPath":
        """Return the path with its tensors on a device; this path itself where they are there."""
        if self.last.lengths.device == device:
            return self
        if device not in self._elsewhere:
            members = None if self._members is None else [one.to(device) for one in self._members]
            levels = [level.on(device) for level in self.levels]
            self._elsewhere[device] = SegmentPath(levels[:-1], levels[-1], members, self.first_layer)
        return self._elsewhere[device]

    @cached_property
    def owners(self) -> list[Tensor]:
        """For each level above, the segment that each row continues, (R,), int64."""
        owners: list[Tensor] = []
        row = self.last.parents
        for level in reversed(self.above):
            owners.insert(0, row)
            row = level.parents[row]
        return owners

    @cached_property
    def members(self) -> list[Tensor]:
        """For each level, the rows behind each segment, (S, most), int64, -1 where there are fewer."""
        if self._members is not None:
            return list(self._members)
        each = torch.arange(self.last.segments, device=self.last.parents.device)
        found = [rows_of(owner, level.segments) for level, owner in zip(self.above, self.owners, strict=True)]
        return [*found, each[:, None]]

    @cached_property
    def asks(self) -> Tensor:
        """Position of each row's next token, (R,), int64."""
        return self.last.offsets + self.last.lengths

    @cached_property
    def reads(self) -> list[LevelRead]:
        """How each level is read where each row has one new token, top first."""
        each = torch.arange(self.last.segments, device=self.last.parents.device)
        owners = [*self.owners, each]
        return [self._read(*parts) for parts in zip(self.levels, owners, self.members, strict=True)]

    def _read(self, level: CacheLevel, owner: Tensor, members: Tensor) -> LevelRead:
        new = int(level is self.last)
        longest = min(level.capacity, int(level.lengths.max()) + new)
        slots = torch.arange(longest, device=owner.device)
        places = level.offsets[owner][:, None] + slots
        flat = members.flatten()
        where = torch.zeros_like(owner)
        where[flat[flat >= 0]] = torch.arange(len(flat), device=owner.device)[flat >= 0]
        hidden = slots >= level.lengths[owner][:, None] + new
        return LevelRead(level, members.clamp(min=0), where, longest, places, hidden, own=bool(new))


def rows_of(owner: Tensor, segments: int) -> Tensor:
    """Return the rows of each segment, (S, most), -1 where there are fewer."""
    counts = torch.bincount(owner, minlength=segments)
    order = torch.argsort(owner, stable=True)
    starts = torch.cumsum(counts, 0) - counts
    rank = torch.arange(len(owner), device=owner.device) - starts[owner[order]]
    members = torch.full((segments, max(1, int(counts.max()))), -1, device=owner.device)
    members[owner[order], rank] = order
    return members
