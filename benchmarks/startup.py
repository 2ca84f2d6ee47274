"""Seconds until a command does something, beside a plain import of the libraries that it needs.

python -m benchmarks.startup
"""

import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks import options
from benchmarks.measuring import Run, interleaved

LIBRARIES = "import lightning.pytorch, transformers; transformers.LlamaForCausalLM"
COMMANDS = {
    "import lightning, transformers": ["-c", LIBRARIES],
    "import sipo_pl": ["-c", "import sipo_pl"],
    "sipo_pl --help": ["-m", "sipo_pl", "--help"],
    "sipo_pl fit --help": ["-m", "sipo_pl", "fit", "--help"],
}
STAGE = ["predict", "--config", "quickstart/sample.yaml", "--print_config"]  # a stage without its work
FIRST, NEXT, AFRESH = "first stage of a run", "next stage of a run", "the same stage as a command"
COLUMNS = ("what", "seconds", "of plain import")
_STAGES = """
import json, sys, time
from sipo_pl.run.stage_process import StageProcess
seconds = []
for _ in range(2):
    start = time.perf_counter()
    process = StageProcess(json.loads(sys.argv[1]))
    while process.code is None:
        time.sleep(0.01)
    assert process.code == 0
    seconds.append(time.perf_counter() - start)
open(sys.argv[2], "w").write(json.dumps(seconds))
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 where every limit that is given is kept."""
    parser = options.plain_parser(__doc__)
    options.add_limits(parser, import_ratio="of plain import")
    args = parser.parse_args(argv)
    runs: dict[str, Run] = {name: partial(_python, words) for name, words in COMMANDS.items()}
    runs[AFRESH] = partial(_python, ["-m", "sipo_pl", *STAGE])
    stages: list[list[float]] = []
    runs["run"] = lambda: stages.append(_stage_starts())
    seconds = interleaved(runs, torch.device("cpu"), args.repeats)
    del seconds["run"]
    middle = len(stages) // 2
    seconds |= {
        name: sorted(times)[middle] for name, times in zip((FIRST, NEXT), zip(*stages, strict=True), strict=True)
    }
    plain = next(iter(seconds.values()))
    rows = [{"what": name, "seconds": taken, "of plain import": taken / plain} for name, taken in seconds.items()]
    return options.finish(args, f"start-up, {platform.machine()}", COLUMNS, rows)


def _python(words: Sequence[str]) -> None:
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _stage_starts() -> list[float]:
    """Return the seconds of the first and the next start of a stage, forked as `run` does it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "seconds.json"
        _python(["-c", _STAGES, json.dumps(STAGE), str(file)])
        found: list[float] = json.loads(file.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    raise SystemExit(main())
