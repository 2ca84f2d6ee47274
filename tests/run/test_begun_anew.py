"""Stages where a library asked for the GPU as it was imported: forked processes cannot use it, so they begin anew."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from test_lifetime import lives
from tiny_run import environment, wait_until, write_recipe

WEIGHTS = "run/align-kind/adapter/adapter_model.safetensors"
# without a GPU no fork is a bad one, so torch is told to say so; a process that begins says its number
ASKED = """
import os, sys
import torch
torch.cuda._is_in_bad_fork = lambda: True
if "fit" in sys.orig_argv:
    print("anew:", os.getpid(), file=sys.stderr, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="stages are forked on Linux alone")
def test_a_stage_that_begins_anew_ends_with_its_run_and_makes_the_same(
    tmp_path: Path, talkative_model: Path, finished_run: Path
) -> None:
    recipe = write_recipe(tmp_path, talkative_model)
    for name in ("prepare", "align-short"):
        shutil.copytree(finished_run / "run" / name, tmp_path / "run" / name)
    (tmp_path / "sitecustomize.py").write_text(ASKED)
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, "-m", "sipo_pl", "run", "--config", str(recipe), "--only", "prepare", "align"]
    said = tmp_path / "said"

    def run() -> subprocess.Popen[bytes]:
        with said.open("wb") as file:
            return subprocess.Popen(words, env=environment(PYTHONPATH=paths), stdout=file, stderr=file)

    process = run()
    wait_until(process, lambda: "anew:" in said.read_text())
    (stage,) = (int(number) for number in re.findall(r"anew: (\d+)", said.read_text()))
    assert lives(stage)
    process.kill()
    process.wait()
    wait_until(run_again := run(), lambda: not lives(stage), seconds=3)
    assert run_again.wait() == 0, said.read_text()
    assert said.read_text().count("anew:") == 1
    found, expected = (load_file(folder / WEIGHTS) for folder in (tmp_path, finished_run))
    assert found.keys() == expected.keys()
    assert all((found[key] - expected[key]).abs().max() < 1e-6 for key in expected)
