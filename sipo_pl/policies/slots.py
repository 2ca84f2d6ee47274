"""Rows in decoding: each in a slot of a batch of fixed size, freed when the row ends and taken by the next.

Prompts are computed once for all the rows behind them, and what all prompts begin with once for all prompts.
"""

import itertools
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from sipo_pl.policies.grouped import GroupedForward, TokenIds
from sipo_pl.policies.segments import Level

READ_TOKENS = {False: 512, True: 8192}  # prompt tokens of one forward, over all groups: keep a CPU, or a GPU, busy
IDLE = -1


class Slots:
    """Slots for rows under the groups of a forward.

    Args:
        forward: the K groups.
        rows: R, the number of slots.
        prompts: the prompts to come, one for each row to come, in order, those of a prompt together.
        capacity: tokens that a response may grow to.
        graphs: on a GPU, take steps by a CUDA graph; not worth it where `select` comes with every step.
    """

    def __init__(
        self, forward: GroupedForward, rows: int, prompts: Sequence[TokenIds], capacity: int, graphs: bool = True
    ) -> None:
        self.forward, self.rows, self.device = forward, rows, forward.device
        self.graphs = graphs and self.device.type == "cuda"
        counts = Counter(prompts)
        most = min(rows, max(counts.values()))
        self.header = common_header(list(counts))
        self.above: list[Level] = []
        if self.header:
            self.above.append(forward.read([self.header], [], [0])[1])
        places = prompt_places(prompts, rows)
        self.prompts = forward.below(self.above, [0] * places, max(map(len, counts)) - len(self.header))
        self.responses = forward.below([*self.above, self.prompts], [0] * rows, capacity)
        self.held: list[TokenIds | None] = [None] * places
        self.owner = [IDLE] * rows  # place of each row's prompt
        self.members = torch.full((places, most), IDLE, device=self.device)
        self.alive = torch.zeros(rows, dtype=torch.long, device=self.device)
        self.prompt_ends = self._states(places)
        self.hidden = self._states(rows)
        self.graph: StepGraph | None = None

    def _states(self, count: int) -> Tensor:
        forward = self.forward
        return torch.zeros(forward.groups, count, forward.hidden_size, dtype=forward.dtype, device=self.device)

    def admit(self, slots: Sequence[int], prompts: Sequence[TokenIds]) -> int:
        """Put rows into free slots, in order, as many as have room for their prompts; return how many."""
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
    """One step of all slots as a CUDA graph: a thousand launches become one.

    Args:
        slots: the slots; their tensors are read and written where they lie.
        tokens: (R,), of the shape that every step takes.
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


def prompt_places(prompts: Sequence[TokenIds], rows: int) -> int:
    """Return how many distinct prompts are held for `rows` slots, those of a prompt in succession.

    Rows of a prompt end at different times: twice as many prompts are at work as would fill the slots.
    """
    starts = [0, *(int(a != b) for a, b in itertools.pairwise(prompts))]
    seen = list(itertools.accumulate(starts))  # number of each row's prompt
    most = max(seen[min(i + rows, len(seen)) - 1] - seen[i] + 1 for i in range(len(seen)))
    return min(seen[-1] + 1, 2 * most)


def common_header(prompts: Sequence[TokenIds], least: int = 32) -> TokenIds:
    """Return what all prompts begin with, at least one token shorter than each; nothing if it is short or alone."""
    if len(prompts) < 2:
        return ()
    first, last = min(prompts), max(prompts)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    length = min(length, min(map(len, prompts)) - 1)
    return first[:length] if length >= least else ()
