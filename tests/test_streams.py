"""Commands whose callers left them odd surroundings: streams that are closed, unread or ASCII, a long TMPDIR, -OO."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import environment

from sipo_pl.messages.streams import READABLE, settle

PROGRAM = [sys.executable, "-m", "sipo_pl"]


def said_by(*words: str, shell: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command, within a line of a shell where one is given; its errors are whatever comes out beside."""
    command = [*PROGRAM, *words]
    if shell:
        command = ["bash", "-o", "pipefail", "-c", shell, "bash", *command]
    return subprocess.run(
        command,
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        encoding="utf-8",
    )


@pytest.mark.parametrize(
    "words", [("recipes",), ("--help",), ("prepare", "--help"), ("completion", "--shell", "bash")], ids=str
)
def test_nobody_need_read_what_a_command_says(words: tuple[str, ...]) -> None:
    # the reader is gone before a word is said
    found = said_by(*words, shell='("$@"; echo "code $?" >&2) | true')
    assert found.stderr == "code 0\n"


@pytest.mark.parametrize("closed", ["0", "1", "2"])
def test_closed_streams_lead_nowhere(closed: str, tmp_path: Path) -> None:
    found = said_by("recipes", "--copy", "quickstart", shell=f'cd "{tmp_path}" && "$@" {closed}>&-')
    assert (found.returncode, found.stderr) == (0, "")
    assert (tmp_path / "quickstart/recipe.yaml").is_file()
    kept = [path.read_bytes() for path in (tmp_path / "quickstart").iterdir() if path.is_file()]
    assert not any(b"--dry_run shows its stages" in text for text in kept)


def test_what_ascii_has_not_is_still_said(tmp_path: Path) -> None:
    name = "ä→\udcff.yaml"  # the last is a byte that is no text
    found = subprocess.run(
        [*PROGRAM, "run", "--config", os.fsencode(name)],
        env=environment(PYTHONIOENCODING="ascii", LC_ALL="C"),
        capture_output=True,
        check=False,
        cwd=tmp_path,
    )
    assert found.returncode == 2
    assert b"Traceback" not in found.stderr
    assert b"\\xe4->\xff.yaml" in found.stderr


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [("PYTHONOPTIMIZE", "2", "unset it, or set it to 1"), ("PYTHONWARNINGS", "error", "unset it")],
)
def test_settings_of_the_interpreter_that_break_libraries_are_named(name: str, value: str, told: str) -> None:
    found = said_by("env", **{name: value})
    assert found.returncode == 2
    assert f"sipo_pl env: {name}={value}" in found.stderr
    assert told in found.stderr
    assert found.stderr.count("\n") == 1


@pytest.mark.parametrize("length", [10, 76, 200])
def test_processes_talk_wherever_temporary_files_are(length: int, tmp_path: Path) -> None:
    folder = tmp_path / ("x" * length)
    folder.mkdir()
    program = (
        "import multiprocessing, tempfile\n"
        "from sipo_pl.run.socket_paths import settle_sockets\n"
        "assert settle_sockets()\n"
        "process = multiprocessing.get_context('forkserver').Process(target=print, args=('here',))\n"
        "process.start()\n"
        "process.join()\n"
        "print(process.exitcode, tempfile.gettempdir())\n"
    )
    words = [sys.executable, "-c", program]
    found = subprocess.run(words, env=environment(TMPDIR=str(folder)), capture_output=True, text=True, check=False)
    assert (found.stdout, found.stderr) == (f"here\n0 {folder}\n", "")


def test_what_commands_draw_with_has_a_look_in_ascii() -> None:
    settle()
    assert "a│b·c⏎ → −1 ü".encode("ascii", READABLE) == rb"a|b.c\n -> -1 \xfc"
    assert "\udcffä".encode("utf-8", READABLE) == b"\xff\xc3\xa4"
