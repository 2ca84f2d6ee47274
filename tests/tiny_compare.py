"""The whole comparison on a tiny model, of two and of three objectives, and one that is killed on its way.

    python tests/tiny_compare.py FOLDER

Fails where a run fails, a method is missing in a table, or the killed run ends with another table. Minutes are left
out: they are no part of a result.
"""

import csv
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tiny import CHAT_TEMPLATE
from tiny_run import environment, make_talkative_model

from sipo_pl.registry import METHODS

OVERLAYS = {"two": ("compare_tiny",), "three": ("compare_three", "compare_tiny")}
KILLS = ("align-detail/manifest.json", "raco-0.5,0.5/manifest.json", "sample/manifest.json", "answer/unit-00000.jsonl")
LIMIT = 480.0  # seconds of everything


def command(folder: Path, name: str, run: str, *settings: str) -> list[str]:
    """Return the command of a comparison."""
    overlays = [word for overlay in OVERLAYS[name] for word in ("--config", f"overlays/{overlay}.yaml")]
    places = (f"recipe.base_model={folder / 'model'}", f"recipe.run_dir={folder / run}", *settings)
    words = ["--config", "compare/recipe.yaml", *overlays, *(word for place in places for word in ("--set", place))]
    return [sys.executable, "-m", "sipo_pl", "run", *words]


def table(folder: Path) -> list[dict[str, Any]]:
    """Return a comparison's table without the minutes."""
    with (folder / "compare/table.csv").open(encoding="utf-8", newline="") as file:
        return [{key: value for key, value in row.items() if key != "minutes"} for row in csv.DictReader(file)]


def run(words: list[str]) -> None:
    """Run a comparison to its end."""
    subprocess.run(words, env=environment(), check=True)


def killed(words: list[str], sign: Path) -> None:
    """Run until a file is there, then kill the run and its stage as a machine that dies does."""
    process = subprocess.Popen(words, env=environment(), start_new_session=True, stderr=subprocess.DEVNULL)
    while not sign.exists():
        assert process.poll() is None, f"ended with {process.returncode} before {sign}"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    print(f"killed at {sign}", flush=True)


def run_whole(folder: Path) -> None:
    """Run the comparisons of two and of three objectives."""
    for name in OVERLAYS:
        run(command(folder, name, name))
        missing = set(METHODS) - {row["method"] for row in table(folder / name)}
        assert not missing, f"no row of {missing}"


def main(folder: Path) -> None:
    """Run everything, and compare."""
    start = time.monotonic()
    make_talkative_model(folder / "model", chat_template=CHAT_TEMPLATE)
    with ThreadPoolExecutor() as pool:  # each has one thread, and so a core of its own
        whole = pool.submit(run_whole, folder)
        words = command(folder, "two", "killed")
        for sign in KILLS:
            killed(words, folder / "killed" / sign)
        run(words)
        whole.result()
    assert table(folder / "killed") == table(folder / "two"), "the killed run ends with another table"
    seconds = time.monotonic() - start
    print(f"{len(METHODS)} methods, two and three objectives, {len(KILLS)} kills: {seconds:.0f} s", flush=True)
    assert seconds < LIMIT, f"took more than {LIMIT:.0f} s"


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
