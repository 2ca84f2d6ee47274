"""Fixtures that many tests share."""

import logging
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lively_run import Lively, make_lively_run
from once import make_once
from tiny import CHAT_TEMPLATE, make_tiny_model
from tiny_run import Command, Said, make_talkative_model, sipo_pl, write_recipe

from sipo_pl.cli import main as cli
from sipo_pl.storage.stopping import SIGNALS

os.environ.setdefault("HF_HUB_OFFLINE", "1")
pytest_plugins = ["golden_table"]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Llama whose tokenizer adds BOS, has no pad token, and knows a chat template."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", chat_template=CHAT_TEMPLATE)


@pytest.fixture(scope="session")
def talkative_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Llama that ends its texts within some ten tokens."""

    def make(folder: Path) -> None:
        make_talkative_model(folder / "model", chat_template=CHAT_TEMPLATE)

    return make_once(tmp_path_factory, "talkative", make) / "model"


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, talkative_model: Path) -> Path:
    """Folder of a recipe of two objectives whose whole run, in `run`, is done. Not to be changed."""

    def make(folder: Path) -> None:
        result = sipo_pl("run", "--config", write_recipe(folder, talkative_model))
        assert result.returncode == 0, result.stderr
        (folder / "said.txt").write_text(result.stdout + result.stderr)

    return make_once(tmp_path_factory, "finished", make)


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """Give back the signals that a command within the tests' process listened to."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.LogCaptureFixture]:
    """What the project's logger says within the test, each message once.

    Newer versions of pytest listen to loggers that do not propagate, older ones to the root alone; a handler that is
    added twice is called once.
    """
    log = logging.getLogger("sipo_pl")
    monkeypatch.setattr(log, "propagate", False)
    log.addHandler(caplog.handler)
    yield caplog
    log.removeHandler(caplog.handler)


@pytest.fixture
def aligned_folder(tmp_path: Path, talkative_model: Path, finished_run: Path) -> Path:
    """Folder of a recipe whose data is prepared, and whose first alignment is there."""
    write_recipe(tmp_path, talkative_model)
    for name in ("prepare", "align-kind", "align-short"):
        shutil.copytree(finished_run / "run" / name, tmp_path / "run" / name)
    return tmp_path


@pytest.fixture(scope="session")
def lively(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Lively:
    """A finished run whose greedy texts tell its policies apart. Not to be changed."""
    return make_lively_run(finished_run / "run", tmp_path_factory.mktemp("lively"))


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Run a command within the tests' own process, as often as wanted."""

    def run(*words: object) -> Said:
        _drop_handlers()  # they hold the error stream of an earlier test
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["sipo_pl", *map(str, words)])
        try:
            code = cli.main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        return Said(code, *capsys.readouterr())

    before = dict(os.environ)
    yield run
    _drop_handlers()
    os.environ.clear()
    os.environ.update(before)


def _drop_handlers() -> None:
    log = logging.getLogger("sipo_pl")
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
