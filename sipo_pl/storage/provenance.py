"""What a stage folder is made of, by which it is opened, gone on with, or found complete."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sipo_pl.storage.manifest import Manifest, follow_stage, is_made_by, open_stage


@dataclass(frozen=True)
class Provenance:
    """What decides a stage's results.

    Args:
        folder: the stage's folder
        stage: its name
        keys: the settings that change results
        inputs: name of an input to its content hash
        seed: of the run
    """

    folder: Path
    stage: str
    keys: dict[str, Any]
    inputs: dict[str, str]
    seed: int

    @property
    def is_complete(self) -> bool:
        """Return whether the folder holds the complete results of just this; its files are not read."""
        found = Manifest.read(self.folder)
        return found is not None and found.complete and is_made_by(found, self.stage, self.keys, self.inputs)

    def open(self, *, overwrite: bool = False) -> Manifest:
        """Open the folder, see `open_stage`."""
        return open_stage(self.folder, self.stage, self.keys, self.inputs, seed=self.seed, overwrite=overwrite)

    def follow(self, *, overwrite: bool = False) -> Manifest:
        """Return what `open` makes of the folder on another device, see `follow_stage`."""
        return follow_stage(self.folder, self.stage, self.keys, self.inputs, seed=self.seed, overwrite=overwrite)
