"""How long each stage of a run took, over all its starts: `timings.json`. No result rests on it."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from sipo_pl.messages.errors import UserError
from sipo_pl.storage.json_lines import read_json, write_json

log = logging.getLogger("sipo_pl")

TIMINGS = "timings.json"


def read_timings(run_dir: Path) -> dict[str, float]:
    """Return the seconds of each stage of a run; none where the file is missing, or damaged, which is said."""
    path = run_dir / TIMINGS
    if not path.exists():
        return {}
    try:
        value = read_json(path)
        if isinstance(value, dict) and all(isinstance(one, int | float) for one in value.values()):
            return value
        problem = f"{path}: expected seconds by stage"
    except UserError as error:
        problem = str(error)
    log.warning("%s; the times are counted anew", problem)
    return {}


@dataclass
class Timings:
    """Seconds that each stage took, over all its starts.

    Args:
        run_dir: the run folder
    """

    run_dir: Path
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.seconds = read_timings(self.run_dir)

    def add(self, stage: str, seconds: float) -> None:
        """Add to a stage's seconds and write the file."""
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + seconds, 2)
        write_json(self.run_dir / TIMINGS, self.seconds)
