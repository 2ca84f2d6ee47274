"""Slots of a batch of fixed size: each row of the batch has one, and leaves it to another row when it ends.

Prompts are computed once for all the rows behind them, and what all prompts begin with once for all prompts.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sipo_pl.engine.decoding.segments import CacheLevel
from sipo_pl.engine.decoding.slot_sizes import SlotSizes
from sipo_pl.engine.lora.groups import GroupedForward, TokenIds

READ_TOKENS = {False: 512, True: 8192}  # prompt tokens of one forward, over all groups: keep a CPU, or a GPU, busy
IDLE = -1


class Slots:
    """Slots for rows under the groups of a forward.

    Args:
        forward: the K groups.
        sizes: what there is room for.
        graphs: on a GPU, take steps by a CUDA graph; not worth it where `select` comes with every step.
    """

    def __init__(self, forward: GroupedForward, sizes: SlotSizes, graphs: bool = True) -> None:
        self.forward, self.rows, self.device = forward, sizes.rows, forward.device
        self.graphs = graphs and self.device.type == "cuda" and not forward.is_spread
        self.header = sizes.header
        self.above: list[CacheLevel] = []
        if self.header:
            self.above.append(forward.read([self.header], [], [0])[1])
        self.prompts = forward.below(self.above, [0] * sizes.prompts, sizes.prompt_tokens)
        self.responses = forward.below([*self.above, self.prompts], [0] * sizes.rows, sizes.response_tokens)
        self.held: list[TokenIds | None] = [None] * sizes.prompts
        self.owner = [IDLE] * sizes.rows  # index of each row's prompt among the held ones
        self.members = torch.full((sizes.prompts, sizes.members), IDLE, device=self.device)
        self.alive = torch.zeros(sizes.rows, dtype=torch.long, device=self.device)
        self.prompt_ends = self._states(sizes.prompts)
        self.hidden = self._states(sizes.rows)
        self.graph: StepGraph | None = None

    def _states(self, count: int) -> Tensor:
        forward = self.forward
        return torch.zeros(forward.groups, count, forward.hidden_size, dtype=forward.dtype, device=self.device)

    def admit(self, slots: Sequence[int], prompts: Sequence[TokenIds]) -> int:
        """Put rows into free slots, in order, until the places for prompts are taken; return how many rows."""
        places: list[int] = []
        fresh: dict[int, TokenIds] = {}
        for slot, prompt in zip(slots, prompts, strict=False):
            place = self._place(prompt)
            if place is None:
                break
            if self.held[place] != prompt:
                self.held[place] = fresh[place] = prompt
            self.owner[slot] = place
            places.append(place)
        if not places:
            return 0
        self._read(fresh)
        taken = torch.tensor(slots[: len(places)], device=self.device)
        owner = torch.tensor(places, device=self.device)
        self.responses.parents[taken] = owner
        self.responses.offsets[taken] = self.prompts.offsets[owner] + self.prompts.lengths[owner]
        self.responses.lengths[taken] = 0
        self.alive[taken] = 1
        self.hidden[:, taken] = self.prompt_ends[:, owner]
        self._count_members()
        return len(places)

    def release(self, slots: Sequence[int]) -> None:
        """Free the slots of rows that ended."""
        gone = torch.tensor(slots, device=self.device)
        self.alive[gone] = 0
        self.responses.lengths[gone] = 0
        for slot in slots:
            self.owner[slot] = IDLE

    def step(self, tokens: Tensor) -> None:
        """Add a token to every row, (R,), int64."""
        if self.graphs:
            self.graph = self.graph or StepGraph(self, tokens)
            self.graph.replay(tokens)
        else:
            self.add(tokens)

    def add(self, tokens: Tensor) -> None:
        """Add a token to every row, by one forward."""
        each = torch.arange(self.rows, device=self.device)
        members = [*(each[None] for _ in self.above), self.members, each[:, None]]
        hidden = self.forward.run(tokens[:, None], [*self.above, self.prompts], self.responses, members)
        self.hidden.copy_(hidden[:, :, 0])
        self.responses.lengths.add_(self.alive)

    def select(self, slots: Sequence[int]) -> None:
        """Keep the rows of `slots`, in their order, and no other slot; a row may be kept several times."""
        kept = torch.tensor(slots, device=self.device)
        self.responses.select(kept)
        self.alive, self.hidden = self.alive[kept], self.hidden[:, kept]
        self.owner, self.rows, self.graph = [self.owner[slot] for slot in slots], len(slots), None
        self._count_members()

    def grow(self, sizes: SlotSizes) -> None:
        """Make room for `sizes` where there is less; rows and prompts stay as they are."""
        more, places = max(0, sizes.rows - self.rows), max(0, sizes.prompts - len(self.held))
        self.responses.grow(more, sizes.response_tokens)
        self.prompts.grow(places, sizes.prompt_tokens)
        self.alive = F.pad(self.alive, (0, more))
        self.hidden = F.pad(self.hidden, (0, 0, 0, more))
        self.prompt_ends = F.pad(self.prompt_ends, (0, 0, 0, places))
        self.owner += [IDLE] * more
        self.held += [None] * places
        self.rows, self.graph = self.rows + more, None
        self._count_members()

    def forget_prompts(self) -> None:
        """Drop the prompts that no row continues, because their places cost a share of every step."""
        used = sorted(set(self.owner) - {IDLE})
        kept = torch.tensor(used, dtype=torch.long, device=self.device)
        self.prompts.select(kept)
        self.held, self.prompt_ends = [self.held[place] for place in used], self.prompt_ends[:, kept]
        self.owner = [IDLE if place == IDLE else used.index(place) for place in self.owner]
        self.responses.parents = torch.tensor([max(0, place) for place in self.owner], device=self.device)
        self.members, self.graph = self.members[:0, :1], None
        self._count_members()

    def _place(self, prompt: TokenIds) -> int | None:
        if prompt in self.held:
            return self.held.index(prompt)
        used = set(self.owner)
        return next((place for place in range(len(self.held)) if place not in used), None)

    def _read(self, fresh: dict[int, TokenIds]) -> None:
        """Compute prompts into their places; the longest come first."""
        places = list(fresh)
        start = 0
        while start < len(places):
            longest = len(fresh[places[start]]) - len(self.header)
            chunk = places[
                start : start + max(1, READ_TOKENS[self.device.type == "cuda"] // (longest * self.forward.groups))
            ]
            start += len(chunk)
            texts = [fresh[place][len(self.header) :] for place in chunk]
            hidden, level = self.forward.read(texts, self.above, [0] * len(chunk))
            where = torch.tensor(chunk, device=self.device)
            self.prompts.put(where, level)
            self.prompt_ends[:, where] = hidden[:, torch.arange(len(chunk)), level.lengths - 1]

    def _count_members(self) -> None:
        most = max(self.members.shape[1], *(self.owner.count(place) for place in set(self.owner) - {IDLE}), 1)
        table: list[list[int]] = [[] for _ in self.held]
        for slot, place in enumerate(self.owner):
            if place != IDLE:
                table[place].append(slot)
        padded = torch.tensor([slots + [IDLE] * (most - len(slots)) for slots in table], device=self.device)
        if padded.shape == self.members.shape:
            self.members.copy_(padded)  # in place: a graph reads it there
        else:
            self.members, self.graph = padded, None


class StepGraph:
    """One step of all slots as a CUDA graph: one launch in place of a thousand.

    Args:
        slots: the slots, whose tensors the graph reads and writes in place.
        tokens: (R,), int64; every step has tokens of this shape.
    """

    def __init__(self, slots: Slots, tokens: Tensor) -> None:
        self.tokens = tokens.clone()
        kept = slots.responses.lengths.clone(), slots.hidden.clone()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            slots.add(self.tokens)  # compiles, and makes what is made at a first call
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            slots.add(self.tokens)
        slots.responses.lengths.copy_(kept[0])
        slots.hidden.copy_(kept[1])

    def replay(self, tokens: Tensor) -> None:
        """Take the step with `tokens`."""
        self.tokens.copy_(tokens)
        self.graph.replay()
