"""DataModule of prediction stages: units of rows, planned from the data before any device sees them."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, Protocol

from lightning.pytorch import LightningDataModule

from sipo_pl.data.units import unit_files, unit_path
from sipo_pl.interop.numbers import PositiveInt
from sipo_pl.messages.errors import UserError
from sipo_pl.recipe.recipe import Recipe
from sipo_pl.storage.json_lines import read_jsonl
from sipo_pl.storage.stopping import Stopping

PROMPTS = "prompts"


@dataclass(frozen=True)
class Unit:
    """Rows that are predicted together and written as one file.

    Args:
        index: number of the unit
        folder: folder of the stage that writes it
        rows: "prompts" or an earlier stage, to its rows
        prepared: what the module made of them, see `UnitModule.prepare`
    """

    index: int
    folder: Path
    rows: dict[str, list[dict[str, Any]]]
    prepared: Any = None


class UnitModule(Protocol):
    """What a prediction module tells of its inputs."""

    prompts: Path | None  # file of prompts to be cut into units,
    max_rows: int | None  # of which the first rows are taken, or
    sources: Sequence[str]  # earlier stages whose units are read, the same index of each

    def prepare(self, unit: Unit) -> Any:
        """Return what the CPU makes of a unit before its step, in a thread beside the step of the unit before it."""


class UnitData(LightningDataModule):
    """Units of a prediction stage; a stage that follows another keeps its units.

    Args:
        recipe: what the stages share
        unit_prompts: prompts of a unit, of which a crash costs at most one
    """

    def __init__(self, recipe: Recipe, unit_prompts: PositiveInt = 16) -> None:
        super().__init__()
        self.recipe, self.unit_prompts = recipe, unit_prompts
        self.stopping = Stopping(recipe.layout.run_dir)
        self.allow_zero_length_dataloader_with_multiple_devices = True  # where there are fewer units than devices
        self.folder = Path()
        self._module: UnitModule
        self._chunks: list[list[dict[str, Any]]] = []

    def plan(self, folder: Path, module: UnitModule) -> int:
        """Fix the stage's folder and units, before any device sees them; return their number."""
        self.folder, self._module = folder, module
        if module.prompts is None:
            return len(unit_files(self.recipe.layout.stage(module.sources[0])))
        rows = read_jsonl(module.prompts, ["prompt_id", "prompt"])[: module.max_rows]
        unique = list(
            {row["prompt_id"]: {"prompt_id": row["prompt_id"], "prompt": row["prompt"]} for row in rows}.values()
        )
        if not unique:
            raise UserError(f"{module.prompts}: no prompts, so that there is nothing to sample")
        self._chunks = [unique[start : start + self.unit_prompts] for start in range(0, len(unique), self.unit_prompts)]
        return len(self._chunks)

    def unit(self, index: int) -> Unit:
        """Read unit `index`."""
        if self._module.prompts is not None:
            return Unit(index, self.folder, {PROMPTS: self._chunks[index]})
        folders = {name: self.recipe.layout.stage(name) for name in self._module.sources}
        return Unit(index, self.folder, {name: read_jsonl(unit_path(path, index)) for name, path in folders.items()})

    def prepared(self, index: int) -> Unit:
        """Read unit `index`, and let the module prepare it."""
        unit = self.unit(index)
        return replace(unit, prepared=self._module.prepare(unit))

    def predict_dataloader(self) -> "UnitLoader":
        """Return this device's share of the units that are not yet written, long ones first."""
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        total = self.plan(self.folder, self._module)
        missing = [index for index in range(total) if not unit_path(self.folder, index).exists()]
        if trainer and world > 1:
            # the first device knows: another one may look when the others have begun to write
            missing = trainer.strategy.broadcast(missing)
        return UnitLoader(self, shares([self._length(index) for index in missing], missing, world)[rank])

    def _length(self, index: int) -> int:
        """Return how long unit `index` is about, in characters or bytes."""
        if self._module.prompts is not None:
            return sum(len(str(row["prompt"])) for row in self._chunks[index])
        folders = (self.recipe.layout.stage(name) for name in self._module.sources)
        return sum(unit_path(folder, index).stat().st_size for folder in folders)


def shares(lengths: Sequence[int], units: Sequence[int], devices: int) -> list[list[int]]:
    """Share units out to devices, long ones first, each to the device that has least.

    Args:
        lengths: of each unit.
        units: their numbers.
        devices: how many there are; one alone takes the units in their order.

    Returns:
        The units of each device.
    """
    if devices == 1:
        return [list(units)]
    found: list[list[int]] = [[] for _ in range(devices)]
    load = [(0, device) for device in range(devices)]
    for length, unit in sorted(zip(lengths, units, strict=True), key=lambda one: (-one[0], one[1])):
        least, device = heappop(load)
        found[device].append(unit)
        heappush(load, (least + length, device))
    return found


class UnitLoader:
    """Reads units, each beside the step of the one before, so that no stage holds all rows; ends when asked to."""

    def __init__(self, data: UnitData, indices: Sequence[int]) -> None:
        self.data, self.indices = data, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Unit]:
        with ThreadPoolExecutor(1, "next unit") as thread:
            ahead = [thread.submit(self.data.prepared, index) for index in self.indices[:1]]
            for place in range(1, len(self) + 1):
                if self.data.stopping.reason:  # the other devices finish their units and meet this one at the end
                    return
                unit = ahead.pop().result()
                ahead += [thread.submit(self.data.prepared, index) for index in self.indices[place : place + 1]]
                yield unit
