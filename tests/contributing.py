"""The steps of CONTRIBUTING, taken in a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

from tiny_run import edit, environment

import sipo_pl

PACKAGE = Path(sipo_pl.__file__).parent
PAGE = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """Return the part of the page under a title."""
    return re.split(r"^## ", PAGE.split(f"\n## {title}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def blocks(title: str, language: str) -> list[str]:
    """Return the code of a language in the part under a title."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```$", section(title), re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


def copy_package(folder: Path) -> Path:
    """Copy the package into `folder`, and return that."""
    shutil.copytree(PACKAGE, folder / "sipo_pl", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def add_module(folder: Path, title: str) -> None:
    """Write the module that the first step under a title names, where it names it."""
    (path,) = re.findall(r"^1\. Write one \w+, `([\w/]+\.py)`", section(title), re.MULTILINE)
    (code,) = blocks(title, "python")
    assert not (folder / path).exists()
    assert (folder / path).parent.is_dir(), f"the page names a folder that is not there: {path}"
    (folder / path).write_text(code, encoding="utf-8")


def add_stage(folder: Path, entry: str, before: str) -> None:
    """Write a stage's entry into the registry before that of another stage."""
    first = re.escape(f'"{before}",\n')
    text = (folder / "sipo_pl/registry/stages.py").read_text(encoding="utf-8")
    (start,) = re.findall(rf"^    _(?:stage|command)\(\n        {first}", text, re.MULTILINE)
    edit(folder / "sipo_pl/registry/stages.py", start, textwrap.indent(entry, "    ") + start)


def run_in(folder: Path, *words: object) -> str:
    """Run Python in a folder whose modules come first, such as a copy of the package; return what it printed."""
    said = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder,
        env=environment(PYTHONPATH=f"{folder}{os.pathsep}{PACKAGE.parent}"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    return said.stdout
