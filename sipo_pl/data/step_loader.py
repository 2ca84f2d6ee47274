"""A loader that resumes in the middle of an epoch with exactly the rows that were still to come."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import torch

from sipo_pl.method.seeds import seed_of

RowT = TypeVar("RowT")
BatchT = TypeVar("BatchT", bound=Any)  # a named tuple with the field `spare`


class _MicroBatch(NamedTuple):
    """A micro-batch of the plan.

    Args:
        rows: indices of its rows
        step: indices of the rows of its optimizer step, over all devices
        spare: this device has no rows left in the step while another one has; its rows count nothing
    """

    rows: list[int]
    step: list[int]
    spare: bool


class StepLoader(ABC, Generic[RowT, BatchT]):
    """Iterates micro-batches; the order of an epoch is a function of seed and epoch alone.

    An optimizer step takes `accumulate` micro-batches of `micro_batch_size` rows, whatever the number of devices, which
    share them out; the last step of an epoch takes what is left. Every device has the same number of micro-batches in a
    step, as each of their backward passes may be common to all: one that has no rows left gets a spare one, whose rows
    count nothing.

    Args:
        rows: all rows of the split.
        micro_batch_size: rows in one forward.
        accumulate: micro-batches of an optimizer step, over all devices.
        seed: seed of the order; None keeps the order of `rows`.
        rank: index of this device.
        world_size: number of devices.
    """

    def __init__(
        self,
        rows: Sequence[RowT],
        micro_batch_size: int,
        accumulate: int = 1,
        seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.rows, self.micro_batch_size = rows, micro_batch_size
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.step_rows = micro_batch_size * accumulate
        self.micro_batches = self._micro_batches_of(self.step_rows)  # of a whole step, on each device
        self.fills_steps = False  # give the last step as many micro-batches as the others, with spare ones
        self.sampler, self.batch_sampler = self, None  # where the trainer looks for set_epoch
        self.epoch = 0
        self.start = 0  # micro-batches that the next iteration leaves out: an earlier process trained on them
        self.position = 0  # micro-batches of this epoch that were handed out

    @abstractmethod
    def collate(self, rows: Sequence[RowT], step: Sequence[RowT]) -> BatchT:
        """Build a micro-batch of `rows`; `step` are the rows of its whole optimizer step, over all devices."""

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration is of."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._plan())

    def __iter__(self) -> Iterator[BatchT]:
        # the trainer never asks for more than it was told there is: nothing after the loop would ever run
        self.position, self.start = self.start, 0
        for planned in self._plan()[self.position :]:
            self.position += 1
            yield self._batch(planned)

    def peek(self) -> BatchT:
        """Return the first micro-batch of the epoch, without handing it out."""
        return self._batch(self._plan()[0])

    def state_dict(self) -> dict[str, int]:
        """Return the position, for a checkpoint: rows of the whole steps, over all devices, whose number may change."""
        steps = self.position // self.micro_batches if self.position < len(self) else 0
        return {"rows": steps * self.step_rows}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a checkpoint's position."""
        self.start = state["rows"] // self.step_rows * self.micro_batches

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return -(-len(self.rows) // self.step_rows)

    def _micro_batches_of(self, rows: int) -> int:
        """Return the micro-batches that each device has of so many rows."""
        return math.ceil(math.ceil(rows / self.world_size) / self.micro_batch_size)

    def _batch(self, planned: _MicroBatch) -> BatchT:
        rows, step = ([self.rows[index] for index in indices] for indices in (planned.rows, planned.step))
        batch = self.collate(rows, step)
        return batch if not planned.spare else batch._replace(spare=True)

    def _plan(self) -> list[_MicroBatch]:
        """Return this device's micro-batches of the epoch."""
        order = list(range(len(self.rows)))
        if self.seed is not None:
            generator = torch.Generator().manual_seed(seed_of(self.seed, f"epoch {self.epoch}"))
            order = torch.randperm(len(order), generator=generator).tolist()
        plan = []
        for start in range(0, len(order), self.step_rows):
            step = order[start : start + self.step_rows]
            mine = step[self.rank :: self.world_size]
            count = self.micro_batches if self.fills_steps else self._micro_batches_of(len(step))
            for first in range(0, count * self.micro_batch_size, self.micro_batch_size):
                rows = mine[first : first + self.micro_batch_size]
                plan.append(_MicroBatch(rows or step[:1], step, spare=not rows))
        return plan
